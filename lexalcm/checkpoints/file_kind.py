"""What a file is by how it begins, whatever its name says."""

from __future__ import annotations

from typing import Final

TORCH_STARTS: Final = (b"PK\x03\x04", b"\x80")
"""How files of ``torch.save`` begin, and those of PyTorch before 1.6."""


def looks_like(head: bytes) -> str:
    """Returns what a file with this beginning is, and how to get the right one, as the end of a sentence.

    :param head: Its first bytes, some hundred of them.
    """
    if not head:
        return "it is empty"
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "it is a web page (HTML), say of a login or an error. Download the file itself"
    if head.startswith(b"version https://git-lfs"):
        return "it is what Git LFS keeps in the place of a large file. Fetch that: git lfs pull"
    if head.startswith(TORCH_STARTS):
        return "it is a PyTorch file. Name it .pt"
    if head[257:262] == b"ustar":
        return "it is a tar archive. Unpack it and name the file in it"
    # Eight bytes tell the length of a header in JSON.
    if head[8:9] == b"{":
        return "it is a safetensors file. Name it .safetensors"
    return f"it begins with {head[:8]!r}"
