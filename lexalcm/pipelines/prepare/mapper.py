"""Turns raw documents into sentences and concepts, a window of documents at a time.

Shapes: R documents of a window, N sentences of all of them, C dimensions of a concept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from lexalcm.data.split_by_id import split_of
from lexalcm.data.validate import finite_and_nonzero
from lexalcm.errors import DataError
from lexalcm.pipelines.prepare.config import LANG_COLUMN, LANG_RULE_COLUMN, PrepareConfig, TextRole
from lexalcm.pipelines.prepare.inputs import ID_COLUMN, PLACE_COLUMN
from lexalcm.pipelines.prepare.output_schema import SPLIT_COLUMN, OutputSchema
from lexalcm.pipelines.prepare.record import ShardRecord
from lexalcm.pipelines.prepare.row_languages import LanguageRule, RowLanguage
from lexalcm.text.interface import SentenceEncoder
from lexalcm.text.segment import CuttingSegmenter

_START: Final = 60
_ENCODED_AT_A_TIME: Final = 8192
"""Sentences whose vectors are in memory in float32: 32 MiB of SONAR's."""


@dataclass(frozen=True)
class _Sentences:
    """Of one text column of a window."""

    pieces: list[list[str]]
    """By document; they join to its text."""

    offsets: np.ndarray
    """int32 ``[R + 1]``."""

    @staticmethod
    def of(pieces: list[list[str]]) -> _Sentences:
        return _Sentences(pieces, np.cumsum([0, *map(len, pieces)], dtype=np.int32))


