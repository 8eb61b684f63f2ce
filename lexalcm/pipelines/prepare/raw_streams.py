"""Files of text as streams of bytes: opened wherever they lie, unpacked, entered at any place, split into lines.

Offsets count bytes from the start of the unpacked file.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import zstandard

from lexalcm.data.discover import reason_of
from lexalcm.errors import DataError
from lexalcm.pipelines.prepare.raw_files import RawFile

_BLOCK: Final = 2**20
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_DAMAGE: Final = (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError)


@dataclass(frozen=True)
class Mark:
    """A place in a file of text where a document begins."""

    row: int
    """Of the document in its file, from 0."""

    line: int
    """From 1."""

    offset: int


class RawStream(io.BufferedReader):
    """The unpacked bytes of a file, from a mark on."""

    def __init__(self, unpacked: Any, file: RawFile, packed: Any) -> None:
        super().__init__(unpacked, _BLOCK)
        self.file = file
        self._packed = packed
        self._is_text_seekable = unpacked is packed

    @property
    def progress(self) -> int:
        """How many bytes of the file on disk were read."""
        return self._packed.tell()

    def go_to(self, offset: int) -> None:
        """Moves to a place at or after the one reached: by seeking, in packed files by reading what lies before."""
        if self._is_text_seekable:
            self.seek(offset)
            return
        left = offset - self.tell()
        while left > 0:
            block = self.read(min(left, _BLOCK))
            if not block:
                raise DataError(f"{self.file.path} ends before byte {offset:,}: it changed since then.")
            left -= len(block)

    def skip_byte_order_mark(self) -> int:
        """Call at the start. Returns the offset reached.

        :raises DataError: The file begins as UTF-16 or UTF-32 does.
        """
        start = self.peek(4)[:4]
        if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise DataError(f"{self.file.name}:1 is not UTF-8, but begins as UTF-16 or UTF-32 does. Write it as UTF-8.")
        if start[:3] != _BYTE_ORDER_MARK:
            return 0
        return len(self.read(3))


@contextmanager
def open_stream(file: RawFile) -> Iterator[RawStream]:
    """Opens a file of text.

    :raises DataError: It cannot be opened, or what is packed is damaged, also when that is found on reading.
    """
    try:
        with open(file.path, "rb") if file.is_local else file.file_system.open(file.path, "rb") as packed:
            with RawStream(_unpacked(packed, file.compression), file, packed) as stream:
                yield stream
    except _DAMAGE as ex:
        packed_as = f" as {file.compression}" if file.compression else ""
        raise DataError(f"{file.path} cannot be read{packed_as}: {reason_of(ex)}.") from None


def _unpacked(packed: Any, compression: str | None) -> Any:
    if compression == "gzip":
        return gzip.GzipFile(fileobj=packed)
    if compression == "bz2":
        return bz2.BZ2File(packed)
    if compression == "xz":
        return lzma.LZMAFile(packed)
    return _ZstdStream(packed) if compression == "zstd" else packed


class _ZstdStream(io.RawIOBase):
    """All frames of a file, one after the other. The library's own reader takes a file that is cut short for whole."""

    def __init__(self, packed: Any) -> None:
        self._packed = packed
        self._frame: Any = None
        self._ready = memoryview(b"")
        self._rest = b""
        self._position = 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def readinto(self, target: Any) -> int:
        while not self._ready:
            block = self._rest or self._packed.read(2**17)
            self._rest = b""
            if not block:
                if self._frame is not None:
                    raise EOFError("the file is cut short")
                return 0
            if self._frame is None:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._ready = memoryview(self._frame.decompress(block))
            if self._frame.eof:
                self._rest, self._frame = self._frame.unused_data, None
        size = min(len(target), len(self._ready))
        target[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        self._position += size
        return size


def decode(raw: bytes, stream: RawStream, line: int) -> str:
    """
    :param line: Where ``raw`` begins, for the message.
    :raises DataError: It is not UTF-8.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as ex:
        line += raw.count(b"\n", 0, ex.start)
        column = ex.start - raw.rfind(b"\n", 0, ex.start)
        raise DataError(
            f"{stream.file.name}:{line} is not UTF-8: {ex.reason}, 0x{raw[ex.start]:02x} at byte {column:,} of the "
            f"line. Write the file as UTF-8."
        ) from None
