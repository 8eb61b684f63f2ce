"""The sentences that play the role of special tokens, from ``cards/special_sentences.yaml`` or a file like it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lexalcm.errors import CardError, ConfigError, near_match, unknown_name
from lexalcm.shipped import shipped_folder
from lexalcm.text.checks import has_half_character
from lexalcm.text.languages import resolve_language
from lexalcm.yaml_text import parse_yaml

_SENTENCES: Final = "sentences"
_FIELDS: Final = (_SENTENCES, "name", "special_concepts_family")
"""The last two make the shipped file a card."""

_ROLE: Final = re.compile(r"[A-Za-z]\w*", re.ASCII)
_LANG: Final = re.compile(r"[A-Za-z]{2,3}(_[A-Za-z]+)?", re.ASCII)


@dataclass(frozen=True)
class SpecialSentence:
    """One sentence of one role."""

    name: str
    """Of its concept: the role, and the language behind a dot where it is not the first one."""

    role: str

    lang: str

    text: str


def shipped_special_sentences() -> Path:
    """The file that ships with the package."""
    return shipped_folder("cards") / "special_sentences.yaml"


def read_special_sentences(file: Path) -> dict[str, dict[str, str]]:
    """Reads texts by role and language.

    :raises CardError: The file is missing, not YAML, or says something else.
    """
    try:
        documents = parse_yaml(file.read_text(encoding="utf-8"))
    except OSError as ex:
        raise CardError(f"The sentences {file} cannot be read: {ex.strerror} (looked at {file.resolve()}).") from None
    except ValueError as ex:
        raise CardError(f"{file} is not valid YAML: {ex}.") from None
    if len(documents) != 1 or not isinstance(documents[0], dict) or _SENTENCES not in documents[0]:
        raise CardError(
            f"{file} must be one mapping with a field `{_SENTENCES}`: roles, and in each a sentence a language.\n"
            f"Copy {shipped_special_sentences()} and edit it."
        )
    for field in documents[0]:
        if field not in _FIELDS:
            raise CardError(
                f"{file} has no field `{field}`.{near_match(str(field), _FIELDS)}\nFields: {', '.join(_FIELDS)}."
            )
    sentences = documents[0][_SENTENCES]
    if not isinstance(sentences, dict) or not sentences:
        raise CardError(f"{file}: `{_SENTENCES}` must be a mapping of roles, but is {str(sentences)[:80]!r}.")
    for role, by_lang in sentences.items():
        _check_role(role, by_lang, f"{file}: `{_SENTENCES}")
    return {role: dict(by_lang) for role, by_lang in sentences.items()}


def choose_special_sentences(
    sentences: dict[str, dict[str, str]], langs: Sequence[str] | None, file: Path
) -> list[SpecialSentence]:
    """Names those of some languages, role by role.

    :param langs: The first gives the plain names; None takes all, in the order of the file. ``ja`` means ``jpn_Jpan``.
    :param file: Where they stand, for messages.
    :raises ConfigError: A role lacks a language.
    """
    known = list(dict.fromkeys(lang for by_lang in sentences.values() for lang in by_lang))
    langs = known if langs is None else list(dict.fromkeys(resolve_language(lang, known) or lang for lang in langs))
    if not langs:
        raise ConfigError(f"`--langs` must name at least one language of {file}: {', '.join(known)}.")
    chosen = []
    for role, by_lang in sentences.items():
        for lang in langs:
            if lang not in known:
                raise ConfigError(
                    f"`--langs`: {unknown_name(f'language of {file}', lang, known)}\n"
                    f"For another one, copy that file, add its sentences, and give it as --sentences FILE."
                )
            if lang not in by_lang:
                raise ConfigError(f"{file}: `{role}` has no sentence in {lang}. Add one, or leave {lang} out: --langs.")
            chosen.append(SpecialSentence(role if lang == langs[0] else f"{role}.{lang}", role, lang, by_lang[lang]))
    return chosen


def _check_role(role: Any, by_lang: Any, where: str) -> None:
    if not isinstance(role, str) or _ROLE.fullmatch(role) is None:
        raise CardError(f"{where}` must have roles of letters, digits and _, but has {role!r}.")
    if not isinstance(by_lang, dict) or not by_lang:
        raise CardError(f"{where}.{role}` must be a mapping of language to sentence, but is {str(by_lang)[:80]!r}.")
    for lang, text in by_lang.items():
        if not isinstance(lang, str) or _LANG.fullmatch(lang) is None:
            raise CardError(f"{where}.{role}` must name languages by codes such as eng_Latn, but has {lang!r}.")
        if not isinstance(text, str) or not text.strip() or has_half_character(text):
            raise CardError(f"{where}.{role}.{lang}` must be a sentence, but is {str(text)[:80]!r}.")
