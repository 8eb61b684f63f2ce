"""Texts from strangers as messages show them."""

from __future__ import annotations

import re
from typing import Final

# `scheme://user:password@host`; a password may hold what a URL should have escaped.
_PASSWORD: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://[^\s/:@]*):[^\s/]+@")
_SECRET: Final = re.compile(r"TOKEN|KEY|SECRET|PASS|CRED|AUTH|COOKIE|SIGNATURE", re.IGNORECASE)


def shown(text: object) -> str:
    """Returns a text on one line, of printable characters, its passwords masked and its middle left out if it is long."""
    line = printable(str(text))
    return line if len(line) <= 200 else f"{line[:120]} ... {line[-60:]}"


def printable(text: str) -> str:
    """Returns a line with what steers a terminal written out, and without the passwords of URLs in it."""
    line = without_passwords(text)
    return line if line.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def without_passwords(text: str) -> str:
    """Returns ``text`` with ``***`` for the passwords of URLs in it."""
    return _PASSWORD.sub(r"\1:***@", text)


def is_secret(variable: str) -> bool:
    """Whether the name of an environment variable says that its value must not be shown."""
    return _SECRET.search(variable) is not None


def has_password(text: str) -> bool:
    return _PASSWORD.search(text) is not None
