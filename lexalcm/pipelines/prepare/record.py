"""What happened to the documents of a shard: counts, and the places of those that somebody should look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from lexalcm.pipelines.prepare.row_languages import RowLanguage

_MOST_LISTED: Final = 1000


@dataclass
class ShardRecord:
    """Sums over documents. Lists of places end at 1,000 a shard, counts do not."""

    documents: Counter[str] = field(default_factory=Counter)
    """Written, by split."""

    num_sentences: int = 0

    num_characters: int = 0
    """Of sentences, without the white space between them."""

    langs: Counter[str] = field(default_factory=Counter)
    """Documents by language."""

    lang_rules: Counter[str] = field(default_factory=Counter)
    """Documents by how they came to their language."""

    left_out: Counter[str] = field(default_factory=Counter)
    """Documents by reason."""

    left_out_places: list[tuple[str, str, str]] = field(default_factory=list)
    """Place, reason, and what was found."""

    num_truncated: int = 0
    """Sentences of more tokens than the encoder takes."""

    truncated_places: list[tuple[str, str, int]] = field(default_factory=list)
    """Place of the document, column of the output, and number of the sentence."""

    @property
    def num_documents(self) -> int:
        """Written ones."""
        return sum(self.documents.values())

    @property
    def num_seen(self) -> int:
        """All of them."""
        return self.num_documents + sum(self.left_out.values())

    def count(self, *, by_split: Iterable[str], languages: Sequence[RowLanguage], sentences: Sequence[str]) -> None:
        """Takes note of a window of documents."""
        self.documents.update(by_split)
        self.langs.update(language.code for language in languages)
        self.lang_rules.update(language.rule for language in languages)
        self.num_sentences += len(sentences)
        self.num_characters += sum(map(len, sentences))

    def leave_out(self, place: str, reason: str, found: str = "") -> None:
        """A document that is not written.

        :param reason: One of a few.
        """
        self.left_out[reason] += 1
        # The first of each reason is always listed.
        if self.left_out[reason] == 1 or len(self.left_out_places) < _MOST_LISTED:
            self.left_out_places.append((place, reason, found))

    def truncate(self, place: str, column: str, number: int) -> None:
        """A sentence whose end the encoder does not see."""
        self.num_truncated += 1
        if len(self.truncated_places) < _MOST_LISTED:
            self.truncated_places.append((place, column, number))

    def add(self, other: ShardRecord) -> None:
        """Adds another shard's."""
        for name in ("documents", "langs", "lang_rules", "left_out"):
            getattr(self, name).update(getattr(other, name))
        for name in ("num_sentences", "num_characters", "num_truncated"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.left_out_places += other.left_out_places
        self.truncated_places += other.truncated_places

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(self).items()}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> ShardRecord:
        """The reverse of :meth:`to_json`."""
        counters = {name: Counter(data[name]) for name in ("documents", "langs", "lang_rules", "left_out")}
        places = {name: [tuple(place) for place in data[name]] for name in ("left_out_places", "truncated_places")}
        numbers = {name: data[name] for name in ("num_sentences", "num_characters", "num_truncated")}
        return ShardRecord(**counters, **places, **numbers)
