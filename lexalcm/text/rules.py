"""Splits text by rules: sentencex of Wikimedia, which knows sentence marks and abbreviations of many languages.

It needs no weights and no network. A few ends that it finds are moved or dropped here, see :func:`_sound_ends`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any, Final

from lexalcm.text.cutting import CuttingSegmenter, Ends

_MISREAD_SPACE: Final = re.compile(r"[\r\n\u2028\u2029]|[^\S\x00-\x7f](?=\.)")
"""Two line breaks end a paragraph for sentencex, but which of them end a sentence is an option here; and it panics at
white space of other than ASCII's before a full stop."""

_HALF_CHARACTER: Final = re.compile("[\ud800-\udfff]")

_OPENING: Final = "\u00ab\u2018\u201c\u300c\u300e"
_CLOSING: Final = ")\\]}\u00bb\u2019\u201d\u300d\u300f\uff09\u3011\u3015\u300b\u3009"
_MARKS: Final = ".!?\u2026\u3002\uff01\uff1f"

# A straight quote closes only where no word begins behind it.
_REST: Final = re.compile(rf"""(?:[{_CLOSING}]|["'](?=[\s"',;:{_CLOSING}{_MARKS}]|$))[{_CLOSING}{_MARKS}"']*""")
_NEW_START: Final = re.compile(rf"""\s*(?:$|["'{_OPENING}])|\s+[^\s]""")
_LOWER_CASE: Final = re.compile(r"\s+[a-z]")
_QUOTES: Final = frozenset(_CLOSING.replace("\\", ""))
_QUOTING: Final = re.compile(
    # to (but not tokoroga, tohaie, tomokaku, tomoare, toriwake), tte, nado, wo, no (but not nochi)
    "\u3068(?!\u3053\u308d|\u306f\u3044\u3048|\u3082\u304b\u304f|\u3082\u3042\u308c|\u308a\u308f\u3051)"
    "|\u3063\u3066|\u306a\u3069|\u3092|\u306e(?!\u3061)"
)
_BEFORE_NUMBER: Final = re.compile("[\u3002\uff01\uff1f](?=[0-9\uff10-\uff19])")
_OPEN_MARKS: Final = "(\uff08\u300c\u300e\u3010\u201c"
_CLOSE_MARKS: Final = ")\uff09\u300d\u300f\u3011\u201d"
_LATIN_WORD: Final = re.compile(r"[A-Za-z0-9][.!?]+$")
_INITIAL: Final = re.compile(r"(?:^|[^A-Za-z])[A-Z]\.$")
_NUMBER: Final = re.compile(r"\s*\(?\d{1,3}[.)\uff0e]\s*")
_WORD_BEFORE: Final = re.compile(r"([^\W\d_]+)\.$")
_LOOK_BACK: Final = 24

_ABBREVIATIONS: Final = {
    "en": frozenset(("Ms", "Mses", "Ft", "Vol", "Vols", "Ch", "Eq", "Eqs", "Ed", "Eds", "approx", "ca")),
    "fr": frozenset(("M", "MM", "Mgr")),
}
"""Those before a name or a number that sentencex does not know."""

_OTHER_LANGUAGE: Final = "en"
_TWO_LETTERS: Final = dict(
    pair.split(":")
    for pair in (
        "acm:ar acq:ar aeb:ar afr:af ajp:ar aka:ak als:sq amh:am apc:ar arb:ar ars:ar ary:ar arz:arz asm:as azb:az "
        "azj:az bak:ba bam:bm bel:be ben:bn bod:bo bos:bs bul:bg cat:ca ces:cs cym:cy dan:da deu:de dzo:dz ell:el "
        "eng:en epo:eo est:et eus:eu ewe:ee fao:fo fij:fj fin:fi fra:fr fuv:ff gaz:om gla:gd gle:ga glg:gl grn:gn "
        "guj:gu hat:ht hau:ha heb:he hin:hi hrv:hr hun:hu hye:hy ibo:ig ind:id isl:is ita:it jav:jv jpn:ja kan:kn "
        "kas:ks kat:ka kaz:kk khk:mn khm:km kik:ki kin:rw kir:ky kmr:ku knc:kr kon:kg kor:ko lao:lo lim:li lin:ln "
        "lit:lt ltz:lb lug:lg lvs:lv mal:ml mar:mr mkd:mk mlt:mt mri:mi mya:my nld:nl nno:nn nob:nb npi:ne nya:ny "
        "oci:oc ory:or pan:pa pbt:ps pes:fa plt:mg pol:pl por:pt prs:fa quy:qu ron:ro run:rn rus:ru sag:sg san:sa "
        "sin:si slk:sk slv:sl smo:sm sna:sn snd:sd som:so sot:st spa:es srd:sc srp:sr ssw:ss sun:su swe:sv swh:sw "
        "tam:ta tat:tt tel:te tgk:tg tgl:tl tha:th tir:ti tsn:tn tso:ts tuk:tk tur:tr twi:tw uig:ug ukr:uk urd:ur "
        "uzn:uz vie:vi wol:wo xho:xh ydd:yi yor:yo zho:zh zsm:ms zul:zu"
    ).split()
)
"""sentencex knows languages by ISO 639-1 where they have such a code, SONAR by ISO 639-3 and their script."""


