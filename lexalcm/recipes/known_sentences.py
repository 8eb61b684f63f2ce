"""The sentences of a dataset, to show concepts by the nearest of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from fairseq2.logging import log

from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.discover import same_split
from lexalcm.data.write import TEXT_COLUMN
from lexalcm.errors import DataError
from lexalcm.recipes.dataset import open_named_dataset
from lexalcm.text.nearest import NearestSentences


def known_sentences(name: str, most: int, concept_dim: int) -> NearestSentences:
    """The first sentences of a dataset: of its split train, if it has one.

    :raises DataError: It has no sentences, or concepts of another width than the model's.
    """
    opened = open_named_dataset(name)
    if opened.concept_dim != concept_dim:
        raise DataError(
            f"The corpus {name} has concepts of {opened.concept_dim} dimensions, but the model's have {concept_dim}."
        )
    dataset = opened
    if opened.config.text_column is None:
        dataset = ConceptParquetDataset(replace(opened.config, text_column=TEXT_COLUMN))
    split = next((split for split in dataset.splits if same_split("train", split)), None)
    vectors: list[np.ndarray] = []
    sentences: list[str] = []
    for document in dataset.documents(split):
        room = most - len(sentences)
        # Prepared data keep the white space between sentences, so that these join to their text.
        sentences += [sentence.strip() for sentence in (document.sentences or [])[:room]]
        vectors.append(document.concepts[:room])
        if len(sentences) >= most:
            break
    if not sentences:
        raise DataError(f"The corpus {name} has no sentences to show concepts as.")
    log.info("Decoder - the nearest of {} sentences of {}.", f"{len(sentences):,}", name)
    return NearestSentences(np.concatenate(vectors), sentences)
