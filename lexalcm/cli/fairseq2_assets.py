"""Hands ``fairseq2 assets ...`` to fairseq2's own command, which it ships as ``python -m fairseq2.assets``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from runpy import run_module


def pass_through(words: Sequence[str]) -> int:
    """Runs fairseq2's command with ``words`` as its arguments and returns its exit code."""
    from lexalcm.installation import check_setup

    check_setup()
    before = sys.argv
    sys.argv = ["fairseq2 assets", *words]
    try:
        run_module("fairseq2.assets", run_name="__main__")
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    finally:
        sys.argv = before
    return 0
