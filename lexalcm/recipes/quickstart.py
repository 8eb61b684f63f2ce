"""``fairseq2 lcm quickstart``: demo corpus, training, and what was learned.

Shapes: T concepts of a document, C dimensions, V known sentences.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from lexalcm.checkpoints.load import load_model
from lexalcm.data.dataset import ConceptParquetDataset, Document
from lexalcm.data.sources import ConceptParquetConfig
from lexalcm.data.write import TEXT_COLUMN
from lexalcm.evaluation.baselines import FittedBaselines, copy_previous
from lexalcm.evaluation.predict import one_pass
from lexalcm.evaluation.protocol import Figures, retrieval_figures
from lexalcm.generation.config import GenerationConfig
from lexalcm.generation.prompts import text_prompt
from lexalcm.generation.text_generator import NewSentence
from lexalcm.generation.text_parts import TextConfig
from lexalcm.models.interface import TwoTowerModel
from lexalcm.pipelines.demo_corpus import DemoCorpusConfig, write_demo_corpus
from lexalcm.recipes.curves import plot_losses, read_metrics
from lexalcm.recipes.generator import load_generator
from lexalcm.recipes.run import run_training
from lexalcm.text.stand_in_encoder import STAND_IN_NAME

_PROMPT_LENGTH = 2
_CONTINUED = 5
_SHOWN = 4


def run_quickstart(
    folder: Path, *, corpus: DemoCorpusConfig = DemoCorpusConfig(), overrides: Sequence[str] = ()
) -> int:
    """Runs everything and returns the exit code; what is there already is kept, and a broken-off run is resumed.

    :param overrides: ``key=value`` over the recipe's fields.

    Writes ``summary.json`` and ``loss.png`` into the folder.
    """
    start = perf_counter()
    data = folder / "data"
    made = write_demo_corpus(data, corpus)
    print(f"{data}: {made.num_documents:,} stories, {made.num_sentences:,} sentences, embedded by a {STAND_IN_NAME}.")
    code = run_training("quickstart", folder, overrides=[f"dataset.path={data}", *overrides], no_rich=False)
    if code != 0:
        return code
    seconds = perf_counter() - start
    model = load_model(folder)
    assert isinstance(model, TwoTowerModel)
    dataset = ConceptParquetDataset(ConceptParquetConfig(path=str(data), text_column=TEXT_COLUMN))
    documents = list(dataset.documents("validation"))
    concepts = [d.concepts for d in documents]
    learned = retrieval_figures(one_pass(model, concepts), concepts)
    copied = retrieval_figures(map(copy_previous, concepts), concepts)
    training = list(dataset.documents("train"))
    fitted = FittedBaselines(d.concepts for d in training)
    linear = retrieval_figures((fitted.predict("ridge4", d) for d in concepts), concepts)
    plot_losses(
        read_metrics(folder / "metrics" / "train.jsonl"),
        read_metrics(folder / "metrics" / "valid.jsonl"),
        folder / "loss.png",
    )
    summary = _summary(model, learned, copied, linear, seconds)
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    _show(summary, folder)
    _show_continuations(folder, data, documents)
    return 0


def _summary(
    model: TwoTowerModel, learned: Figures, copied: Figures, linear: Figures, seconds: float
) -> dict[str, Any]:
    return {
        "retrieval_at_1": learned.acc_at_1_unseen,
        "retrieval_at_10": learned.acc_at_10_unseen,
        "copy_retrieval_at_1": copied.acc_at_1_unseen,
        "copy_retrieval_at_10": copied.acc_at_10_unseen,
        "ridge_retrieval_at_1": linear.acc_at_1_unseen,
        "chance_at_1": learned.chance_at_1,
        "cosine": learned.cosine,
        "seconds": round(seconds, 1),
        "parameters": sum(p.numel() for p in model.parameters()),
        "encoder": STAND_IN_NAME,
    }


def _show(summary: dict[str, Any], folder: Path) -> None:
    model, copy, chance = summary["retrieval_at_1"], summary["copy_retrieval_at_1"], summary["chance_at_1"]
    ridge = summary["ridge_retrieval_at_1"]
    times = f"{model / copy:.1f} times copying" if copy > 0 else "copying never does"
    print(
        f"\nWhat {summary['parameters']:,} parameters learned in {summary['seconds']:.0f} s: which of about "
        f"{1 / chance:.0f} sentences comes next\n"
        f"  the model finds it              {model:7.1%}   ({times})\n"
        f"  copying the previous sentence   {copy:7.1%}\n"
        f"  chance                          {chance:7.1%}\n"
        f"  ridge regression                {ridge:7.1%}   (on the last four sentences and the mean of all)\n"
        f"Figures: {folder / 'summary.json'}, loss curve: {folder / 'loss.png'}, model: {folder / 'model'}"
    )


def _show_continuations(folder: Path, data: Path, documents: list[Document]) -> None:
    """Continues two stories of each language, shown as the nearest sentences of the corpus."""
    text = TextConfig(segmenter="newline", encoder="stand_in", decoder="nearest", corpus=str(data))
    generation = GenerationConfig(max_sentences=_CONTINUED, repetition_threshold=None)
    generator = load_generator(folder, text=text, generation=generation)
    print("\nContinuations of validation stories, as the nearest sentence of the corpus (cosine in brackets):")
    for document in documents[:_SHOWN]:
        prompt = (document.sentences or [])[:_PROMPT_LENGTH]
        print()
        for sentence in prompt:
            print(f"  {sentence}")
        for event in generator.follow(text_prompt("\n".join(prompt))):
            if isinstance(event, NewSentence):
                (found,) = event.texts.values()
                print(f"  > {found.text} ({found.cosine:.2f})")
    print(
        f"\nContinue a text of your own, with the words of these stories:\n"
        f'  fairseq2 lcm generate {folder} --prompt "{" ".join((documents[0].sentences or [])[:_PROMPT_LENGTH])}" \\\n'
        f"    --segmenter punctuation --encoder stand_in --decoder nearest --corpus {data}"
    )
