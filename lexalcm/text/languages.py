"""Language codes, checked before any model loads."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from typing import Final

from lexalcm.errors import CardError, ConfigError, near_match

SONAR_CARD: Final = "text_sonar_basic_encoder"

_COMMON_NAMES: Final = {
    "ar": "arb_Arab", "arabic": "arb_Arab",
    "de": "deu_Latn", "german": "deu_Latn",
    "en": "eng_Latn", "english": "eng_Latn",
    "es": "spa_Latn", "spanish": "spa_Latn",
    "fr": "fra_Latn", "french": "fra_Latn",
    "hi": "hin_Deva", "hindi": "hin_Deva",
    "it": "ita_Latn", "italian": "ita_Latn",
    "ja": "jpn_Jpan", "jp": "jpn_Jpan", "japanese": "jpn_Jpan",
    "ko": "kor_Hang", "korean": "kor_Hang",
    "nl": "nld_Latn", "dutch": "nld_Latn",
    "pl": "pol_Latn", "polish": "pol_Latn",
    "pt": "por_Latn", "portuguese": "por_Latn",
    "ru": "rus_Cyrl", "russian": "rus_Cyrl",
    "tr": "tur_Latn", "turkish": "tur_Latn",
    "uk": "ukr_Cyrl", "ukrainian": "ukr_Cyrl",
    "vi": "vie_Latn", "vietnamese": "vie_Latn",
    "zh": "zho_Hans", "chinese": "zho_Hans",
}  # fmt: skip
"""What people write, and the code that they mean."""


def check_language(code: str, known: Collection[str]) -> None:
    """:raises ConfigError: ``code`` is not known; the text names what may have been meant, and how to list all."""
    if code in known:
        return
    meant = _meant(code, known)
    hint = f' Did you mean "{meant}"?' if meant else near_match(code, known)
    raise ConfigError(
        f'"{code}" is not a known language.{hint} Codes are those of SONAR, such as eng_Latn or jpn_Jpan.\n'
        f"List all {len(known)} with: fairseq2 lcm generate --list-languages"
    )


def sonar_languages(card_name: str = SONAR_CARD) -> list[str]:
    """The codes that a SONAR card lists, sorted. Only the card is read, no model.

    :raises CardError: No such card, or one without languages.
    """
    from fairseq2.assets import AssetCardError, AssetNotFoundError, get_asset_store
    from fairseq2.data.tokenizers import TokenizerFamily
    from fairseq2.data.tokenizers.ref import resolve_tokenizer_reference
    from fairseq2.runtime.dependency import get_dependency_resolver

    store = get_asset_store()
    try:
        card = resolve_tokenizer_reference(store, store.retrieve_card(card_name))
        family_name = card.field("tokenizer_family").as_(str)
        family = get_dependency_resolver().maybe_resolve(TokenizerFamily, key=family_name)
        config = family.get_tokenizer_config(card) if family is not None else None
    except AssetNotFoundError:
        names = {name.split("@")[0] for name in store.asset_names}
        raise CardError(f'There is no card "{card_name}".{near_match(card_name, names)}') from None
    except AssetCardError as ex:
        raise CardError(f'Card "{card_name}" does not describe a tokenizer: {ex}') from ex
    langs = getattr(config, "langs", None)
    if not langs:
        raise CardError(f'Card "{card_name}" lists no languages; its tokenizer is of family "{family_name}".')
    return sorted(langs)


def _meant(code: str, known: Collection[str]) -> str | None:
    """The code for a name of everyday use, a wrong case or separator, or a code whose script is missing or wrong."""
    plain = code.strip().lower().replace("-", "_")
    if (named := _COMMON_NAMES.get(plain) or _COMMON_NAMES.get(plain.split("_")[0])) in known:
        return named
    folded = {name.lower(): name for name in sorted(known)}
    if plain in folded:
        return folded[plain]
    language = plain.split("_")[0]
    same = [name for name in sorted(known) if name.split("_")[0] == language]
    close = get_close_matches(plain, [name.lower() for name in same], n=1, cutoff=0.0)
    return folded[close[0]] if close else None
