"""The outcome of a check as text for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from lexalcm.pipelines.verify.kinds import KINDS, Severity
from lexalcm.pipelines.verify.run import Totals, Verified

_SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


def text_report(verified: Verified, *, name: str, strict: bool = False) -> str:
    """A table of totals, problems by kind with the first of each, and the verdict as the last line."""
    lines = [name, *_table(_totals(verified.totals))]
    findings, most = verified.findings, verified.config.most_kept
    for kind, about in KINDS.items():
        count = findings.counts[kind]
        if not count:
            continue
        lines += ["", f"{about.severity}: {about.title} ({count:,})"]
        first = findings.first[kind]
        lines += [f"  {problem.place}: {problem.reason}" for problem in first]
        if count > len(first) and most:
            lines.append(f"  ... and {count - len(first):,} more: --json FILE lists all")
        lines.append(f"  {about.fix}")
    return "\n".join([*lines, "", verdict(verified, strict=strict)])


def verdict(verified: Verified, *, strict: bool) -> str:
    """The outcome in one line."""
    findings, totals = verified.findings, verified.totals
    errors, warnings = findings.count("error"), findings.count("warning")
    if errors:
        rows = f", {findings.num_bad_rows:,} of {totals.num_documents:,} documents among them"
        more = f", and {_counted(warnings, 'warning')}" if warnings else ""
        return f"broken: {_counted(errors, 'error')}{rows if findings.num_bad_rows else ''}{more}"
    if warnings:
        how = "not good enough for --strict" if strict else "usable"
        return f"{how}: no errors, {_counted(warnings, 'warning')}"
    return f"good: {totals.num_checked:,} documents checked, nothing to complain about"


def json_lines(verified: Verified, *, name: str, strict: bool = False) -> Iterator[str]:
    """One JSON object, line by line, with the list of all problems in it.

    Needs a check that kept them all.
    """
    findings = verified.findings
    totals: dict[str, Any] = vars(verified.totals)
    head = {
        "dataset": name,
        "split": verified.config.split,
        "max_length": verified.config.max_length,
        "broken": verified.is_broken(strict=strict),
        "verdict": verdict(verified, strict=strict),
        "totals": {**totals, "megabytes_per_second": _rate(verified.totals)},
        "counts": {f"{severity}s": _counts(verified, severity) for severity in _SEVERITIES},
        "num_bad_documents": findings.num_bad_rows,
    }
    # The list may be longer than memory: its lines are passed through as they are.
    yield json.dumps(head, indent=1)[: -len("\n}")] + ","
    yield ' "problems": ['
    held: str | None = None
    for line in findings.all_lines():
        if held is not None:
            yield f"  {held},"
        held = line
    if held is not None:
        yield f"  {held}"
    yield " ]"
    yield "}"


def _counts(verified: Verified, severity: Severity) -> dict[str, int]:
    counts = verified.findings.counts
    return {kind: counts[kind] for kind, about in KINDS.items() if counts[kind] and about.severity == severity}


def _totals(totals: Totals) -> dict[str, str]:
    unreadable = f", {totals.num_unreadable_files:,} of them cannot be read" if totals.num_unreadable_files else ""
    splits = ", ".join(f"{split} {count:,}" for split, count in sorted(totals.splits.items()))
    filtered = f"; {totals.num_filtered:,} left out by filters" if totals.num_filtered else ""
    types = ", ".join(f"{kind} in {_counted(count, 'file')}" for kind, count in totals.types.most_common())
    return {
        "files": f"{totals.num_files:,}{unreadable}, {_counted(totals.num_row_groups, 'row group')}",
        "documents": f"{totals.num_documents:,}, {totals.num_checked:,} checked{filtered}",
        "splits": splits or "none that paths name",
        "lengths": f"{totals.num_empty:,} empty, {totals.num_single:,} of one sentence, the longest of "
        f"{totals.longest:,}",
        "sentences": f"{totals.num_sentences:,}",
        "vectors": f"{totals.width} wide; {types}" if totals.types else "none",
        "columns": ", ".join(totals.columns) or "none",
        "size": f"{totals.num_bytes / 1e6:,.1f} MB in {totals.seconds:,.1f} s, {_rate(totals):,.0f} MB/s",
    }


def _rate(totals: Totals) -> float:
    return totals.num_bytes / 1e6 / totals.seconds if totals.seconds else 0.0


def _table(rows: dict[str, str]) -> list[str]:
    width = max(map(len, rows)) + 2
    return [f"  {name:<{width}}{value}" for name, value in rows.items()]


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
