"""The language of each document, by one rule, which is noted in its row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lexalcm.errors import DataError, near_match
from lexalcm.pipelines.prepare.config import UnknownLang
from lexalcm.text.languages import resolve_language, sonar_code


@dataclass(frozen=True)
class RowLanguage:
    """Of one document."""

    code: str

    rule: str
    """``given``: as the input says. ``mapped``: another spelling of it, say ``en``. ``default``: the input says none, or
    one that is not known."""


class LanguageRule:
    """A code that the encoder knows is taken, another spelling of one mapped to it. An empty one, and one that is not
    known, is what ``unknown`` says. An encoder that needs no language takes whatever is not empty."""

    def __init__(self, *, default: str | None, unknown: UnknownLang, known: Sequence[str] | None) -> None:
        """
        :param default: The language of rows that name none.
        :param known: Codes of the encoder's languages; ``None``: it needs none.
        """
        self._unknown, self._known = unknown, known
        self._default = None if default is None else self._code(default) or default

    def of(self, given: str | None, place: str) -> RowLanguage | None:
        """
        :param given: What the row says.
        :param place: Of the row, for messages.
        :returns: ``None`` for a row that is to be left out.
        :raises DataError: The language is not known, and that is an error.
        """
        text = (given or "").strip()
        if not text and self._default is not None:
            return RowLanguage(self._default, "default")
        code = self._code(text)
        if code is not None:
            return RowLanguage(code, "given" if code == text else "mapped")
        if text and self._known is None:
            return RowLanguage(text, "given")
        if self._unknown == "drop":
            return None
        if self._unknown == "default" and self._default is not None:
            return RowLanguage(self._default, "default")
        if not text:
            raise DataError(
                f"{place} names no language. Say which one such rows have (--lang eng_Latn), or leave them out "
                f"(--unknown-lang drop)."
            )
        raise DataError(
            f'{place}: "{text}" is not a known language.{near_match(text, self._known or ())}\n'
            f"Take --lang for such rows (--unknown-lang default), or leave them out (--unknown-lang drop)."
        )

    def _code(self, text: str) -> str | None:
        return sonar_code(text) if self._known is None else resolve_language(text, self._known)
