"""What all tests share: fairseq2 must not swallow a broken extension, runs are those of a CPU whatever the machine has, and
tests leave the other core alone."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from _pytest.logging import LogCaptureHandler

os.environ.setdefault("FAIRSEQ2_EXTENSION_TRACE", "1")
os.environ.setdefault("FAIRSEQ2_DEVICE", "cpu")
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def logging_stays_as_it_was() -> Iterator[None]:
    """A training run sets up logging for its whole process, which the next test in it must not feel."""
    loggers = [logging.getLogger(name) for name in (None, "fairseq2")]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before):
        for handler in logger.handlers[:]:
            if handler not in handlers and not isinstance(handler, LogCaptureHandler):
                logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Meta-format dataset of 8-d concepts: 48 documents to train on and 20 to validate on, in small row groups."""
    from lexalcm.data.write import NewDocument, write_documents

    folder = tmp_path_factory.mktemp("tiny_corpus")
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    for split, count in (("train", 48), ("validation", 20)):
        documents = []
        for _ in range(count):
            concepts = [rng.normal(size=8)]
            for _ in range(int(rng.integers(2, 12))):
                concepts.append(turn @ concepts[-1] + 0.1 * rng.normal(size=8))
            documents.append(NewDocument([f"sentence {i}" for i in range(len(concepts))], np.asarray(concepts)))
        write_documents(folder / f"split={split}" / "part-0.parquet", documents, concepts_per_row_group=40)
    return folder


TINY_RUN = [
    "model.arch=null",
    "model.config_overrides={concept_dim: 8, model_dim: 16, num_context_layers: 1, num_denoiser_layers: 2, num_heads: 2, "
    "ffn_dim: 32, timestep_dim: 8, denoiser_dropout_p: 0.1}",
    "dataset.reading.concepts_per_batch=128",
    "regime.num_steps=12",
    "regime.validate_every_n_steps=4",
    "regime.checkpoint_every_n_steps=4",
    "regime.publish_metrics_every_n_steps=1",
    "validation.num_samples=2",
    "validation.sampler.config={num_steps: 2}",
    "common.metric_recorders.tensorboard.enabled=false",
]
"""Overrides of the recipe quickstart that make a run of a second."""


@pytest.fixture
def tiny_overrides(tiny_corpus: Path) -> list[str]:
    return [f"dataset.path={tiny_corpus}", *TINY_RUN]
