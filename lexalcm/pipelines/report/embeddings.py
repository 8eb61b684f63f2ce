"""What the embeddings of a sample of documents tell.

Shapes: N sentences, C dimensions, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from tqdm import tqdm

from lexalcm.data.open_files import OpenFiles
from lexalcm.errors import DataError
from lexalcm.pipelines.corpus_figures import FigureCollector
from lexalcm.pipelines.fit_normalizer import DEAD_SHARE, DEAD_STEPS
from lexalcm.pipelines.fit_rule import FitRule
from lexalcm.pipelines.report.bank import Bank, BankCollector, unit_rows
from lexalcm.pipelines.report.sample import Part, ReadingNotes, SampledDocument, choose_rows, read_documents
from lexalcm.pipelines.report.tally import Tally, rounded

_NUM_RANDOM_PAIRS: Final = 10_000
_COSINE_STEPS: Final = 1000


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """Figures of a sample."""

    num_documents: int

    num_sentences: int

    sentences: Tally
    """Sentences a document."""

    norms: Tally

    neighbour_cosines: Tally
    """Of each sentence with the one after it."""

    random_cosines: Tally
    """Of sentences of different documents."""

    mean: np.ndarray
    """float64 ``[C]``."""

    deviation: np.ndarray
    """float64 ``[C]``."""

    dead: np.ndarray
    """int64: dimensions without spread, as ``fit-normalizer`` calls them."""

    bank: Bank


def collect_embeddings(
    parts: Sequence[Part], num_documents: int, seed: int, notes: ReadingNotes, *, concept_dim: int
) -> Embeddings:
    """Reads the embeddings of so many documents.

    :raises DataError: None of them is good, or none has a sentence.
    """
    files = OpenFiles()
    collector = _Collector(concept_dim, seed)
    chosen = choose_rows(parts, num_documents, seed)
    with tqdm(total=num_documents, desc="embeddings", unit="doc", disable=None, leave=False) as bar:
        for part, rows in chosen:
            for documents in read_documents(files, part, rows, concept_dim=concept_dim, notes=notes):
                collector.add(documents)
            bar.update(int(rows.sum()))
    if collector.num_sentences == 0:
        why = notes.counter.summary() or (notes.unreadable[0] if notes.unreadable else "they are empty")
        raise DataError(
            f"None of the {num_documents:,} documents of the sample can be shown: {why}.\n"
            f"`fairseq2 lcm verify` lists every fault; a larger `--sample` looks at more documents."
        )
    return collector.result(seed)


class _Collector:
    def __init__(self, dim: int, seed: int) -> None:
        self.num_documents = 0
        self.num_sentences = 0
        self._step = 0.0
        self._sentences, self._norms, self._cosines = Tally(), Tally(), Tally()
        self._moments = FigureCollector(dim, FitRule(method="standard"), buffer_rows=None, flat_unit=DEAD_SHARE)
        self._bank = BankCollector(dim, seed=seed)

    def add(self, documents: Sequence[SampledDocument]) -> None:
        lengths = np.asarray([len(document.concepts) for document in documents], np.int64)
        self.num_documents += len(documents)
        self.num_sentences += int(lengths.sum())
        self._sentences.add(lengths)
        if not lengths.any():
            return
        stored = np.concatenate([document.concepts for document in documents])
        self._step = max(self._step, float(np.finfo(stored.dtype).eps))
        vectors = stored.astype(np.float32)
        self._norms.add(rounded(np.linalg.norm(vectors.astype(np.float64), axis=1)))
        unit = unit_rows(vectors)
        first = np.zeros(len(unit), dtype=bool)
        first[(np.cumsum(lengths) - lengths)[lengths > 0]] = True
        self._cosines.add(_in_steps(np.einsum("nc,nc->n", unit[:-1], unit[1:])[~first[1:]]))
        self._moments.add(vectors)
        self._bank.add(documents, vectors)

    def result(self, seed: int) -> Embeddings:
        moments = self._moments.figures()
        bank = self._bank.bank()
        random_cosines = Tally()
        random_cosines.add(_in_steps(_random_cosines(bank, seed)))
        spread = moments.spread
        reference = float(np.quantile(spread, 0.9)) or float(spread.max())
        floor = np.maximum(DEAD_SHARE * reference, DEAD_STEPS * self._step * np.abs(moments.center))
        return Embeddings(
            num_documents=self.num_documents,
            num_sentences=self.num_sentences,
            sentences=self._sentences,
            norms=self._norms,
            neighbour_cosines=self._cosines,
            random_cosines=random_cosines,
            mean=moments.center,
            deviation=spread,
            dead=np.flatnonzero(spread <= floor),
            bank=bank,
        )


def _random_cosines(bank: Bank, seed: int) -> np.ndarray:
    """Cosines ``[P]`` of pairs of sentences from different documents."""
    pairs = np.random.default_rng([seed, 3]).integers(len(bank.sentences), size=(2, _NUM_RANDOM_PAIRS))
    owner = np.asarray([sentence.document for sentence in bank.sentences], np.int64)
    left, right = pairs[:, owner[pairs[0]] != owner[pairs[1]]]
    unit = bank.unit
    return np.einsum("nc,nc->n", unit[left], unit[right])


def _in_steps(cosines: np.ndarray) -> np.ndarray:
    return np.round(cosines.astype(np.float64) * _COSINE_STEPS) / _COSINE_STEPS
