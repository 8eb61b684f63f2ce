"""Checks of cases recorded from Meta's release: how documents are read, put together and batched.

Meta's order within an epoch, and which documents share a batch, are its own by design; what is compared is each
document's vectors, exactly, whatever the order.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from lexalcm.data.batch import ConceptBatch, collate_documents
from lexalcm.data.datacards import read_datacard
from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.dataset_names import DatasetName, join_datasets, parse_dataset_names
from lexalcm.data.sources import ReadingConfig
from lexalcm.errors import ConfigError

Document = tuple[tuple[tuple[int, int], ...], ...]
"""(document, sentence) of every concept: of a document, or of its source and of its target."""

_WINDOWS = "ours are bounds of whole documents, before affixes; none drops windows or batches"
_SENTENCES = "filters on what single sentences have are not built"
SUBCASES_LATER: dict[str, tuple[tuple[Any, ...], str]] = {
    "packing": ((False,), "Meta's packing cuts documents anywhere; ours are packed whole"),
    "min_length_of_sequences_after_batching": ((1,), _WINDOWS),
    "min_length_of_target_sequences_after_batching": ((1,), _WINDOWS),
    "min_length_of_target_sequences": ((1,), _WINDOWS),
    "min_batch_size": ((1,), _WINDOWS),
    "max_iteration_steps": ((), "a run's length is `regime.num_steps`, the trainer's"),
    "max_sentence_len_in_doc": ((), _SENTENCES),
    "min_sentence_len_in_doc": ((), _SENTENCES),
    "max_sentence_len_in_target_doc": ((), _SENTENCES),
    "min_sentence_len_in_target_doc": ((), _SENTENCES),
    "source_quality_range": ((), _SENTENCES),
    "target_quality_range": ((), _SENTENCES),
    "source_sequences": ((), "joining columns while reading is not built"),
    "target_sequences": ((), "joining columns while reading is not built"),
    "target_prefix_text": ((), "nothing stands before a target but the source's suffix"),
    "limit": ((), "the files to read are named, not counted"),
    "length_splits": ((), "ours bound the concepts of a batch, which are packed; Meta's bound its padded size"),
    "world_size": ((1,), "which rank reads which rows is decided by size, and row groups are cut where they are few"),
}
"""Fields that ask for what ours does otherwise, the values that do not, and why. ``None`` never does."""


def later(fields: dict[str, Any]) -> str | None:
    """Why a sub-case is not checked, if it is not."""
    for name, (neutral, reason) in SUBCASES_LATER.items():
        if fields.get(name) is not None and fields[name] not in neutral:
            return f"{name}: {reason}"
    wrap, tokens = fields.get("len_to_wrap_long_seq"), fields.get("max_tokens")
    if wrap and fields.get("source_prefix_text") and not fields.get("wrap_before_affixing"):
        return "source_prefix_text: Meta's first window is shorter by its prefix, ours has it on top"
    if wrap and tokens and wrap >= tokens:
        return "max_tokens: Meta drops windows that are longer"
    if fields.get("target_column") and fields.get("min_length_of_sequences", 1) > 1:
        return f"min_length_of_sequences: {_WINDOWS}"
    return None


def check_batching(folder: Path, case: dict[str, Any]) -> None:
    """Padding, source lengths and target masks."""
    io = load_file(folder / "io.safetensors")
    sources, targets = ([x.numpy() for x in numbered(io, f"in.{side}.")] for side in ("source", "target"))
    expected, lengths = io["out.unsup.seqs"], io["out.unsup.lens"].tolist()
    batch = collate_documents(sources, pack=False)
    assert torch.equal(batch.concepts, expected) and list(batch.layout.lengths) == lengths
    joined = [np.concatenate(pair) for pair in zip(sources, targets, strict=True)]
    pairs = collate_documents(joined, source_lengths=[len(source) for source in sources])
    assert list(pairs.layout.lengths) == io["out.sup.lens"].tolist()
    assert list(pairs.layout.source_lengths or ()) == io["out.sup.source_lengths"].tolist()
    assert torch.equal(pairs.concepts, unpadded(io["out.sup.seqs"], pairs))
    checked = 0
    for name, mask in io.items():
        kind, _, least = name.removeprefix("out.").partition(".target_mask.min_context_")
        if kind == "unsup" and least:
            batch = collate_documents(sources, pack=False, min_context_len=int(least))
            assert torch.equal(batch.target_mask, mask), name
        elif kind == "sup" and least:
            batch = collate_documents(joined, source_lengths=pairs.layout.source_lengths, min_context_len=int(least))
            assert torch.equal(batch.target_mask, unpadded(mask, batch)), name
        else:
            continue
        assert batch.num_targets == int(mask.sum())
        checked += 1
    assert checked > 0


def numbered(io: dict[str, torch.Tensor], prefix: str) -> list[torch.Tensor]:
    names = [name for name in io if name.startswith(prefix)]
    return [io[name] for name in sorted(names, key=lambda name: int(name.removeprefix(prefix)))]


def unpadded(x: torch.Tensor, batch: ConceptBatch) -> torch.Tensor:
    return torch.cat([row[:length] for row, length in zip(x, batch.layout.lengths, strict=True)])


def check_dataset_pipeline(folder: Path, case: dict[str, Any]) -> None:
    """Which documents come out, with which affixes, in which windows, as source and target."""
    check_name_parsing(case.get("name_parsing", {}))
    affixes = {text: int(number) for number, text in re.findall(r"(-\d+) \('([^']*)'\)", case["format"])}
    checked = 0
    for run in case["runs"]:
        fields = {**run["dataset_config"], **run["loading_config"], "world_size": run["world_size"]}
        if later(fields) is None:
            check_run(folder, run, fields, affixes)
            checked += 1
    assert checked > 0


def check_name_parsing(expected: dict[str, dict[str, Any]]) -> None:
    known = {name.split("=")[0].split(":")[0]: fields for name, fields in expected.items() if "error" not in fields}
    for text, fields in expected.items():
        try:
            (name,) = parse_dataset_names(text)
            card = known[name.card]
        except (ConfigError, KeyError):
            assert "error" in fields, text
            continue
        assert "error" not in fields, text
        columns = {key: card[key] for key in ("source_column", "target_column")}
        datacard = read_datacard({"parquet_path": {"s3": card["parquet_path"]}, **columns}, where=text)
        weights = [w for w in (name.weight, datacard.weight, 1.0) if w is not None]
        assert weights[0] == fields["weight"], text
        (source,) = join_datasets([(name, datacard.config)], [datacard.weight]).resolved_sources()
        filtered = re.search(r'split == "(\w+)"', fields["partition_filters"])
        assert source.only_split == (None if filtered is None else filtered[1]), text
        assert (source.path, source.embedding_column) == (fields["parquet_path"], fields["source_column"])
        assert source.target_column == fields["target_column"]


def check_run(folder: Path, run: dict[str, Any], fields: dict[str, Any], affixes: dict[str, int]) -> None:
    card = {k: v for k, v in run["dataset_config"].items() if not k.endswith(("prefix_text", "suffix_text"))}
    datacard = read_datacard({**card, "parquet_path": str(folder / card["parquet_path"])}, where=run["name"])
    # Meta leaves out rows whose text and vectors differ in number, and says nothing.
    config = replace(datacard.config, on_bad_rows="skip", max_bad_share=1.0)
    dataset = ConceptParquetDataset(join_datasets([(DatasetName(run["name"]), config)], [datacard.weight]))
    given = {ours: fields[meta] for meta, ours in _AFFIX_FIELDS.items() if fields.get(meta)}
    wrap = fields.get("len_to_wrap_long_seq")
    longest = None if wrap or not fields.get("max_tokens") else fields["max_tokens"] - len(given)
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "affixes.safetensors"
        save_file({text: affix(affixes[text], dataset.concept_dim) for text in given.values()}, file)
        reading = ReadingConfig(
            max_seq_len=wrap or 10_000,
            min_document_len=fields.get("min_length_of_sequences", 1),
            max_document_len=longest,
            concepts_per_batch=None,
            documents_per_batch=fields.get("batch_size") or 7,
            special_concepts=str(file) if given else None,
            shuffle=False,
            **given,
        )
        found = read(dataset, reading, epochs=fields.get("nb_epochs", 1))
    expected = [document for batch in run["batches"] for document in documents_of(batch)]
    if wrap:
        # Ours have affixes on top of windows; Meta cuts what has them already, or puts them on every window.
        found, expected = ([plain for d in some if any(plain := without_affixes(d))] for some in (found, expected))
    assert found and Counter(found) == Counter(expected), run["name"]
    if fields.get("batch_size") and not any(fields.get(name) for name in _REORDERING):
        assert found == expected, run["name"]


_REORDERING = ("shuffle", "order_by_length", "len_to_wrap_long_seq")
_AFFIX_FIELDS = {
    "source_prefix_text": "prefix",
    "source_suffix_text": "suffix",
    "target_suffix_text": "target_suffix",
}


def affix(number: int, width: int) -> torch.Tensor:
    vector = torch.full((width,), 0.5)
    vector[:2] = torch.tensor([float(number), 0.0])
    return vector


def read(dataset: ConceptParquetDataset, reading: ReadingConfig, *, epochs: int) -> list[Document]:
    reader = dataset.create_reader(None, reading)
    found: list[Document] = []
    for _ in range(epochs):
        for batches in reader:
            for batch in batches:
                found += documents_in(batch)
        reader.reset()
    reader.close()
    return found


def documents_in(batch: ConceptBatch) -> list[Document]:
    layout = batch.layout
    found = []
    sources = layout.source_lengths
    for number, concepts in enumerate(batch.concepts.split(list(layout.lengths))):
        places = tuple((int(d), int(s)) for d, s in concepts[:, :2].tolist())
        found.append((places,) if sources is None else (places[: sources[number]], places[sources[number] :]))
    if sources is not None:
        of_source = torch.cat([torch.arange(n) < s for n, s in zip(layout.lengths, sources)])
        assert torch.equal(batch.target_mask, ~of_source)
    return found


def documents_of(batch: dict[str, Any]) -> list[Document]:
    sides = [batch[side] for side in ("source", "target") if batch.get(side) is not None]
    return [tuple(tuple((d, s) for d, s in part) for part in parts) for parts in zip(*sides, strict=True)]


def without_affixes(document: Document) -> Document:
    return tuple(tuple(place for place in part if place[0] >= 0) for part in document)


KINDS = {"batching": check_batching, "dataset_pipeline": check_dataset_pipeline}
