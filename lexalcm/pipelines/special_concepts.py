"""From the sentences that play the role of special tokens to a file of concepts, and how near those are to each other.

Shapes: N concepts, C their dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from lexalcm.data.special_concepts import SpecialConcepts, write_special_concepts
from lexalcm.errors import ConfigError, DataError
from lexalcm.text.interface import SentenceEncoder
from lexalcm.text.special_sentences import SpecialSentence

MAX_COSINE: Final = 0.9
"""What generation's usual end threshold takes for the same."""


@dataclass(frozen=True)
class ClosePair:
    """Two concepts that stand for different things and look alike."""

    first: str

    second: str

    cosine: float


def make_special_concepts(file: Path, sentences: Sequence[SpecialSentence], encoder: SentenceEncoder) -> None:
    """Encodes the sentences and writes them.

    :raises ConfigError: The encoder does not know a language, or cannot take a sentence whole.
    :raises DataError: A concept is zero, so that nothing can be near it.
    """
    texts, langs = [sentence.text for sentence in sentences], [sentence.lang for sentence in sentences]
    for sentence, is_over in zip(sentences, encoder.over_limit(texts, langs)):
        if is_over:
            raise ConfigError(f"The sentence of `{sentence.name}` is longer than {encoder.name} takes. Shorten it.")
    concepts_NC = encoder.encode_mixed(texts, langs)
    for sentence, concept_C in zip(sentences, concepts_NC):
        if not concept_C.any():
            raise DataError(f"{encoder.name} gives a zero vector for `{sentence.name}`: {sentence.text}")
    write_special_concepts(
        file,
        {sentence.name: concept_C for sentence, concept_C in zip(sentences, concepts_NC)},
        {s.name: {"role": s.role, "lang": s.lang, "sentence": s.text, "encoder": encoder.name} for s in sentences},
        encoder=encoder.facts(),
    )


def pairwise_cosines(vectors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns float64 ``[N, N]``; 0 for a zero vector.

    :raises DataError: They are not of one width.
    """
    widths = {name: len(vector) for name, vector in vectors.items()}
    if len(set(widths.values())) > 1:
        told = ", ".join(f"{name} {width}" for name, width in widths.items())
        raise DataError(f"These special concepts cannot be compared, for their widths differ: {told}.")
    concepts_NC = np.stack([vector.astype(np.float64) for vector in vectors.values()])
    norms_N1 = np.linalg.norm(concepts_NC, axis=1, keepdims=True)
    units_NC = concepts_NC / np.where(norms_N1 == 0.0, 1.0, norms_N1)
    return units_NC @ units_NC.T


def close_pairs(special: SpecialConcepts, max_cosine: float = MAX_COSINE) -> list[ClosePair]:
    """The pairs whose cosine is above ``max_cosine``, nearest first. Those of one role are meant to be near: they say
    the same in two languages."""
    names = list(special.vectors)
    cosines_NN = pairwise_cosines(special.vectors)
    pairs = [
        ClosePair(first, second, float(cosines_NN[i, i + 1 + j]))
        for i, first in enumerate(names)
        for j, second in enumerate(names[i + 1 :])
        if special.role_of(first) != special.role_of(second)
    ]
    return sorted((pair for pair in pairs if pair.cosine > max_cosine), key=lambda pair: -pair.cosine)
