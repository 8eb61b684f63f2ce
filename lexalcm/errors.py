"""The few errors a user can cause. The command line shows their text alone, without a traceback."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches


class LexalcmError(Exception):
    """A user's fault: what, where, found, expected, fix, in at most three lines."""


class ConfigError(LexalcmError):
    """A field of a recipe, card or command line that cannot be honoured."""


class CardError(LexalcmError):
    """A card that is missing, names what does not exist, or does not have the shape of its kind."""


class DataError(LexalcmError):
    """A dataset that cannot be used, or a row that must not be trained on."""


class CheckpointError(LexalcmError):
    """A checkpoint that is damaged, of another kind, or of another shape than its config."""


class SetupError(LexalcmError):
    """An installation that cannot run: a missing library, or versions that do not fit together."""


class RunError(LexalcmError):
    """A run that failed although nothing typed was wrong: a worker that died, a full disk."""


def innermost(error: BaseException) -> str:
    """The text of the exception that started it: fairseq2 wraps the telling one in general ones."""
    *_, root = causes(error)
    return str(root)


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error, what caused it, and so on to the one that started it."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__


def near_match(name: str, known: Iterable[str]) -> str:
    """Returns ` Did you mean "x"?` when one of ``known`` is close to ``name``, else an empty string."""
    matches = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f' Did you mean "{matches[0]}"?' if matches else ""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Returns one sentence for a name that is not known: the near match, and the whole list when it is short."""
    known = sorted(known)
    hint = near_match(name, known)
    listed = f" Known: {', '.join(known)}." if known and (len(known) <= 12 or not hint) else ""
    return f'"{name}" is not a known {kind}.{hint}{listed}'