class RulesSegmenter(CuttingSegmenter):
    """By sentencex, with the rules of a text's language.

    Any code is taken: SONAR's, such as ``jpn_Jpan``, or ISO's. A language that is not known, or that sentencex has no
    rules for, is read with those of English; they know the sentence marks of all scripts, but no abbreviations of its.
    """

    name = "rules"
    kind = "rules"

    def facts(self) -> dict[str, Any]:
        """What shapes the sentences, as plain values."""
        return {**super().facts(), "library": f"sentencex {version('sentencex')}"}

    def _find_ends(self, texts: Sequence[str], langs: Sequence[str | None]) -> Iterator[Ends]:
        for text, lang in zip(texts, langs, strict=True):
            language = sentencex_language(lang)
            readable = _HALF_CHARACTER.sub("\ufffd", _MISREAD_SPACE.sub(" ", text))
            ends: set[int] = set()
            start = 0
            for stop in (*self._breaks(text), len(text)):
                if not (block := readable[start:stop]).isspace():
                    ends.update(start + end for end in _ends_of_block(block, language))
                start = stop
            yield ends, None


def sentencex_language(code: str | None) -> str:
    """How sentencex calls a language, with or without a script."""
    language = (code or _OTHER_LANGUAGE).strip().lower().replace("-", "_").split("_")[0]
    return _TWO_LETTERS.get(language, language) or _OTHER_LANGUAGE


def _ends_of_block(block: str, language: str) -> list[int]:
    import sentencex

    ends, end = [], 0
    for piece in sentencex.segment(language, block):
        ends += [end + stop for stop in _before_numbers(piece)]
        if sentence := piece.rstrip():
            ends.append(end + len(sentence))
        end += len(piece)
    return _sound_ends(block, ends, _ABBREVIATIONS.get(language, frozenset()))


def _before_numbers(piece: str) -> Iterator[int]:
    """Full-width marks with a number behind them, outside of quotes: sentencex takes them for decimal points."""
    depth = start = 0
    for match in _BEFORE_NUMBER.finditer(piece):
        depth += sum(piece.count(mark, start, match.end()) for mark in _OPEN_MARKS)
        depth -= sum(piece.count(mark, start, match.end()) for mark in _CLOSE_MARKS)
        start = match.end()
        if depth <= 0:
            yield start


def _sound_ends(text: str, ends: Sequence[int], abbreviations: frozenset[str]) -> list[int]:
    """Ends that are one, moved behind the quotes and brackets that close there.

    :param ends: Without the white space that follows.
    """
    kept: list[int] = []
    start = without = 0
    for end in ends:
        if end <= start or (moved := _moved_end(text, end, abbreviations)) is None:
            continue
        if _NUMBER.fullmatch(text, start, moved):
            continue
        # What is known to hold no letter is not looked at again.
        if any(character.isalnum() for character in text[without:moved]):
            kept.append(moved)
        elif kept:
            kept[-1] = moved
        without = moved
        start = kept[-1] if kept else 0
    return kept


def _moved_end(text: str, end: int, abbreviations: frozenset[str]) -> int | None:
    """None where the sentence goes on."""
    if (rest := _REST.match(text, end)) is not None:
        end = rest.end()
        if not _NEW_START.match(text, end) or _LOWER_CASE.match(text, end):
            return None
    if text[end - 1] in _QUOTES and _QUOTING.match(text, end):
        return None
    before, following = text[max(0, end - _LOOK_BACK) : end], text[end : end + 1]
    if following.isalpha() and _INITIAL.search(before):
        return None
    # Yahoo! and D.C. within a text that has no spaces.
    goes_on = not following.isascii() and (following.isalnum() or following == "\uff08")
    if goes_on and _LATIN_WORD.search(before):
        return None
    if abbreviations and following and (word := _WORD_BEFORE.search(before)) is not None and word[1] in abbreviations:
        return None
    return end
