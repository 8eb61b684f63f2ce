"""The corpus of ``fairseq2 lcm demo-data``: small stories with stand-in embeddings, in Meta's parquet layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from lexalcm.data.write import NewDocument, write_documents
from lexalcm.errors import ConfigError, unknown_name
from lexalcm.pipelines.demo_grammar import LANGUAGES, Grammar, Story
from lexalcm.text.stand_in_encoder import STAND_IN_NAME, StandInEncoder

_NOTE: Final = "demo_corpus.json"
_VALIDATION_SHARE: Final = 0.1
_CHUNK: Final = 256
_MOST_DOCUMENTS: Final = 20_000


@dataclass(frozen=True, kw_only=True)
class DemoCorpusConfig:
    """What the corpus is made from; the same configuration gives the same bytes of text and vectors."""

    num_documents: int = 2400

    dim: int = 1024
    """Width of an embedding."""

    seed: int = 0

    langs: tuple[str, ...] = LANGUAGES

    def check(self) -> None:
        """:raises ConfigError: A field cannot be honoured."""
        if self.num_documents < 20:
            raise ConfigError(
                f"`--documents` must be at least 20, so that both splits have some, but is {self.num_documents}."
            )
        if self.dim < 2:
            raise ConfigError(f"`--dim` must be at least 2, but is {self.dim}.")
        if self.num_documents > _MOST_DOCUMENTS:
            raise ConfigError(f"`--documents` must be at most {_MOST_DOCUMENTS:,}: the grammar knows few more stories.")
        for lang in self.langs:
            if lang not in LANGUAGES:
                raise ConfigError(f"`--langs`: {unknown_name('language of the demo', lang, LANGUAGES)}")
        if not self.langs:
            raise ConfigError(f"`--langs` must name at least one of {', '.join(LANGUAGES)}.")


@dataclass(frozen=True)
class DemoCorpus:
    """What stands in the folder."""

    num_documents: int

    num_sentences: int

    was_there: bool
    """It had been written before, by the same configuration."""


def write_demo_corpus(
    folder: Path, config: DemoCorpusConfig, *, progress: Callable[[int, int], None] | None = None
) -> DemoCorpus:
    """Writes ``split=train`` and ``split=validation`` below ``folder``; a corpus that is there already is kept.

    :param progress: Told how many documents of how many are done.
    :raises ConfigError: The folder holds something else.
    """
    config.check()
    note = folder / _NOTE
    facts = json.loads(json.dumps({**asdict(config), "encoder": STAND_IN_NAME}))
    if note.is_file():
        found = json.loads(note.read_text(encoding="utf-8"))
        if {key: found.get(key) for key in facts} != facts:
            raise ConfigError(f"{folder} holds a demo corpus made in another way. Remove it, or name another folder.")
        if "num_sentences" in found:
            return DemoCorpus(found["num_documents"], found["num_sentences"], was_there=True)
    elif folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty and holds no demo corpus. Name another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    # Written first, and without the number of sentences: so an interrupted corpus is made again, not refused.
    note.write_text(json.dumps(facts) + "\n", encoding="utf-8")
    rng, grammar = np.random.default_rng(config.seed), Grammar()
    stories = _distinct_stories(grammar, rng, config)
    encoder = StandInEncoder(config.dim)
    num_validation = max(int(config.num_documents * _VALIDATION_SHARE), 1)
    done = 0
    for split, first, part in (
        ("validation", 0, stories[:num_validation]),
        ("train", num_validation, stories[num_validation:]),
    ):
        documents = []
        for start in range(0, len(part), _CHUNK):
            documents += _embed(encoder, part[start : start + _CHUNK], first + start)
            done += len(part[start : start + _CHUNK])
            if progress is not None:
                progress(done, config.num_documents)
        write_documents(folder / f"split={split}" / "part-00000.parquet", documents, concepts_per_row_group=2048)
    num_sentences = sum(len(story.sentences) for story in stories)
    note.write_text(json.dumps({**facts, "num_sentences": num_sentences}, indent=2) + "\n", encoding="utf-8")
    return DemoCorpus(config.num_documents, num_sentences, was_there=False)


def _distinct_stories(grammar: Grammar, rng: np.random.Generator, config: DemoCorpusConfig) -> list[Story]:
    """No story is told twice, so that none of validation stands in training."""
    stories: dict[tuple[str, ...], Story] = {}
    while len(stories) < config.num_documents:
        story = grammar.write_story(rng, config.langs[len(stories) % len(config.langs)])
        stories.setdefault(tuple(story.sentences), story)
    return list(stories.values())


def _embed(encoder: StandInEncoder, stories: list[Story], first: int) -> list[NewDocument]:
    vectors = encoder.encode([sentence for story in stories for sentence in story.sentences])
    ends = np.cumsum([len(story.sentences) for story in stories])
    return [
        NewDocument(story.sentences, concepts, {"id": f"demo-{first + i}", "title": story.title, "lang": story.lang})
        for i, (story, concepts) in enumerate(zip(stories, np.split(vectors, ends[:-1])))
    ]
