"""A SONAR of the tests' own, known to fairseq2 while a test runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.text.tiny_sonar import build_tiny_sonar, known_to_fairseq2


@pytest.fixture(scope="session")
def sonar_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_sonar(tmp_path_factory.mktemp("tiny_sonar"), 16)


@pytest.fixture(scope="module")
def sonar_cards(sonar_folder: Path) -> Iterator[Path]:
    with known_to_fairseq2(sonar_folder):
        yield sonar_folder
