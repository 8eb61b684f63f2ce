"""``python -m lexalcm.cli lcm train ...``: the same front, in the form that torchrun starts."""

from __future__ import annotations

import sys

from lexalcm.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
