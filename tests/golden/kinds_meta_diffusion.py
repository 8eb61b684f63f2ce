"""Checks of cases recorded from Meta's release: what the ``diffusion`` package covers so far."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from lexalcm.diffusion.grid import inference_timesteps
from lexalcm.diffusion.objective import Objective, ObjectiveConfig
from lexalcm.diffusion.parametrization import (
    add_noise,
    clean_to_noise,
    clean_to_velocity,
    noise_to_velocity,
    to_clean,
    velocity_to_noise,
)
from lexalcm.diffusion.samplers import Step, ddim_step
from lexalcm.diffusion.schedule import NoiseSchedule, ScheduleConfig
from lexalcm.diffusion.timestep_density import TimestepDensityConfig

_FAMILIES = "Meta's model families are an issue of their own"
_LOOP = "Meta's generation loop and options are an issue of their own"
LATER = {
    **dict.fromkeys(("encode", "encode_incremental", "denoise_train", "denoise_infer", "train_steps"), _FAMILIES),
    **dict.fromkeys(("loss", "loss_finetune", "base_forward", "base_loss", "trainer_checkpoint"), _FAMILIES),
    **dict.fromkeys(("generate", "score", "base_generate", "base_score"), _LOOP),
    **dict.fromkeys(("batching", "dataset_pipeline"), "Meta's data cards are an issue of their own"),
    **dict.fromkeys(("lr_schedules", "normalizer_fit"), "Meta's recipes are an issue of their own"),
}


def schedule_of(fields: dict[str, Any], **more: Any) -> NoiseSchedule:
    """The schedule that a case's fields name; what they leave out is Meta's default."""
    names = {
        "num_diffusion_train_steps": "num_steps",
        "beta_schedule": "kind",
        "rescale_betas_zero_snr": "rescale_zero_terminal_snr",
        "sigmoid_schedule_alpha": "sigmoid_alpha",
        "sigmoid_schedule_beta": "sigmoid_beta",
    }
    same = ("beta_start", "beta_end", "scaled_linear_exponent")
    known = {names[k]: v for k, v in fields.items() if k in names} | {k: fields[k] for k in same if k in fields}
    defaults = {"kind": "squaredcos_cap_v2", "num_steps": 1000, "rescale_zero_terminal_snr": True}
    return NoiseSchedule(ScheduleConfig(**{**defaults, **known, **more}))


def check_schedules(folder: Path, case: dict[str, Any]) -> None:
    io = load_file(folder / "io.safetensors")
    for fields in case["schedules"]:
        schedule, prefix = schedule_of(fields), fields["prefix"]
        expected = io[f"{prefix}alphas_cumprod"]
        torch.testing.assert_close(schedule.table.float(), expected, rtol=2e-6, atol=2e-7)
        if f"{prefix}snr" in io:
            # The reference's a is right to 2e-6, and so its 1 - a to 1e-3 only where that is above 2e-3.
            tells = (expected > 1e-6) & (expected < 1 - 2e-3)
            torch.testing.assert_close(schedule.snr().float()[tells], io[f"{prefix}snr"][tells], rtol=1e-3, atol=0)
    spacings = {"trailing": "meta_trailing", "leading": "leading", "linspace": "linspace"}
    for name, expected in io.items():
        if not name.startswith("out.timesteps."):
            continue
        total, spacing, steps = name.removeprefix("out.timesteps.").split(".")
        schedule = schedule_of({}, num_steps=int(total[1:]))
        found = inference_timesteps(schedule, int(steps[1:]), spacings[spacing])
        assert found == expected.tolist(), name


def check_ops(folder: Path, case: dict[str, Any]) -> None:
    io = load_file(folder / "io.safetensors")
    for sub in case["subcases"]:
        i = sub["index"]
        schedule = schedule_of({**sub, "num_diffusion_train_steps": sub["T"]})
        x, noise, timesteps = (io[f"in.{i}.{name}"] for name in ("x", "noise", "timesteps"))
        alpha = schedule.alpha_cumprod(timesteps)
        noisy = add_noise(x, noise, alpha)
        close(noisy, io[f"out.{i}.add_noise"], 1e-5)
        # Each where it does not divide by what is next to 0.
        from_clean, from_noise = clean_to_velocity(x, noisy, alpha), noise_to_velocity(noise, noisy, alpha)
        velocity = torch.where(alpha[:, None] < 0.5, from_clean, from_noise)
        # The reference's table is float32: its alpha-bar may be 2e-7 off, which is 1e-5 of sigma = 0.01.
        noisy_enough = alpha < 1 - 1e-3
        close(velocity[noisy_enough], io[f"out.{i}.velocity"][noisy_enough], 1e-5)
        close(velocity, io[f"out.{i}.velocity"], 1e-4)
        at = schedule.alpha_cumprod(torch.tensor(sub["get_epsilon_timestep"]))
        close(clean_to_noise(x, noise, at), io[f"out.{i}.get_epsilon.sample"], 1e-5)
        close(velocity_to_noise(x, noise, at), io[f"out.{i}.get_epsilon.v_prediction"], 1e-5)
        close(x, io[f"out.{i}.get_epsilon.epsilon"], 1e-5)


SUBCASES_LATER = {
    ("clip_sample", True): "clipping of predictions comes with Meta's generator",
    ("thresholding", True): "thresholding of predictions comes with Meta's generator",
    ("use_clipped_model_output", True): "clipping of predictions comes with Meta's generator",
    ("set_alpha_to_one", False): "our samplers always end at alpha-bar 1",
}
"""Options of a step that are not ours, by the value that asks for them, and why."""


def check_step(folder: Path, case: dict[str, Any]) -> None:
    """Each sub-case whose options our DDIM has."""
    io = load_file(folder / "io.safetensors")
    checked = 0
    for sub in case["subcases"]:
        config, i = sub["scheduler_config"], sub["index"]
        if any((name, value) in SUBCASES_LATER for name, value in {**config, **sub}.items() if isinstance(value, bool)):
            continue
        schedule, timestep = schedule_of(config), sub["timestep"]
        following = timestep - schedule.num_timesteps // sub["num_inference_steps"]
        alpha = float(schedule.table[timestep])
        step = Step(timestep, alpha, float(schedule.table[following]) if following >= 0 else 1.0)
        output, noisy = io[f"in.s{i}.model_output"], io[f"in.s{i}.sample"]
        kind = sub.get("prediction_type", config.get("prediction_type", "sample"))
        if kind == "epsilon" and alpha == 0.0:
            assert sub["nan_in_prev"], "noise prediction at pure noise is undefined, in the reference too"
            continue
        clean = to_clean(output, noisy, schedule.alpha_cumprod(torch.tensor(timestep)), kind)
        close(clean, io[f"out.s{i}.pred_original_sample"], 2e-5)
        previous = ddim_step(
            clean,
            noisy,
            step,
            eta=sub.get("eta", 0.0),
            epsilon_scaling=sub.get("epsilon_scaling"),
            variance_noise=io.get(f"in.s{i}.variance_noise"),
        )
        if sub.get("nan_in_prev"):
            assert torch.isfinite(previous).all(), "rounding made a root negative in the reference; in ours it must not"
        else:
            close(previous, io[f"out.s{i}.prev_sample"], 2e-5)
        checked += 1
    assert checked > 0


def check_step_sampler(folder: Path, case: dict[str, Any]) -> None:
    io = load_file(folder / "io.safetensors")
    for sub in case["subcases"]:
        i = sub["index"]
        schedule = schedule_of({"num_diffusion_train_steps": sub["T"]})
        if sub.get("sampling") == "beta":
            density = TimestepDensityConfig(kind="meta_beta", a=sub.get("beta_a", 0.8), b=sub.get("beta_b", 1.0))
        else:
            density = TimestepDensityConfig()
        weighted = sub.get("weighting") == "clamp_snr"
        config = ObjectiveConfig(
            timestep_density=density,
            weighting="clamp_snr_meta" if weighted else "none",
            min_gamma=sub.get("min_gamma", 0.0),
            max_gamma=sub.get("max_gamma", 5.0),
        )
        objective = Objective(config, schedule)
        close(objective.probabilities.float(), io[f"out.{i}.probs"], 1e-5)
        if weighted:
            steps = io[f"in.{i}.steps"]
            targets = torch.ones(steps.shape, dtype=torch.bool)
            # An error of 1 in a lone channel at one position shows that position's weight.
            scales = [
                objective.loss(unit(len(steps), n), torch.zeros(len(steps), 1), steps, targets).loss_sum
                for n in range(len(steps))
            ]
            close(torch.stack(scales), io[f"out.{i}.loss_scales"], 1e-5)


def unit(count: int, at: int) -> Tensor:
    x = torch.zeros(count, 1)
    x[at] = 1.0
    return x


def close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


KINDS = {
    "schedules": check_schedules,
    "scheduler_ops": check_ops,
    "scheduler_step": check_step,
    "step_sampler": check_step_sampler,
}
