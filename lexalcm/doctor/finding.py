"""One line of the report, and what may stand in it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from lexalcm.errors import SetupError
from lexalcm.installation import DOCTOR
from lexalcm.shown import is_secret

Status = Literal["ok", "warning", "error"]

_LOGIN: Final = re.compile(r"(?<=://)[^\s/@]+@")


@dataclass(frozen=True)
class Finding:
    """What was looked at, and how it is."""

    status: Status

    name: str
    """Short and stable, for scripts: ``torch``, ``libsndfile``."""

    text: str
    """One sentence or two, without a full stop at the end."""

    mend: str | None = None
    """A command, or what else to do; only of warnings and errors."""


def guarded(name: str, probe: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """What a probe finds. One that fails is itself a finding: the others must be shown all the same."""
    findings: list[Finding] = []
    try:
        findings.extend(probe())
    except SetupError as ex:
        text, _, mend = str(ex).removesuffix(DOCTOR).strip().partition(" Run: ")
        findings.append(Finding("error", name, text.rstrip("."), mend or None))
    except Exception as ex:
        findings.append(Finding("warning", name, f"could not be looked at: {type(ex).__name__}: {first_line(ex)}"))
    return findings


def first_line(error: BaseException | str) -> str:
    """The first line with something in it, at most 160 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[0] if lines else type(error).__name__
    return line if len(line) <= 160 else f"{line[:157]}..."


def without_secrets(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """A text to show to others: without values of secret variables, without logins in URLs, the home folder as ``~``."""
    secrets = [value for name, value in environment.items() if is_secret(name) and len(value) >= 6]
    # The longest first: one secret may hold another.
    for value in sorted(secrets, key=len, reverse=True):
        # Many such variables name a file or a number of seconds, which is no secret.
        if not value.startswith("/"):
            text = text.replace(value, "***")
    text = _LOGIN.sub("***@", text)
    home = str(Path.home())
    return re.sub(rf"{re.escape(home)}(?=/|\s|$|[,;:'\"])", "~", text) if len(home) > 1 else text


def cleaned(finding: Finding) -> Finding:
    """The finding without secrets, and on one line."""
    mend = None if finding.mend is None else without_secrets(" ".join(finding.mend.split()))
    return replace(finding, text=without_secrets(" ".join(finding.text.split())), mend=mend)
