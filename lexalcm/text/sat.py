"""Splits text by Segment any Text (SaT), a model that knows many languages: https://arxiv.org/abs/2406.16678."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np

from lexalcm.device import check_device
from lexalcm.errors import ConfigError
from lexalcm.text.cutting import MAX_LENGTH, CuttingSegmenter, Ends, Newlines
from lexalcm.text.sat_model import Backend, load_sat
from lexalcm.text.sat_windows import end_log_probabilities

DEFAULT_SAT: Final = "sat-3l-sm"

SAT_NAME: Final = re.compile(r"sat-\d+l(-no-limited-lookahead)?(-sm)?")
"""As the hub has them."""

_OTHER_THRESHOLD: Final = 0.025
_ROWS: Final = {"cpu": 1, "cuda": 32}
"""Windows that go through the model together: a window of 512 tokens fills a CPU, but not a GPU."""

# Between two letters of other scripts no sentence ends; these are written without spaces.
_WITHOUT_SPACES: Final = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
)

_log = logging.getLogger(__name__)


class SatSegmenter(CuttingSegmenter):
    """A SaT, by PyTorch or ONNX Runtime. It needs no language.

    Windows of many texts go through the model together, in shapes that do not depend on how many there are: the
    probabilities of a text are the same to the last bit whatever stands beside it.
    wtpsplit's own ``max_length`` is not used: it fills segments up to that length, many sentences in one.
    """

    kind = "sat"

    def __init__(
        self,
        model: str | Path = DEFAULT_SAT,
        *,
        tokenizer: str | Path | None = None,
        device: str = "cpu",
        max_length: int = MAX_LENGTH,
        threshold: float | None = None,
        newlines: Newlines = "line",
        backend: Backend = "torch",
        batch_size: int | None = None,
    ) -> None:
        """
        :param model: A name of the hub, such as ``sat-3l-sm``, or a folder; a folder needs no network.
        :param tokenizer: A name of the hub, or a folder; the model's folder where that holds one.
        :param threshold: A sentence ends where its probability is higher; None: the ``threshold`` of the folder's
            config.json, or else what wtpsplit takes for a model of this name, or else 0.025.
        :param batch_size: Windows that go through the model together; None is 1 on a CPU and 32 on a GPU. It may change
            the last bits of a probability.
        :raises CheckpointError: The model or its tokenizer is not there, or damaged.
        :raises ConfigError: A value out of its range, or a device that is not there.
        """
        super().__init__(max_length=max_length, newlines=newlines)
        if threshold is not None and not 0 < threshold < 1:
            raise ConfigError(f"`threshold` of a segmenter must be between 0 and 1, but is {threshold}.")
        if batch_size is not None and batch_size < 1:
            raise ConfigError(f"`batch_size` of a segmenter must be at least 1 window, but is {batch_size}.")
        asked = check_device(device)
        # The name of the last folder alone: a folder called `small` above it says nothing about the model.
        self.name = Path(model).absolute().name if Path(model).is_dir() else str(model)
        self.threshold = _usual_threshold(Path(model)) if threshold is None else threshold
        self.batch_size = _ROWS.get(asked.type, 1) if batch_size is None else batch_size
        self.backend = backend
        self._model, self._tokenizer = load_sat(model, tokenizer, backend=backend, device=asked)
        self.device = self._model.device
        _log.info("%s splits sentences with %s on %s, threshold %g.", self.name, backend, self.device, self.threshold)

    def facts(self) -> dict[str, Any]:
        """What shapes the sentences, as plain values; ``device`` is the one that is really used."""
        return {
            **super().facts(),
            "device": self.device,
            "threshold": self.threshold,
            "backend": self.backend,
            "batch_size": self.batch_size,
            "library": f"wtpsplit {version('wtpsplit')}",
        }

    def log_probabilities(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Of a sentence ending after each character, float32 ``[len(text)]`` for each text."""
        return end_log_probabilities(texts, self._model, self._tokenizer, num_rows=self.batch_size)

    def _find_ends(self, texts: Sequence[str], langs: Sequence[str | None]) -> Iterator[Ends]:
        for text, log_probabilities in zip(texts, self.log_probabilities(texts), strict=True):
            ends = (int(i) + 1 for i in np.flatnonzero(np.exp(log_probabilities) > self.threshold))
            yield {end for end in ends if not _is_inside_word(text, end)}, log_probabilities


def _is_inside_word(text: str, end: int) -> bool:
    pair = text[end - 1 : end + 1]
    return len(pair) == 2 and pair.isalnum() and not _WITHOUT_SPACES.search(pair)


def _usual_threshold(model: Path) -> float:
    config = _read_config(model / "config.json")
    recorded = config.get("threshold")
    if isinstance(recorded, float) and 0 < recorded < 1:
        return recorded
    for name in (model.absolute().name if model.is_dir() else str(model), str(config.get("_name_or_path", ""))):
        if (match := SAT_NAME.search(name)) is not None:
            # What wtpsplit takes for a model of this name.
            if match[2]:
                return 0.25
            return 0.01 if match[1] else 0.025
    return _OTHER_THRESHOLD


def _read_config(file: Path) -> dict[str, Any]:
    """Nothing where it is not there or damaged: whoever loads the model says so."""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}
