"""Many texts through SaT at once, in windows, the way wtpsplit's ``extract`` goes with one.

Shapes: B windows of T tokens each.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

_MAX_TOKENS: Final = 512
_STRIDE: Final = 64
_MARKS: Final = 2
"""The tokens before and behind a window."""

_LENGTHS: Final = (32, *range(64, _MAX_TOKENS + 1, 64))
"""Windows are padded to the next one, so that few shapes come up, and none that depends on another text."""

_HALF_CHARACTER: Final = re.compile("[\ud800-\udfff]")


class SatModel(Protocol):
    """What may be known of a loaded SaT."""

    device: str
    """The one that is really used."""

    def __call__(self, ids_BT: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
        """Returns float32 logits ``[B, T]`` of a sentence ending at a token.

        :param ids_BT: int64.
        :param mask_BT: float32, 1 for a token and 0 for padding.
        """
        ...


class _Window(NamedTuple):
    text: int
    start: int
    end: int


def end_log_probabilities(texts: Sequence[str], model: SatModel, tokenizer: Any, *, num_rows: int) -> list[np.ndarray]:
    """Of a sentence ending after each character, float32 ``[len(text)]``; minus infinity within a token.

    Windows of 512 tokens, 64 apart; where they overlap, logits are averaged. Each batch has ``num_rows`` rows and a
    length that its windows choose by themselves: rows of one shape do not see each other, while another shape may
    change the last bits.
    """
    if not texts:
        return []
    readable = [_HALF_CHARACTER.sub("\ufffd", text) for text in texts]
    encoded = tokenizer(readable, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids = [np.array(of_text, np.int64) for of_text in encoded["input_ids"]]
    sums = [np.zeros(len(of_text), np.float32) for of_text in ids]
    counts = [np.zeros(len(of_text), np.float32) for of_text in ids]
    by_length: dict[int, list[_Window]] = defaultdict(list)
    for window in _windows(ids):
        needed = window.end - window.start + _MARKS
        by_length[next(length for length in _LENGTHS if length >= needed)].append(window)
    for length, windows in by_length.items():
        for first in range(0, len(windows), num_rows):
            batch = windows[first : first + num_rows]
            logits_BT = model(*_rows(batch, ids, tokenizer, num_rows, length))
            for logits_T, (text, start, end) in zip(logits_BT, batch):
                sums[text][start:end] += logits_T[1 : 1 + end - start]
                counts[text][start:end] += 1
    return [
        _of_characters(len(text), total / count, offsets)
        for text, total, count, offsets in zip(texts, sums, counts, encoded["offset_mapping"], strict=True)
    ]


def _windows(ids: Sequence[np.ndarray]) -> Iterator[_Window]:
    """Each as long as can be: the last one of a text begins earlier rather than being short."""
    most = _MAX_TOKENS - _MARKS
    for text, of_text in enumerate(ids):
        for start in range(0, len(of_text), _STRIDE):
            end = min(start + most, len(of_text))
            yield _Window(text, max(0, end - most), end)
            if end == len(of_text):
                break


def _rows(
    batch: Sequence[_Window], ids: Sequence[np.ndarray], tokenizer: Any, num_rows: int, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask of a batch; a row without a window is padding alone."""
    ids_BT = np.full((num_rows, length), tokenizer.pad_token_id, np.int64)
    mask_BT = np.zeros((num_rows, length), np.float32)
    for row, (text, start, end) in enumerate(batch):
        tokens = [tokenizer.cls_token_id, *ids[text][start:end], tokenizer.sep_token_id]
        ids_BT[row, : len(tokens)] = tokens
        mask_BT[row, : len(tokens)] = 1
    return ids_BT, mask_BT


def _of_characters(length: int, logits: np.ndarray, offsets: Sequence[tuple[int, int]]) -> np.ndarray:
    """A token speaks for its last character."""
    log_probabilities = np.full(length, -np.inf, np.float32)
    # log sigmoid(x) = -log(1 + exp(-x))
    for (start, end), value in zip(offsets, -np.logaddexp(np.float32(0), -logits), strict=True):
        if end > start:
            log_probabilities[end - 1] = value
    return log_probabilities
