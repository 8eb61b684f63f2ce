"""Tar archives that a card's URL names: fairseq2 unpacks what it downloads, and Python before 3.14 writes members wherever
they say, over any file of the user's.
"""

from __future__ import annotations

import tarfile
from tarfile import TarFile, TarInfo


def refuse_unsafe_members() -> None:
    """Makes what Python does from 3.14 on what this process does: members stay in the folder that is unpacked to, and are
    files, folders or links within it."""
    if TarFile.extraction_filter is None:
        TarFile.extraction_filter = staticmethod(_safe_member)  # type: ignore[assignment]


def _safe_member(member: TarInfo, folder: str) -> TarInfo:
    try:
        return tarfile.data_filter(member, folder)
    except tarfile.FilterError as ex:
        # The kind of error that fairseq2 expects of unpacking.
        raise OSError(f"{ex}. Nothing outside its own folder is written") from ex
