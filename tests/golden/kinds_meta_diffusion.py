"""Checks of cases recorded from Meta's release: schedules, steps and timestep samplers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from lexalcm.diffusion.clean_limits import CleanLimits
from lexalcm.diffusion.grid import Step, inference_timesteps
from lexalcm.diffusion.objective import Objective, ObjectiveConfig
from lexalcm.diffusion.parametrization import (
    add_noise,
    clean_to_noise,
    clean_to_velocity,
    noise_to_velocity,
    to_clean,
    velocity_to_noise,
)
from lexalcm.diffusion.schedule import NoiseSchedule, ScheduleConfig
from lexalcm.diffusion.solvers import ddim_step
from lexalcm.diffusion.timestep_density import TimestepDensityConfig


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


def check_step(folder: Path, case: dict[str, Any]) -> None:
    io = load_file(folder / "io.safetensors")
    for sub in case["subcases"]:
        config, i, timestep = sub["scheduler_config"], sub["index"], sub["timestep"]
        alphas = float32_table(config)
        following = timestep - len(alphas) // sub["num_inference_steps"]
        final = 1.0 if config.get("set_alpha_to_one", True) else float(alphas[0])
        alpha = float(alphas[timestep])
        step = Step(timestep, alpha, float(alphas[following]) if following >= 0 else final)
        output, noisy = io[f"in.s{i}.model_output"], io[f"in.s{i}.sample"]
        kind = sub.get("prediction_type", config.get("prediction_type", "sample"))
        if alpha == 1.0 or kind == "epsilon" and alpha == 0.0:
            assert sub["nan_in_prev"], "a step without noise, or from pure noise predicted, is undefined there too"
            continue
        predicted = to_clean(output, noisy, alphas[timestep], kind)
        # The reference takes a threshold over everything that a sample of the batch holds, ours over a concept.
        clean = limits_of(config).limit(predicted.flatten(1)).view_as(predicted)
        close(clean, io[f"out.s{i}.pred_original_sample"], 2e-5)
        noise_anew = sub.get("use_clipped_model_output", False)
        previous = ddim_step(
            clean,
            noisy,
            step,
            noise_from=clean if noise_anew else predicted,
            eta=sub.get("eta", 0.0),
            epsilon_scaling=None if noise_anew else sub.get("epsilon_scaling"),
            variance_noise=io.get(f"in.s{i}.variance_noise"),
        )
        if sub.get("nan_in_prev"):
            assert torch.isfinite(previous).all(), "rounding made a root negative in the reference; in ours it must not"
        else:
            close(previous, io[f"out.s{i}.prev_sample"], 2e-5)


def float32_table(fields: dict[str, Any]) -> Tensor:
    """Alpha-bars as the reference rounds them: where little noise is left its 1 - a is right to 1e-3 alone, which would
    hide what a step does with it. How near ours are to them is what ``schedules`` checks."""
    exact = schedule_of(fields, rescale_zero_terminal_snr=False).table
    betas = 1 - torch.cat([exact[:1], exact[1:] / exact[:-1]])
    betas = betas.float()
    if schedule_of(fields).config.rescale_zero_terminal_snr:
        root = torch.cumprod(1 - betas, dim=0).sqrt()
        table = ((root - root[-1]) * (root[0] / (root[0] - root[-1]))).square()
        betas = 1 - torch.cat([table[:1], table[1:] / table[:-1]])
    return torch.cumprod(1 - betas, dim=0)


def limits_of(config: dict[str, Any]) -> CleanLimits:
    """The limits that a scheduler's config asks for; thresholding goes before clipping in the reference."""
    if config.get("thresholding", False):
        ratio, most = config.get("dynamic_thresholding_ratio", 0.995), config.get("sample_max_value", 1.0)
        return CleanLimits(dynamic_thresholding_ratio=ratio, max_threshold=most)
    return CleanLimits(clip_clean=config.get("clip_sample_range", 1.0) if config.get("clip_sample", False) else None)


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
