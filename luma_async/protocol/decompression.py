"""Decode gzip and deflate, with a bound on what a hostile server can make a client do.

aiohttp decodes more (br, zstd), but 3.14.5 counts the members of a stream again for each chunk of a
chunked body. A server that sends chunks of 2,000 bytes stays below that bound: 1 MiB of empty
members or frames then stops the event loop for 0.03 s (gzip), 0.4 s (deflate) or 0.2 s (zstd) at a
time. Here the members of the whole body are counted.
"""

import zlib
from typing import Protocol

ACCEPT_ENCODING = "gzip, deflate"
MAX_MEMBERS = 16  # of one body; a server that compresses as usual sends one

_WINDOW_BITS = {
    "gzip": 16 + zlib.MAX_WBITS,
    "x-gzip": 16 + zlib.MAX_WBITS,
    "deflate": zlib.MAX_WBITS,
}
_NOT_ACCEPTED = ("br", "zstd", "compress", "x-compress")
_GZIP_MAGIC = 0x1F  # the first byte of gzip; JSON never begins with it
_DEFLATE_METHOD = 8  # the low half of the first byte of a zlib stream (RFC 1950)


class _Member(Protocol):
    """A decoder of one member, as `zlib.decompressobj` returns it."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class BadEncoding(ValueError):
    """The body is not what its Content-Encoding says, or has an encoding that was not accepted."""


class Decompressor:
    """Decode the body of one answer, chunk by chunk, by the value of its Content-Encoding.

    The first byte counts more than the header: proxies send plain bodies with one, and gzip without
    (`is_mislabelled`). A value that is unknown leaves the body as it is. BadEncoding for one that
    `ACCEPT_ENCODING` does not contain.
    """

    def __init__(self, content_encoding: str) -> None:
        self.is_mislabelled: bool = False
        self._encoding = content_encoding.strip().lower()
        self._window_bits = _WINDOW_BITS.get(self._encoding)
        self._member: _Member | None = None
        self._member_count = 0
        self._began = False

    def decompress(self, data: bytes, limit: int) -> bytes:
        """Return what a chunk decodes to, `limit` bytes (1 or more) at most.

        After `limit` bytes the rest of the chunk is lost: give up then. BadEncoding for what cannot
        be decoded, and for more than `MAX_MEMBERS` members.
        """
        if data and not self._began:
            self._began = True
            self._look_at_first_byte(data[0])
        if self._window_bits is None:
            return data
        parts: list[bytes] = []
        try:
            while data and limit:
                if self._member is None or self._member.eof:
                    self._member = self._next_member(self._window_bits, data[0])
                parts.append(self._member.decompress(data, limit))
                limit -= len(parts[-1])
                data = self._member.unused_data
        except zlib.error as error:
            raise BadEncoding(f"cannot decode {self._encoding}: {error}") from None
        return b"".join(parts)

    def _look_at_first_byte(self, first: int) -> None:
        is_gzip, is_json = first == _GZIP_MAGIC, first in b"[{"
        if is_gzip and self._window_bits != _WINDOW_BITS["gzip"]:
            self._encoding, self.is_mislabelled = "gzip", True
        elif self._encoding in _WINDOW_BITS or self._encoding in _NOT_ACCEPTED:
            plain = is_json or (self._encoding in ("gzip", "x-gzip") and not is_gzip)
            if plain:
                self._encoding, self.is_mislabelled = "", True
        if self._encoding in _NOT_ACCEPTED:
            raise BadEncoding(
                f"the answer is compressed with {self._encoding}, and only {ACCEPT_ENCODING} is "
                "accepted; check the proxy in front of the relay"
            )
        self._window_bits = _WINDOW_BITS.get(self._encoding)

    def finish(self) -> None:
        """Check that the body did not end within a member; BadEncoding if it did."""
        if self._member is not None and not self._member.eof:
            raise BadEncoding(f"cannot decode {self._encoding}: the body is cut short")

    def _next_member(self, window_bits: int, first: int) -> _Member:
        """Return a decoder; many servers send deflate without the header that it should have."""
        self._member_count += 1
        if self._member_count > MAX_MEMBERS:
            raise BadEncoding(f"cannot decode {self._encoding}: more than {MAX_MEMBERS} members")
        has_no_header = self._encoding == "deflate" and first & 0xF != _DEFLATE_METHOD
        return zlib.decompressobj(-zlib.MAX_WBITS if has_no_header else window_bits)
