"""The first bytes of a file say whether it is a video, whatever its Content-Type is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luma_async.downloads.file_types import SAMPLE_SIZE, identify, is_cut_short
from luma_async.testing import media

VIDEOS = {
    "MP4": b"\0\0\0\x20ftypisom\0\0\2\0",
    "MP4 without a known brand": b"\0\0\0\x18ftypXXXX",
    "fragmented MP4": b"\0\0\0\x18stypmsdh",
    "QuickTime": b"\0\0\0\x14ftypqt  ",
    "old QuickTime: moov": b"\0\0\1\0moov\0\0\0\x6cmvhd",
    "old QuickTime: mdat": b"\0\0\1\0mdat",
    "old QuickTime: wide": b"\0\0\0\x08wide\0\0\1\0mdat",
    "old QuickTime: skip": b"\0\0\0\x08skip",
    "MP4 after a free box": b"\0\0\0\x08free\0\0\0\x20ftyp",
    "64-bit mdat": b"\0\0\0\1mdat\0\0\0\0\1\0\0\0",
    "frames that begin like the brand of an image": b"\0\0\1\0mdatheic",
    "a free box that begins like the brand of a song": b"\0\0\1\0freeM4A ",
    "WebM": b"\x1aE\xdf\xa3\x9fB\x86\x81\1",
    "AVI": b"RIFF\0\1\0\0AVI LIST",
    "AVI, its first twelve bytes": b"RIFF\0\1\0\0AVI ",
    "Ogg": b"OggS\0\2",
    "FLV": b"FLV\1\5",
    "MPEG-PS": b"\0\0\1\xba\x44",
    "MPEG-TS": (b"\x47" + bytes(187)) * 3,
    "MPEG-TS, two packets": (b"\x47" + bytes(187)) * 2,
    "M2TS": (bytes(4) + b"\x47" + bytes(187)) * 3,
    "ASF": bytes.fromhex("3026B2758E66CF11A6D900AA0062CE6C"),
}
OTHERS = {
    "JSON": b'{"error": {"code": 403}}',
    "a JSON list": b" \r\n[1]",
    "a JSON text": b'"expired"',
    "null": b"null\n",
    "problem+json": b'{"type":"about:blank","title":"Gone","status":410}',
    "JSON with a byte order mark": b'\xef\xbb\xbf{"a":1}',
    "JSON in UTF-16": '\ufeff{"a": 1}'.encode("utf-16-le"),
    "JSON in GBK": '{"message": "链接已过期"}'.encode("gbk"),
    "XML": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "XML without a declaration": b"<Error><Code>NoSuchKey</Code></Error>",
    "HTML": b"<!DOCTYPE html><html>",
    "a long page": b"<html>" + b" " * 600,
    "HTML after a blank line": b"\n\n  <html><body>403 Forbidden</body>",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg">',
    "text": b"error code: 1015",
    "text with the first letter of MPEG-TS": b"Gateway timeout",
    "a terminal's text": b"\x1b[31mNot Found\x1b[0m",
    "blanks": b"  \n",
    "a playlist": b"#EXTM3U\n#EXT-X-VERSION:3",
    "chunks of an upload": b"10000;chunk-signature=ab\r\n\0\0\0\x20ftyp",
    "chunks of an upload without signatures": b"10000\r\n\0\0\0\x20ftyp",
    "a form": b"--x\r\nContent-Disposition: form-data; name=file\r\n\r\n\0\0\0\x20ftyp",
    "one word": b"processing",
    "one word in Chinese": "链接已过期".encode(),
    "one word in GBK": "链接已过期".encode("gbk"),
    "base64": b"AAAAIGZ0eXBpc29tAAACAGlzb20=",
    "a data link": b"data:video/mp4;base64,AAAAIGZ0eXBpc29t",
    "text with the name of a box": b"The free quota is used up",
    "PNG": b"\x89PNG\r\n\x1a\n\0\0",
    "JPEG": b"\xff\xd8\xff\xe0\0\x10JFIF",
    "GIF": b"GIF89a\1\0\1\0",
    "WebP": b"RIFF\0\1\0\0WEBPVP8 ",
    "WAVE": b"RIFF\0\1\0\0WAVEfmt ",
    "AVIF": b"\0\0\0\x20ftypavif",
    "HEIC": b"\0\0\0\x20ftypheic",
    "M4A": b"\0\0\0\x20ftypM4A \0\0\2\0",
    "RIFF without a type": b"RIFF\0\1\0\0",
    "a byte order mark alone": b"\xef\xbb\xbf",
    "MP3": b"ID3\4\0",
    "PDF": b"%PDF-1.7",
    "ZIP": b"PK\3\4\x14",
    "gzip": b"\x1f\x8b\x08\0",
}
CONTENT_TYPES = ("", "video/mp4", "text/plain", "text/html", "application/octet-stream", "x/json")


@pytest.mark.parametrize("first", VIDEOS.values(), ids=VIDEOS)
def test_a_video_is_one_whatever_its_content_type(first: bytes) -> None:
    assert all(identify(first, content_type).is_video for content_type in CONTENT_TYPES)


@pytest.mark.parametrize("first", OTHERS.values(), ids=OTHERS)
def test_what_is_no_video_is_none_whatever_its_content_type(first: bytes) -> None:
    assert not any(identify(first, content_type).is_video for content_type in CONTENT_TYPES)


@pytest.mark.parametrize(
    ("content_type", "is_video"),
    [
        ("video/mp4", True),
        ("application/octet-stream", True),
        ("binary/octet-stream", True),
        ("", True),
        ("Video/MP4; codecs=avc1", True),
        ("text/html; charset=utf-8", False),
        ("TEXT/plain", False),
        ("image/png", False),
        ("application/json", False),
        ("application/problem+json", False),
        ("application/xhtml+xml", False),
    ],
)
def test_the_content_type_is_believed_of_bytes_of_no_known_type(
    content_type: str, is_video: bool
) -> None:
    assert identify(b"\x93\x01\x02\x03", content_type).is_video is is_video


def test_a_gif_is_accepted_from_a_link_to_a_gif_alone() -> None:
    assert identify(b"GIF89a\1\0", "image/gif", ".gif").is_video
    assert not identify(b"GIF89a\1\0", "image/gif", ".mp4").is_video
    assert not identify(b"\x89PNG\r\n\x1a\n", "image/gif", ".gif").is_video


def test_the_files_of_the_fake_relay_are_what_they_are() -> None:
    assert identify(media.video("a")[:SAMPLE_SIZE]).name == "MP4"
    assert identify(media.picture("a")).name == "XML"


@given(st.binary(max_size=SAMPLE_SIZE), st.sampled_from(CONTENT_TYPES))
def test_any_bytes_have_a_type(first: bytes, content_type: str) -> None:
    assert identify(first, content_type).name


FTYP, MOOV, MDAT = b"\0\0\0\x10ftypisom\0\0\2\0", b"\0\0\0\x0cmoov----", b"\0\0\0\x0amdat--"
LONG_MDAT = b"\0\0\0\1mdat\0\0\0\0\0\0\0\x12--"


def is_cut(data: bytes) -> bool:
    return is_cut_short(lambda size, offset: data[offset : offset + size], len(data))


@pytest.mark.parametrize(
    "data",
    [
        FTYP + MOOV + MDAT,
        FTYP + MDAT + MOOV,
        FTYP + MOOV + LONG_MDAT,
        FTYP + b"\0\0\0\x08free" + MOOV + MDAT + b"\0\0\0\x08uuid",
        FTYP + MOOV + b"\0\0\0\0mdat-----",
        FTYP + MOOV + MDAT + bytes(100),
        FTYP + MOOV + MDAT + b"garbage after the last box",
        FTYP + MOOV + MDAT + b"\0\0\0\7free",
        b"\x1aE\xdf\xa3 WebM",
        b"\xff" * 8,
        media.video("a"),
    ],
)
def test_a_complete_file_is_not_cut_short(data: bytes) -> None:
    assert not is_cut(data)


@pytest.mark.parametrize("data", [FTYP + MOOV + MDAT, FTYP + LONG_MDAT + MOOV, media.video("a")])
def test_an_mp4_is_cut_short_wherever_it_is_cut(data: bytes) -> None:
    sizes = {*range(1, min(len(data), 99)), *range(len(data) - 39, len(data), 7), len(data) // 2}
    assert all(is_cut(data[:size]) for size in sizes if size > 0)


def test_an_mp4_whose_last_box_is_longer_than_any_file_is_cut_short() -> None:
    huge = b"\0\0\0\1mdat" + (2**60 + 18).to_bytes(8)
    assert is_cut(FTYP + MOOV + huge + b"--")