class DocumentMapper:
    """A window of raw documents in, the same documents as sentences and concepts out, in order.

    What comes out for a document does not depend on the window: its sentences not at all, its concepts up to rounding.
    """

    def __init__(
        self,
        config: PrepareConfig,
        schema: OutputSchema,
        segmenter: CuttingSegmenter,
        encoder: SentenceEncoder,
        languages: LanguageRule,
    ) -> None:
        self._config, self._schema = config, schema
        self._segmenter, self._encoder, self._languages = segmenter, encoder, languages
        self.record = ShardRecord()
        """Of the shard at hand."""

    def __call__(self, raw: pa.Table) -> pa.Table:
        """
        :param raw: In the input's schema, with the places of rows.
        :returns: In the output's schema, without the documents that are left out.
        :raises DataError: A row cannot be used; names its place.
        """
        raw, languages = self._usable(raw)
        codes = [language.code for language in languages]
        by_role = [
            _Sentences.of(self._segmenter.cut_many(raw.column(role.column).to_pylist(), codes))
            for role in self._config.roles
        ]
        stripped = [piece.strip() for sentences in by_role for pieces in sentences.pieces for piece in pieces]
        langs = [code for sentences in by_role for code, pieces in zip(codes, sentences.pieces) for _ in pieces]
        truncated_N = self._encoder.over_limit(stripped, langs)
        parts = np.split(truncated_N, np.cumsum([sentences.offsets[-1] for sentences in by_role])[:-1])
        made: dict[str, pa.Array] = {}
        for role, sentences, truncated in zip(self._config.roles, by_role, parts):
            made |= self._text_columns(role, sentences, raw, truncated)
        stored_NC = self._encode(stripped, langs)
        start = 0
        for role, sentences in zip(self._config.roles, by_role):
            stop = start + int(sentences.offsets[-1])
            vectors = self._vectors(role, sentences.offsets, stored_NC[start:stop], raw)
            made[role.concepts] = pa.ListArray.from_arrays(pa.array(sentences.offsets), vectors)
            start = stop
        made[LANG_COLUMN] = pa.array(codes, pa.string())
        made[LANG_RULE_COLUMN] = pa.array([language.rule for language in languages], pa.string())
        splits = self._splits(raw)
        made[SPLIT_COLUMN] = pa.array(splits, pa.string())
        self.record.count(by_split=splits, languages=languages, sentences=stripped)
        return self._schema.assemble(raw, made)

    def _usable(self, raw: pa.Table) -> tuple[pa.Table, list[RowLanguage]]:
        """Rows that have a text in every column and a language; what is left out is recorded."""
        column = self._config.inputs.lang_column
        given = [None] * raw.num_rows if column is None else raw.column(column).to_pylist()
        texts = [raw.column(role.column).to_pylist() for role in self._config.roles]
        keep: list[int] = []
        languages: list[RowLanguage] = []
        for row, place in enumerate(raw.column(PLACE_COLUMN).to_pylist()):
            blank = next((r.column for r, of in zip(self._config.roles, texts) if not (of[row] or "").strip()), None)
            if blank is not None:
                self.record.leave_out(place, f"no text in `{blank}`")
                continue
            language = self._languages.of(None if given[row] is None else str(given[row]), place)
            if language is None:
                self.record.leave_out(place, "its language is not known", str(given[row] or "")[:_START])
                continue
            keep.append(row)
            languages.append(language)
        return raw.take(pa.array(keep, pa.int64())), languages

    def _text_columns(
        self, role: TextRole, sentences: _Sentences, raw: pa.Table, truncated_N: np.ndarray
    ) -> dict[str, pa.Array]:
        which = np.flatnonzero(truncated_N)
        owners = np.searchsorted(sentences.offsets, which, side="right") - 1
        numbers = (which - sentences.offsets[owners]).astype(np.int32)
        for owner, number in zip(owners.tolist(), numbers.tolist()):
            place = raw.column(PLACE_COLUMN)[owner].as_py()
            self._note_truncated(place, role, number, sentences.pieces[owner][number])
        of_owner = np.searchsorted(owners, np.arange(len(sentences.pieces) + 1)).astype(np.int32)
        pieces = [piece for of_document in sentences.pieces for piece in of_document]
        return {
            role.sentences: pa.ListArray.from_arrays(pa.array(sentences.offsets), pa.array(pieces, pa.string())),
            role.truncated: pa.ListArray.from_arrays(pa.array(of_owner), pa.array(numbers, pa.int32())),
        }

    def _note_truncated(self, place: str, role: TextRole, number: int, piece: str) -> None:
        start = piece.strip()[:_START]
        if self._config.too_long == "refuse":
            raise DataError(
                f'{place}: sentence {number} of `{role.column}`, "{start}...", has more tokens than the '
                f"{self._encoder.max_tokens} that the encoder takes.\nTake shorter sentences (--segment-length), or flag "
                f"such sentences (--too-long flag): the start of them is encoded then."
            )
        self.record.truncate(place, role.sentences, number)

    def _encode(self, sentences: list[str], langs: list[str]) -> np.ndarray:
        """Vectors ``[N, C]`` as they are stored; what float16 cannot hold is infinite or zero."""
        stored_NC = np.empty((len(sentences), self._encoder.dim), self._config.dtype)
        for start in range(0, len(sentences), _ENCODED_AT_A_TIME):
            part = slice(start, start + _ENCODED_AT_A_TIME)
            with np.errstate(over="ignore"):
                stored_NC[part] = self._encoder.encode_mixed(sentences[part], langs[part])
        return stored_NC

    def _vectors(self, role: TextRole, offsets: np.ndarray, stored_NC: np.ndarray, raw: pa.Table) -> pa.Array:
        finite_N, nonzero_N = finite_and_nonzero(stored_NC)
        bad_N = ~(finite_N & nonzero_N)
        if bad_N.any():
            which = int(bad_N.argmax())
            owner = int(np.searchsorted(offsets, which, side="right")) - 1
            hint = " Store float32 (--dtype float32)." if self._config.dtype == "float16" else ""
            raise DataError(
                f"{raw.column(PLACE_COLUMN)[owner].as_py()}: sentence {which - int(offsets[owner])} of `{role.column}` has a "
                f"vector that is zero or infinite in {self._config.dtype}.{hint}"
            )
        leaf = pa.float16() if self._config.dtype == "float16" else pa.float32()
        return pa.FixedSizeListArray.from_arrays(pa.array(stored_NC.reshape(-1), leaf), self._encoder.dim)

    def _splits(self, raw: pa.Table) -> list[str]:
        column = self._schema.split_column
        if column is None:
            shares = self._config.shares
            return [split_of(name, shares, self._config.split_seed or 0) for name in raw.column(ID_COLUMN).to_pylist()]
        places = raw.column(PLACE_COLUMN).to_pylist()
        return [self._named_split(value, place) for value, place in zip(raw.column(column).to_pylist(), places)]

    def _named_split(self, value: object, place: str) -> str:
        name = str(value or "").strip()
        if not name or "/" in name or "\\" in name:
            raise DataError(
                f"{place}: `{self._schema.split_column}` is {value!r}, which cannot be the name of a split."
            )
        return name
