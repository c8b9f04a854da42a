"""What a file is: its first bytes decide, not the Content-Type of the response.

Hosts send videos as text/plain or application/octet-stream, and errors as video/mp4. Only if the
first bytes are of no known type, the Content-Type is believed. Pure.
"""

import re
from collections.abc import Callable

from msgspec import Struct

SAMPLE_SIZE = 512  # bytes that decide

_NOT_VIDEO_TYPES = ("text/", "image/", "audio/", "application/json", "application/xml")
_NOT_VIDEO_SUFFIXES = ("+json", "+xml", "/json", "/xml", "/html")


class FileType(Struct, frozen=True):
    """The type of a file: its name for people, and whether it is a video."""

    name: str
    is_video: bool


UNKNOWN_VIDEO = FileType("a file of unknown type", True)

_VIDEOS = (
    (b"\x1aE\xdf\xa3", "Matroska or WebM"),
    (b"OggS", "Ogg"),
    (b"FLV\x01", "FLV"),
    (b"DKIF", "IVF"),
    (b"YUV4MPEG2 ", "YUV4MPEG2"),
    (b"0&\xb2u\x8ef\xcf\x11", "ASF"),
    (b"\0\0\1\xba", "MPEG"),
    (b"\0\0\1\xb3", "MPEG"),
    (b"\0\0\0\1\x67", "H.264"),
    (b"\0\0\0\1\x09", "H.264"),
)
_NOT_VIDEOS = (
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"ID3", "MP3"),
    (b"fLaC", "FLAC"),
    (b"%PDF-", "PDF"),
    (b"PK\3\4", "ZIP"),
    (b"Rar!\x1a\x07", "RAR"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
    (b"\x1f\x8b\x08", "gzip"),
    (b"(\xb5/\xfd", "Zstandard"),
)
_SIGNATURES = {
    magic: FileType(name, table is _VIDEOS)
    for table in (_VIDEOS, _NOT_VIDEOS)
    for magic, name in table
}
_RIFF = {b"AVI ": FileType("AVI", True)}
_BOXES = frozenset(
    (b"ftyp", b"styp", b"moov", b"mdat", b"moof", b"free", b"wide", b"skip", b"pnot", b"sidx")
)
"""The types of the boxes with which an MP4 or a QuickTime file begins."""

_OTHER_BOXES = frozenset((b"emsg", b"meta", b"mfra", b"pdin", b"prft", b"ssix", b"udta", b"uuid"))
"""The types of the boxes that may follow."""

_IMAGE_BRANDS = (b"avi", b"hei", b"hev", b"mif", b"msf", b"jxl", b"crx")
"""With which letters the brands begin that are images: avif, avis, heic, heix, hevc, mif1, …"""

_AUDIO_BRANDS = (b"M4A ", b"M4B ", b"M4P ")
_MPEG_TS_SYNC = 0x47  # at the start of each packet of 188 bytes, or after 4 bytes of 192
_TEXT_TYPES = (
    (re.compile(r"[{\[\"]|(?:null|true|false)\s*$"), "JSON"),
    (re.compile(r"<(?:\?xml|Error\b|svg\b|\w+ xmlns)", re.IGNORECASE), "XML"),
    (re.compile(r"<"), "HTML"),
    (re.compile(r"#EXTM3U"), "a playlist"),
    (re.compile(r""), "text"),
)
_FRAMES = (
    (re.compile(rb"[0-9a-fA-F]{1,8}(?:;chunk-signature=|\r\n)"), FileType("aws-chunked", False)),
    (re.compile(rb"--[^\r\n]{1,70}\r\ncontent-", re.IGNORECASE), FileType("multipart", False)),
)
"""How an upload begins that was stored with its framing."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
_BOMS = ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"), (b"\xef\xbb\xbf", "utf-8"))


def identify(first: bytes, content_type: str = "", suffix: str = "") -> FileType:
    """Return the type of a file.

    `first` is its first bytes: `SAMPLE_SIZE` or more, or the whole file. `content_type` is believed
    if they are of no known type. `suffix` is the one of the link: a GIF is accepted as .gif alone.
    """
    found = _by_signature(first) or _by_text(first)
    if found is None:
        return _by_content_type(content_type)
    if found.name == "GIF" and suffix == ".gif":
        return FileType("GIF", True)
    return found


def is_cut_short(read: Callable[[int, int], bytes], size: int) -> bool:
    """Return whether a file of this size is an MP4 that is not complete.

    `read` returns so many bytes (first argument) from an offset (second argument). A file is
    complete if its last box ends with it, and if it has both an index and frames. False for a file
    of 8 bytes or more that is no MP4, or has something else after its boxes.
    """
    offset, types = 0, set[bytes]()
    while offset < size:
        header = read(16, offset)
        length, kind = int.from_bytes(header[:4]), header[4:8]
        if kind not in _BOXES | _OTHER_BOXES:
            return len(header) < 8
        types.add(kind)
        if length == 1 and len(header) < 16:
            return True
        if length == 1:
            length = int.from_bytes(header[8:])
        if length < 8:
            return False  # 0: the box ends with the file
        offset += length
    has_index = not types.isdisjoint((b"moov", b"moof"))
    return offset > size or not (has_index and b"mdat" in types)


def _by_signature(first: bytes) -> FileType | None:
    if first[4:8] in _BOXES and _by_text(first) is None:  # "The free quota is used up"
        return _of_brand(first)
    if first.startswith(b"RIFF"):
        return _RIFF.get(first[8:12], FileType("RIFF", False))
    for magic, kind in _SIGNATURES.items():
        if first.startswith(magic):
            return kind
    for pattern, kind in _FRAMES:
        if pattern.match(first):
            return kind
    for start, packet in ((0, 188), (4, 192)):
        marks = first[start::packet]
        if len(marks) > 1 and set(marks) == {_MPEG_TS_SYNC}:
            return FileType("MPEG-TS", True)
    return None


def _of_brand(first: bytes) -> FileType:
    """Return the type of an MP4 by its major brand."""
    if first.startswith(b"ftyp", 4):
        if first.startswith(_IMAGE_BRANDS, 8):
            return FileType("HEIF", False)
        if first.startswith(_AUDIO_BRANDS, 8):
            return FileType("M4A", False)
    return FileType("MP4", True)


def _by_text(first: bytes) -> FileType | None:
    """Return the type of a text; None for what is none: no video begins without a control sign."""
    encoding = next((name for bom, name in _BOMS if first.startswith(bom)), "utf-8")
    text = first.decode(encoding, "replace").lstrip("\ufeff")
    if _CONTROL.search(text):
        return None
    kinds = (name for pattern, name in _TEXT_TYPES if pattern.match(text.lstrip()))
    return FileType(next(kinds), False)


def _by_content_type(content_type: str) -> FileType:
    kind = content_type.partition(";")[0].strip().lower()
    if kind.startswith(_NOT_VIDEO_TYPES) or kind.endswith(_NOT_VIDEO_SUFFIXES):
        return FileType(kind, False)
    return UNKNOWN_VIDEO
