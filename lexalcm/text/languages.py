"""Language codes, checked before any model loads."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from typing import Final

from lexalcm.errors import CardError, ConfigError, near_match
from lexalcm.text.companions import import_companion

SONAR_CARD: Final = "text_sonar_basic_encoder"

_CODES: Final = {
    language: code
    for code, languages in {
        "afr_Latn": "af", "aka_Latn": "ak", "als_Latn": "sq sqi alb", "amh_Ethi": "am", "arb_Arab": "ar ara arabic",
        "asm_Beng": "as", "ayr_Latn": "ay aym", "azj_Latn": "az aze", "bak_Cyrl": "ba", "bam_Latn": "bm",
        "bel_Cyrl": "be", "ben_Beng": "bn bengali", "bod_Tibt": "bo tib tibetan", "bos_Latn": "bs",
        "bul_Cyrl": "bg bulgarian", "cat_Latn": "ca catalan", "ces_Latn": "cs cze czech", "cym_Latn": "cy wel welsh",
        "dan_Latn": "da danish", "deu_Latn": "de ger german", "dzo_Tibt": "dz", "ell_Grek": "el gre greek",
        "eng_Latn": "en english", "epo_Latn": "eo esperanto", "est_Latn": "et estonian", "eus_Latn": "eu baq basque",
        "ewe_Latn": "ee", "fao_Latn": "fo", "fij_Latn": "fj", "fin_Latn": "fi finnish", "fra_Latn": "fr fre french",
        "gaz_Latn": "om orm", "gla_Latn": "gd", "gle_Latn": "ga irish", "glg_Latn": "gl galician", "grn_Latn": "gn",
        "guj_Gujr": "gu gujarati", "hat_Latn": "ht", "hau_Latn": "ha hausa", "heb_Hebr": "he iw hebrew",
        "hin_Deva": "hi hindi", "hrv_Latn": "hr croatian", "hun_Latn": "hu hungarian", "hye_Armn": "hy arm armenian",
        "ibo_Latn": "ig igbo", "ind_Latn": "id indonesian", "isl_Latn": "is ice icelandic", "ita_Latn": "it italian",
        "jav_Latn": "jv javanese", "jpn_Jpan": "ja jp japanese", "kan_Knda": "kn kannada",
        "kat_Geor": "ka geo georgian", "kaz_Cyrl": "kk kazakh", "khk_Cyrl": "mn mon mongolian", "khm_Khmr": "km khmer",
        "kik_Latn": "ki", "kin_Latn": "rw kinyarwanda", "kir_Cyrl": "ky kyrgyz", "kmr_Latn": "ku kur", "kon_Latn": "kg",
        "kor_Hang": "ko korean", "lao_Laoo": "lo lao", "lim_Latn": "li", "lin_Latn": "ln", "lit_Latn": "lt lithuanian",
        "ltz_Latn": "lb", "lug_Latn": "lg", "lvs_Latn": "lv lav latvian", "mal_Mlym": "ml malayalam",
        "mar_Deva": "mr marathi", "mkd_Cyrl": "mk mac macedonian", "mlt_Latn": "mt maltese", "mri_Latn": "mi mao maori",
        "mya_Mymr": "my bur burmese", "nld_Latn": "nl dut dutch", "nno_Latn": "nn", "nob_Latn": "nb no nor norwegian",
        "npi_Deva": "ne nep nepali", "nya_Latn": "ny", "oci_Latn": "oc occitan", "ory_Orya": "or ori",
        "pan_Guru": "pa punjabi", "pbt_Arab": "ps pus pashto", "pes_Arab": "fa fas per persian",
        "plt_Latn": "mg mlg malagasy", "pol_Latn": "pl polish", "por_Latn": "pt portuguese", "quy_Latn": "qu que",
        "ron_Latn": "ro rum romanian", "run_Latn": "rn", "rus_Cyrl": "ru russian", "sag_Latn": "sg",
        "san_Deva": "sa sanskrit", "sin_Sinh": "si sinhala", "slk_Latn": "sk slo slovak", "slv_Latn": "sl slovenian",
        "smo_Latn": "sm samoan", "sna_Latn": "sn", "snd_Arab": "sd", "som_Latn": "so somali", "sot_Latn": "st",
        "spa_Latn": "es spanish", "srd_Latn": "sc", "srp_Cyrl": "sr serbian", "ssw_Latn": "ss",
        "sun_Latn": "su sundanese", "swe_Latn": "sv swedish", "swh_Latn": "sw swa swahili", "tam_Taml": "ta tamil",
        "tat_Cyrl": "tt tatar", "tel_Telu": "te telugu", "tgk_Cyrl": "tg tajik", "tgl_Latn": "tl tagalog fil filipino",
        "tha_Thai": "th thai", "tir_Ethi": "ti", "tsn_Latn": "tn", "tso_Latn": "ts", "tuk_Latn": "tk turkmen",
        "tur_Latn": "tr turkish", "uig_Arab": "ug uyghur", "ukr_Cyrl": "uk ukrainian", "urd_Arab": "ur urdu",
        "uzn_Latn": "uz uzb uzbek", "vie_Latn": "vi vietnamese", "wol_Latn": "wo wolof", "xho_Latn": "xh xhosa",
        "ydd_Hebr": "yi yid yiddish", "yor_Latn": "yo yoruba", "yue_Hant": "cantonese",
        "zho_Hans": "zh zho chi cmn chinese", "zsm_Latn": "ms msa may malay", "zul_Latn": "zu zulu",
    }.items()
    for language in languages.split()
}  # fmt: skip
"""What people write, and SONAR's code for it: names in English, codes of two letters (ISO 639-1), and those of three
(ISO 639-2) that SONAR has not, among them those of a family of languages, for its largest."""

_SCRIPTS: Final = {
    ("zho", "tw"): "Hant", ("zho", "hk"): "Hant", ("zho", "mo"): "Hant",
    ("pan", "pk"): "Arab", ("uzn", "af"): "Arab", ("azj", "ir"): "Arab", ("khk", "cn"): "Mong", ("kaz", "cn"): "Arab",
}  # fmt: skip
"""Regions that write a language in another script than its code says."""

_SAME_SCRIPTS: Final = {"Kore": "Hang"}


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


def resolve_language(code: str | None, known: Collection[str]) -> str | None:
    """The code among ``known`` that data mean by ``code``, which may be a code of SONAR in another case or with another
    separator, of ISO 639, of BCP 47 with a script or a region, or a name in English: ``EN``, ``en-US``, ``japanese``.

    None for what is empty or is none of them: nothing is guessed, for a wrong language is worse than none. So is one in
    another script: ``sr-Latn`` is not ``srp_Cyrl``.
    """
    if not code or code in known:
        return code or None
    plain = _plain(code)
    for name in known:
        if _plain(name) == plain:
            return name
    language, *rest = plain.split("_")
    base = _CODES.get(plain) or (_CODES.get(language) if len(language) <= 3 else None)
    if base is None:
        of_language = [name for name in known if len(language) == 3 and name.split("_")[0] == language]
        base = of_language[0] if len(of_language) == 1 else None
    if base is None:
        return None
    meant, _, script = base.partition("_")
    for part in rest:
        if len(part) == 4 and part.isalpha():
            script = _SAME_SCRIPTS.get(part.title(), part.title())
        elif (len(part) == 2 and part.isalpha()) or (len(part) == 3 and part.isdigit()):
            script = _SCRIPTS.get((meant, part), script)
        else:
            return None
    return found if (found := f"{meant}_{script}") in known else None


def sonar_code(code: str) -> str | None:
    """SONAR's code for one of ISO 639-1, with or without a region, such as ``ja`` or ``ja_XX``; None if it has none."""
    return resolve_language(code, set(_CODES.values()))


def sonar_languages(card_name: str = SONAR_CARD) -> list[str]:
    """The codes that a SONAR card lists, sorted. Only the card is read, no model.

    :raises CardError: No such card, or one without languages.
    :raises SetupError: The sonar-space package is missing, or does not fit.
    """
    from fairseq2.assets import AssetCardError, AssetNotFoundError, get_asset_store
    from fairseq2.data.tokenizers import TokenizerFamily
    from fairseq2.data.tokenizers.ref import resolve_tokenizer_reference
    from fairseq2.runtime.dependency import get_dependency_resolver

    # It brings the cards.
    import_companion("sonar", package="sonar-space")
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
    plain = _plain(code)
    if (named := _CODES.get(plain) or _CODES.get(plain.split("_")[0])) in known:
        return named
    folded = {_plain(name): name for name in sorted(known)}
    if plain in folded:
        return folded[plain]
    language = plain.split("_")[0]
    same = [name for name in sorted(known) if name.split("_")[0] == language]
    close = get_close_matches(plain, [_plain(name) for name in same], n=1, cutoff=0.0)
    return folded[close[0]] if close else None


def _plain(code: str) -> str:
    return code.strip().lower().replace("-", "_").replace(" ", "_")
