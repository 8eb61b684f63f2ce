"""The whole examination: its sections in the order in which faults follow from each other, as text and as data."""

from __future__ import annotations

import platform
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from lexalcm.doctor import cards, folders, imports, machine, packages, variables
from lexalcm.doctor.children import Outcome, Task
from lexalcm.doctor.finding import Finding, Status, cleaned, guarded

_COLORS: Final[dict[Status, str]] = {"ok": "32", "warning": "33", "error": "31;1"}
_INDENT: Final = 11


@dataclass(frozen=True)
class Report:
    """What was found."""

    sections: Mapping[str, list[Finding]]

    variables: Mapping[str, str]

    def count(self, status: Status) -> int:
        return sum(finding.status == status for findings in self.sections.values() for finding in findings)

    @property
    def verdict(self) -> str:
        errors, warnings = self.count("error"), self.count("warning")
        told = f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"
        if errors:
            return f"{told}: mend the errors from the top, since later ones may follow from earlier ones."
        return f"{told}: nothing stands in the way." if warnings else "All is well."


def examine(outcomes: Mapping[Task, Outcome], commands: list[Finding]) -> Report:
    """
    :param outcomes: Of :func:`lexalcm.doctor.imports.import_everything`.
    :param commands: What was found of the command line.
    """
    devices = imports.devices(outcomes)
    sections = {
        "Versions": [
            *guarded("versions", packages.look_at_versions),
            *guarded("requirements", packages.look_at_requirements),
        ],
        "Imports": [
            *guarded("imports", lambda: imports.look_at_imports(outcomes)),
            *guarded("libsndfile", lambda: imports.look_at_libsndfile(outcomes)),
            *guarded("extensions", lambda: imports.look_at_extensions(outcomes)),
            *commands,
        ],
        "Machine": [
            *guarded("cpu", machine.look_at_cpu),
            *guarded("gpu", lambda: _gpus(devices)),
            *guarded("memory", machine.look_at_memory),
            *guarded("shared memory", machine.look_at_shared_memory),
            *guarded("limits", machine.look_at_limits),
            *guarded("scheduler", machine.look_at_scheduler),
        ],
        "Folders": [
            *guarded("disk", folders.look_at_disks),
            *guarded("caches", folders.look_at_caches),
            *guarded("cards", cards.look_at_cards),
        ],
        "Environment": guarded("variables", lambda: variables.look_at_variables(devices)),
    }
    clean = {title: [cleaned(finding) for finding in findings] for title, findings in sections.items()}
    return Report(clean, variables.shown_variables())


def as_text(report: Report, *, width: int, in_color: bool) -> str:
    """
    :param width: Of the screen, in characters; lines are broken between words.
    :param in_color: Colour what stands first on each line.
    """
    lines = []
    for title, findings in report.sections.items():
        lines.append(title)
        for finding in findings:
            mend = f". Mend: {finding.mend}" if finding.mend else ""
            first, *rest = textwrap.wrap(
                f"{finding.text}{mend}", max(width - _INDENT, 20), break_long_words=False, break_on_hyphens=False
            )
            word = f"{finding.status:<{_INDENT - 2}}"
            lines.append(f"  {_colored(word, finding.status) if in_color else word}{first}")
            lines += [f"{'':{_INDENT}}{line}" for line in rest]
    return "\n".join([*lines, "", *textwrap.wrap(report.verdict, width)])


def as_json(report: Report) -> dict[str, Any]:
    """For scripts and reports of bugs."""
    return {
        "errors": report.count("error"),
        "warnings": report.count("warning"),
        "verdict": report.verdict,
        "system": platform.platform(),
        "findings": [
            {"section": title, **asdict(finding)} for title, findings in report.sections.items() for finding in findings
        ],
        "variables": dict(report.variables),
    }


def _gpus(devices: Outcome) -> list[Finding]:
    found = machine.look_at_gpus(devices, driver=machine.nvidia_driver(), num_nodes=machine.num_gpu_nodes())
    return list(found)


def _colored(text: str, status: Status) -> str:
    return f"\033[{_COLORS[status]}m{text}\033[0m"
