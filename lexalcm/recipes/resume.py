"""What a run in a folder that already holds one may do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from fairseq2.recipe.config import COSINE_ANNEALING_LR, POLYNOMIAL_DECAY_LR, TRI_STAGE_LR

from lexalcm.checkpoints.damage import what_is_missing
from lexalcm.checkpoints.resolve import CARD_FILE, MODEL_FOLDER, saved_scores, saved_steps
from lexalcm.errors import ConfigError
from lexalcm.training.lr_schedule import WARMUP_SHARE_LR
from lexalcm.yaml_text import parse_yaml, read_yaml

# How long, how often, where to: nothing that changes a step. `dataset.reading` keeps its own: prefetch is harmless.
_MAY_CHANGE: Final = (
    "regime.",
    "validation.",
    "common.metric_recorders",
    "common.profilers",
    "common.torch.num_threads",
    "common.debug",
    "common.cluster",
    "common.assets",
    "gang.timeout",
    "gang.high_priority",
    "trainer.gc_every_n_steps",
    "trainer.activation_checkpointing",
    "trainer.anomaly_detection",
    "trainer.max_nonfinite_steps",
    "dataset.reading.prefetch",
    "dataset.reading.num_workers",
    "dataset.valid_split",
    "model.compile",
)

_DECIDES_SCORES: Final = ("regime.score_metric", "validation.", "dataset.valid_split")

_OF_FIXED_LENGTH: Final = (COSINE_ANNEALING_LR, POLYNOMIAL_DECAY_LR, TRI_STAGE_LR)


def refuse_other_config(output_dir: Path, checkpoints: Path, config: Mapping[str, Any]) -> None:
    """Compares the recipe with the one the folder's run began with.

    :param config: The new configuration as plain data.
    :raises ConfigError: A field differs that would make the rest of the run another experiment.
    """
    file = output_dir / "config.yaml"
    steps = saved_steps(checkpoints)
    if not steps:
        return
    if not file.is_file():
        raise ConfigError(
            f"{checkpoints} holds checkpoints (up to step {steps[-1]:,}), but {output_dir} has no config.yaml that says of "
            f"which run.\nGive the new run a folder for checkpoints of its own, or restore {file}."
        )
    before = _flat(_read_one(file))
    # Through text as well, so that both sides know the same types: tuples have become lists, paths texts.
    now = _flat(parse_yaml(yaml.safe_dump(dict(config)))[0])
    # Scores by another measure, or on other data, cannot be compared with those that are there.
    fixed = _DECIDES_SCORES if saved_scores(checkpoints) else ()
    changed = [
        key
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and (not key.startswith(_MAY_CHANGE) or key.startswith(fixed))
    ]
    if changed:
        shown = "; ".join(f"`{key}` was {before.get(key)!r}, now {now.get(key)!r}" for key in changed[:4])
        more = f" and {len(changed) - 4} more" if len(changed) > 4 else ""
        raise ConfigError(
            f"{output_dir} holds a run of another recipe: {shown}{more}.\n"
            f"Give the new run a folder of its own, or write the old values to resume."
        )
    _refuse_other_length(before, now)


def _refuse_other_length(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """
    :raises ConfigError: The run is to be longer or shorter, but its schedule would not follow: fairseq2's keep in the
        checkpoint the length they began with.
    """
    was, wanted = before.get("regime.num_steps"), now.get("regime.num_steps")
    name = now.get("lr_scheduler.name")
    if was == wanted or name not in _OF_FIXED_LENGTH or now.get("lr_scheduler.config.cycle_len") is not None:
        return
    raise ConfigError(
        f"`regime.num_steps` was {was}, now {wanted}, but the schedule `{name}` keeps the length it began with: the rates "
        f"would be those of no run.\nResume with {was}, or train into another folder with `model.path` set to a "
        f"checkpoint. The schedule `{WARMUP_SHARE_LR}` can be extended."
    )


def step_to_export(checkpoints: Path) -> int | None:
    """The step whose model a run ends with: the best by its score, or the last; ``None`` if none was saved."""
    steps, scores = saved_steps(checkpoints), saved_scores(checkpoints)
    return scores[0][1] if scores else steps[-1] if steps else None


def is_finished(output_dir: Path, checkpoints: Path, num_steps: int) -> bool:
    """Tells whether the folder's run has done the steps asked for and has written its model."""
    steps = saved_steps(checkpoints)
    if not steps or steps[-1] < num_steps or what_is_missing(checkpoints / f"step_{steps[-1]}") is not None:
        return False
    card = output_dir / MODEL_FOLDER / CARD_FILE
    if not card.is_file():
        return False
    written = _read_one(card)
    weights = card.parent / str(written.get("checkpoint"))
    return weights.is_file() and written.get("trained_steps") == step_to_export(checkpoints)


def _read_one(file: Path) -> dict[str, Any]:
    """The first document of a file that the run itself has written."""
    try:
        first = next(iter(read_yaml(file)), None)
    except (ValueError, OSError) as ex:
        raise ConfigError(f"{file} cannot be read: {ex}.\nRestore it, or begin in another folder.") from None
    if not isinstance(first, dict):
        raise ConfigError(
            f"{file} must hold a mapping of fields, but does not.\nRestore it, or begin in another folder."
        )
    return first


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        return {
            k: v for key, item in value.items() for k, v in _flat(item, f"{path}.{key}" if path else str(key)).items()
        }
    return {path: value}
