"""The part that encoders share: sentences become tokens once, and go through the model in batches of like length.

Shapes: N sentences, B sentences of a batch, C dimensions.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from lexalcm.errors import ConfigError
from lexalcm.text.checks import check_encoded, check_sentences, start_of
from lexalcm.text.languages import check_language

_ON_CPU: Final = 2_048
_ON_GPU: Final = 16_384
"""Tokens of a batch. SONAR's encoder (24 layers of width 1024, inside 8192) takes 1.0 GFLOP a token and reads 1 GB of
bfloat16 weights a batch. A GPU of 500 TFLOP/s needs 33 ms for 16,384 tokens, several times what it takes to read the
weights and start the kernels, and 0.3 GB for the widest activation. A CPU is busy with some hundred tokens; more only
leave its caches."""

_MOST_NAMED: Final = 3

_log = logging.getLogger(__name__)


class BatchingEncoder(ABC):
    """A sentence encoder around a model that reads tokens. A subclass makes the tokens and runs the model."""

    name: str
    dim: int
    langs: Sequence[str] | None
    max_tokens: int | None

    _title: str
    """In messages."""

    def __init__(self, *, device: torch.device, batch_tokens: int | None) -> None:
        """
        :param batch_tokens: Tokens that go through the model together, padding included, and at least one sentence.
            None is 16,384 on a GPU and 2,048 on a CPU.
        :raises ConfigError: It is below 1.
        """
        if batch_tokens is not None and batch_tokens < 1:
            raise ConfigError(f"`batch_tokens` must be at least 1, but is {batch_tokens}.")
        self._device = device
        self._batch_tokens = batch_tokens or (_ON_CPU if device.type == "cpu" else _ON_GPU)

    def encode(self, sentences: Sequence[str], lang: str | None = None) -> np.ndarray:
        """:meth:`encode_mixed` of sentences of one language."""
        return self.encode_mixed(sentences, [lang] * len(sentences))

    def encode_mixed(self, sentences: Sequence[str], langs: Sequence[str | None]) -> np.ndarray:
        """Returns float32 ``[N, C]``, raw, in the order given. Sentences that are given twice are encoded once.

        Of a sentence with more tokens than the model takes only the start is seen; the log names it.

        :param langs: Of each sentence; None is what the tokenizer takes where it is not told. Without effect where the
            encoder has no ``langs``.
        :raises ConfigError: An unknown language.
        :raises DataError: A sentence that is empty or not Unicode, or whose concept is not finite.
        """
        langs = self._check(sentences, langs)
        if not sentences:
            return np.zeros((0, self.dim), np.float32)
        numbers: dict[tuple[str | None, str], int] = {}
        number_N = np.array([numbers.setdefault(key, len(numbers)) for key in zip(langs, sentences)])
        tokens = self._tokenize_mixed(list(numbers), number_N)
        concepts_NC = run_in_batches(tokens, self._run, batch_tokens=self._batch_tokens)[number_N]
        check_encoded(concepts_NC, sentences, self._title)
        return concepts_NC

    def over_limit(self, sentences: Sequence[str], langs: Sequence[str | None]) -> np.ndarray:
        """Returns bool ``[N]``: which have more tokens than the model takes.

        :param langs: As :meth:`encode_mixed` takes them, which raises the same errors.
        """
        langs = self._check(sentences, langs)
        over_N = np.zeros(len(sentences), bool)
        if self.max_tokens is not None:
            rows = [row for row, sentence in enumerate(sentences) if self._may_be_long(sentence)]
            for lang, of_lang in _by_lang([langs[row] for row in rows]).items():
                tokens = self._tokenize([sentences[rows[i]] for i in of_lang], lang)
                over_N[[rows[i] for i in of_lang]] = [len(sequence) > self.max_tokens for sequence in tokens]
        return over_N

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What a vector depends on, as plain values, to be recorded next to the data."""

    @abstractmethod
    def _tokenize(self, sentences: Sequence[str], lang: str | None, *, cut: bool = False) -> list[Sequence[int]]:
        """The tokens of each sentence, marks included.

        :param cut: To ``max_tokens``.
        """

    @abstractmethod
    def _run(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Concepts ``[B, C]`` of the sentences of a batch."""

    def _may_be_long(self, sentence: str) -> bool:
        """False where it is sure, without tokenizing, that the model takes it."""
        return True

    def _check(self, sentences: Sequence[str], langs: Sequence[str | None]) -> Sequence[str | None]:
        if len(langs) != len(sentences):
            raise ValueError(f"There are {len(sentences)} sentences but {len(langs)} languages.")
        check_sentences(sentences, self._title)
        if self.langs is None:
            return [None] * len(sentences)
        for lang in dict.fromkeys(langs):
            if lang is not None:
                check_language(lang, self.langs)
        return langs

    def _tokenize_mixed(
        self, keys: Sequence[tuple[str | None, str]], number_N: np.ndarray
    ) -> list[Sequence[int]]:
        """The tokens of each key, at most ``max_tokens``.

        :param number_N: The key of each sentence, for the message.
        """
        tokens: list[Sequence[int]] = [()] * len(keys)
        long: list[int] = []
        for lang, rows in _by_lang([lang for lang, _ in keys]).items():
            for row, sequence in zip(rows, self._tokenize([keys[row][1] for row in rows], lang)):
                tokens[row] = sequence
            if self.max_tokens is not None and (cut := [row for row in rows if len(tokens[row]) > self.max_tokens]):
                for row, sequence in zip(cut, self._tokenize([keys[row][1] for row in cut], lang, cut=True)):
                    tokens[row] = sequence
                long += cut
        if long:
            starts = "; ".join(f'"{start_of(keys[row][1])}"' for row in sorted(long)[:_MOST_NAMED])
            _log.warning(
                "%s takes %d tokens; the rest of %d sentences is cut off: %s",
                self._title,
                self.max_tokens,
                int(np.isin(number_N, long).sum()),
                starts,
            )
        return tokens


def run_in_batches(
    sequences: Sequence[Sequence[int]], run: Callable[[Sequence[Sequence[int]]], Tensor], *, batch_tokens: int
) -> np.ndarray:
    """Returns float32 ``[N, C]`` of at least one sequence, in the order given."""
    batches = cut_into_batches([len(sequence) for sequence in sequences], batch_tokens)
    # On the device until all are done: a copy to the host would wait for each batch.
    made = torch.cat([run([sequences[row] for row in batch]) for batch in batches]).float().cpu().numpy()
    concepts_NC = np.empty_like(made)
    concepts_NC[[row for batch in batches for row in batch]] = made
    return concepts_NC


def cut_into_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Rows of like length together, the longest first: what does not fit in memory shows at once.

    :returns: Batches of rows, each row once. Their number times the length of the longest is at most ``batch_tokens``,
        unless a row is longer by itself.
    """
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if not batches or (len(batches[-1]) + 1) * lengths[batches[-1][0]] > batch_tokens:
            batches.append([])
        batches[-1].append(row)
    return batches


def _by_lang(langs: Collection[str | None]) -> dict[str | None, list[int]]:
    rows: dict[str | None, list[int]] = {}
    for row, lang in enumerate(langs):
        rows.setdefault(lang, []).append(row)
    return rows
