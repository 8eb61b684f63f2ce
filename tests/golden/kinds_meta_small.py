"""Checks of cases recorded from Meta's release: learning rates and normalizer fits."""

from __future__ import annotations

import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from lexalcm.models.normalizer.config import NormalizerConfig
from lexalcm.models.normalizer.factory import create_normalizer
from lexalcm.pipelines.fit_normalizer import fit
from lexalcm.pipelines.fit_rule import reference_rule
from lexalcm.training.meta_lr_schedule import MetaLRConfig, lr_at


def check_lr_schedules(folder: Path, case: dict[str, Any]) -> None:
    io = load_file(folder / "io.safetensors")
    for sub in case["subcases"]:
        expected = io[f"f64.out.{sub['index']}.lr"]
        config = MetaLRConfig(schedule=sub["schedule"], start_lr=sub.get("start_lr"), final_lr=sub.get("final_lr"))
        config.num_warmup_steps = sub.get("warmup_steps")
        ratios = sub.get("lr_stage_ratios", sub.get("stage_ratios"))
        config.stage_ratios = None if ratios is None else tuple(ratios)
        # A schedule without an end goes on as it began, however long the run.
        num_steps = sub.get("max_steps", 1 + len(expected))
        found = [lr_at(step, sub["lr"], num_steps, config) for step in range(len(expected))]
        close(torch.tensor(found, dtype=torch.float64), expected, sub, rtol=1e-9)


def check_normalizer_fit(folder: Path, case: dict[str, Any]) -> None:
    io = load_file(folder / "io.safetensors")
    names = {field.name for field in fields(NormalizerConfig)}
    for sub in case["subcases"]:
        i = sub["index"]
        config = NormalizerConfig(**{name: value for name, value in sub.items() if name in names})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of few concepts, and of a dimension without spread
            # In pieces, since a fit must not depend on how data comes.
            found = fit(np.array_split(io["in.fit_data"].numpy(), 7), reference_rule(config)).statistics
        assert set(found.tensors()) == {n for n in ("center", "scale", "clip_min", "clip_max") if f"out.{i}.{n}" in io}
        close(found.center, io[f"out.{i}.center"], sub, rtol=1e-5, atol=1e-6)
        close(found.scale, io[f"out.{i}.scale"], sub, rtol=1e-4)
        normalizer = create_normalizer(config)
        normalizer.set_statistics(**found.tensors())
        test = io["in.test"]
        for name, value in {
            "clip_min": found.clip_min,
            "clip_max": found.clip_max,
            "normalized": normalizer.normalize(test),
            "denormalized": normalizer.denormalize(test),
            "normalized3d": normalizer.normalize(io["in.test3d"]),
            "roundtrip": normalizer.denormalize(normalizer.normalize(test)),
        }.items():
            if value is not None:
                close(value, io[f"out.{i}.{name}"], sub, rtol=1e-4, atol=1e-4)


def close(found: Tensor, expected: Tensor, sub: dict[str, Any], *, rtol: float, atol: float = 0.0) -> None:
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol, msg=lambda told: f"{sub}: {told}")


KINDS = {"lr_schedules": check_lr_schedules, "normalizer_fit": check_normalizer_fit}
