"""Samplers on targets whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lexalcm.diffusion.grid import Spacing, Step
from lexalcm.diffusion.guidance import guide
from lexalcm.diffusion.samplers import SamplerConfig, SamplingError, create_sampler, sample
from lexalcm.diffusion.schedule import NoiseSchedule, ScheduleConfig
from lexalcm.diffusion.solvers import SAMPLERS, ddim_step
from lexalcm.errors import ConfigError, LexalcmError

PRE1 = NoiseSchedule(ScheduleConfig())
META = NoiseSchedule(ScheduleConfig(kind="squaredcos_cap_v2", num_steps=100, rescale_zero_terminal_snr=True))
OPEN_ENDED = NoiseSchedule(ScheduleConfig(kind="linear", num_steps=100))
SCHEDULES = pytest.mark.parametrize("schedule", [PRE1, META, OPEN_ENDED], ids=["pre1", "meta", "open-ended"])
EACH_SAMPLER = pytest.mark.parametrize("name", SAMPLERS)
FROM_NOISE = pytest.mark.parametrize("spacing", ["trailing", "dense_ends"])
MEAN = 1.3


def config(name: str = "ddim", num_steps: int = 10, **fields: object) -> SamplerConfig:
    return SamplerConfig(name=name, num_steps=num_steps, **fields)  # type: ignore[arg-type]


def posterior_mean(x: Tensor, a: float, variance: float) -> Tensor:
    """E[x0 | x_t] for x0 ~ N(MEAN, variance)."""
    return MEAN + a**0.5 * variance / (a * variance + 1 - a) * (x - a**0.5 * MEAN)


def error(
    name: str, num_steps: int, variance: float, *, trained: int = 4096, kind: Any = "cosine", **fields: object
) -> float:
    """Distance to the exact solution of the flow, which maps N(0, 1) to the target linearly."""
    schedule = NoiseSchedule(ScheduleConfig(kind=kind, num_steps=trained, rescale_zero_terminal_snr=kind != "cosine"))
    latents = torch.linspace(-2, 2, 9, dtype=torch.float64).unsqueeze(-1)
    found = sample(
        lambda x, t: posterior_mean(x, float(schedule.table[t]), variance),
        latents,
        schedule,
        config(name, num_steps, **fields),
    )
    return float((found - (MEAN + math.sqrt(variance) * latents)).abs().max())


def inner_error(name: str, num_steps: int, variance: float) -> float:
    """The same between two timesteps that both hold signal and noise, in steps of any size."""
    angles = torch.linspace(1.4, 0.3, num_steps + 1, dtype=torch.float64)
    alphas = angles.cos().square().tolist()
    steps = [Step(i, a, b) for i, (a, b) in enumerate(zip(alphas, [*alphas[1:], 1.0]))]
    standard = torch.linspace(-2, 2, 9, dtype=torch.float64).unsqueeze(-1)

    def along_the_flow(a: float) -> Tensor:
        return a**0.5 * MEAN + (a * variance + 1 - a) ** 0.5 * standard

    found = SAMPLERS[name](
        lambda x, i: posterior_mean(x, steps[i].alpha, variance), along_the_flow(alphas[0]), steps, config(name)
    )
    return float((found - posterior_mean(along_the_flow(alphas[-1]), alphas[-1], variance)).abs().max())


@pytest.mark.parametrize("variance", [0.1, 0.5, 2.0])
@pytest.mark.parametrize(("name", "order"), [("ddim", 0.9), ("dpm_solver_2m", 1.8)])
def test_halving_the_steps_shows_the_order_of_convergence(name: str, order: float, variance: float) -> None:
    for num_steps in (20, 40, 80):
        assert math.log2(inner_error(name, num_steps, variance) / inner_error(name, 2 * num_steps, variance)) >= order


@pytest.mark.parametrize(("name", "order"), [("ddim", 0.9), ("dpm_solver_2m", 1.8)])
def test_the_order_holds_from_pure_noise_to_the_clean_estimate(name: str, order: float) -> None:
    assert math.log2(error(name, 8, 0.25) / error(name, 32, 0.25)) / 2 >= order


@FROM_NOISE
@pytest.mark.parametrize("kind", ["cosine", "squaredcos_cap_v2", "linear", "sigmoid"])
@pytest.mark.parametrize("num_steps", [*range(2, 13), 20])
def test_the_second_order_solver_is_never_worse_than_ddim(num_steps: int, kind: str, spacing: Spacing) -> None:
    for variance in (0.01, 0.1, 0.25, 1.0, 4.0):
        for trained in (100, 4096):
            second, first = (
                error(name, num_steps, variance, trained=trained, kind=kind, spacing=spacing)
                for name in ("dpm_solver_2m", "ddim")
            )
            # In two steps both do the same.
            assert second <= first + 1e-12, (variance, trained)


def test_the_step_after_pure_noise_is_of_second_order() -> None:
    """Its prediction is linear in the ratio of signal to noise here, which makes the step to the third point exact."""
    ratios = [0.0, 0.3, 0.5, 1.0]
    alphas = [r * r / (1 + r * r) for r in ratios]
    steps = [Step(i, a, b) for i, (a, b) in enumerate(zip(alphas, [*alphas[1:], 1.0]))]
    seen: list[Tensor] = []

    def linear(x: Tensor, i: int) -> Tensor:
        seen.append(x)
        return torch.full_like(x, 2.0 + 5.0 * ratios[i])

    SAMPLERS["dpm_solver_2m"](linear, torch.ones(1, 1, dtype=torch.float64), steps, config("dpm_solver_2m"))
    first = 1.0 + 2.0 * 0.3
    second = first + 2.0 * 0.2 + 5.0 * (0.5**2 - 0.3**2) / 2.0
    for x, ratio, expected in ((seen[1], 0.3, first), (seen[2], 0.5, second)):
        assert float(x) * (1 + ratio * ratio) ** 0.5 == pytest.approx(expected, rel=1e-12)


@EACH_SAMPLER
@FROM_NOISE
@pytest.mark.parametrize("kind", ["cosine", "squaredcos_cap_v2", "linear", "sigmoid"])
def test_every_number_of_steps_from_1_to_all_stays_finite(name: str, kind: Any, spacing: Spacing) -> None:
    schedule = NoiseSchedule(ScheduleConfig(kind=kind, num_steps=30, rescale_zero_terminal_snr=kind != "cosine"))
    assert schedule.has_zero_terminal_snr
    latents = torch.randn(4, 3)
    for num_steps in range(1, 31):
        found = sample(lambda x, t: x.tanh(), latents, schedule, config(name, num_steps, spacing=spacing))
        assert found.abs().max() <= 1.0


@EACH_SAMPLER
@FROM_NOISE
@SCHEDULES
def test_an_oracle_is_reached_by_every_number_of_steps(name: str, schedule: NoiseSchedule, spacing: Spacing) -> None:
    truth = torch.randn(3, 4)
    for num_steps in range(1, 61):
        found = sample(lambda x, t: truth, torch.randn(3, 4), schedule, config(name, num_steps, spacing=spacing))
        assert torch.equal(found, truth)


@EACH_SAMPLER
@SCHEDULES
def test_what_a_denoiser_sees_has_the_share_of_noise_its_timestep_says(name: str, schedule: NoiseSchedule) -> None:
    """An oracle's steps walk along one and the same noise, whatever the sampler."""
    truth, noise = torch.randn(2, 3, 4, dtype=torch.float64)
    first = float(schedule.table[-1])
    start = first**0.5 * truth + (1 - first) ** 0.5 * noise

    def oracle(x: Tensor, t: int) -> Tensor:
        a = float(schedule.table[t])
        torch.testing.assert_close(x, a**0.5 * truth + (1 - a) ** 0.5 * noise)
        return truth

    sample(oracle, start, schedule, config(name, 7))


@EACH_SAMPLER
@SCHEDULES
def test_steps_asked_are_steps_run_and_told(name: str, schedule: NoiseSchedule) -> None:
    seen: list[int] = []
    told: list[tuple[int, int]] = []

    def denoise(x: Tensor, t: int) -> Tensor:
        seen.append(t)
        return 0.5 * x

    for num_steps in (1, 40, 100):
        seen.clear()
        told.clear()
        sample(
            denoise,
            torch.zeros(1, 2),
            schedule,
            config(name, num_steps),
            on_step=lambda number, count: told.append((number, count)),
        )
        assert len(seen) == num_steps and seen[0] == schedule.last_timestep
        assert told == [(i + 1, num_steps) for i in range(num_steps)]
    for num_steps in (0, -3, 101):
        with pytest.raises(ConfigError, match="num_steps"):
            sample(denoise, torch.zeros(1, 2), schedule, config(name, num_steps))


@EACH_SAMPLER
def test_a_bfloat16_denoiser_gets_float32_and_only_its_own_error_shows(name: str) -> None:
    def low(x: Tensor, t: int) -> Tensor:
        assert x.dtype == torch.float32
        return rounded(x, t).bfloat16()

    def rounded(x: Tensor, t: int) -> Tensor:
        return posterior_mean(x, float(PRE1.table[t]), 0.25).bfloat16().float()

    latents = torch.randn(20, 3).bfloat16()
    found = sample(low, latents, PRE1, config(name, 50))
    assert found.dtype == torch.float32
    assert torch.equal(found, sample(rounded, latents.float(), PRE1, config(name, 50)))


@EACH_SAMPLER
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_what_is_not_finite_stops_with_step_and_cause(name: str, bad: float) -> None:
    def breaks(x: Tensor, t: int) -> Tensor:
        return torch.where(torch.arange(3) == 1, bad, x) if t <= 80 else x

    with pytest.raises(
        SamplingError, match=r"step 3 of 10 \(timestep 80\) is not finite.*\n?.*prediction type"
    ) as info:
        sample(breaks, torch.randn(2, 3), PRE1, config(name, 10, clip_noise=4.0))
    assert isinstance(info.value, LexalcmError)


@EACH_SAMPLER
def test_the_first_bad_step_is_named_though_clipping_hides_it_from_the_next(name: str) -> None:
    """And the rows it happened in, whatever their shape."""

    def overflows_once(x: Tensor, t: int) -> Tensor:
        return torch.where((torch.arange(4).view(4, 1, 1) >= 2) & (t == 80), float("inf"), 0.5 * x)

    settings = config(name, 10, clip_noise=4.0)
    with pytest.raises(SamplingError, match=r"step 3 of 10 \(timestep 80\).* in 2 of 4 rows, first in row 3\. "):
        sample(overflows_once, torch.randn(4, 1, 3), PRE1, settings)
    with pytest.raises(SamplingError, match=r"step 3 of 10 \(timestep 80\) is not finite\. "):
        sample(lambda x, t: torch.full_like(x, float("nan") if t == 80 else 0.0), torch.randn(1, 3), PRE1, settings)


@EACH_SAMPLER
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_device_is_waited_for_once_after_the_last_prediction(name: str, scale: float) -> None:
    calls: list[int] = []
    waits: list[int] = []

    class Waits(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
                waits.append(len(calls))
            return func(*args, **(kwargs or {}))

    def denoise(x: Tensor, t: int) -> Tensor:
        calls.append(t)
        return 0.5 * x

    settings = config(name, 10, guidance_scale=scale, guidance_rescale=0.7, clip_noise=9.0, clip_clean=9.0)
    latents = torch.randn(2, 3)
    with Waits():
        sample(denoise, latents, PRE1, settings, unconditional=lambda x, t: 0.4 * x)
    assert len(calls) == 10
    # Those before the first call read the schedule's table, which is on the CPU.
    assert [n for n in waits if n > 0] == [10]


def test_starting_noise_that_is_not_finite_is_not_blamed_on_the_model() -> None:
    latents = torch.tensor([[0.0, float("nan")]])
    with pytest.raises(SamplingError, match=r"given at step 1 of 10 \(timestep 100\).*starting noise"):
        sample(lambda x, t: x, latents, PRE1, config())


@EACH_SAMPLER
def test_a_steep_schedule_without_any_noise_in_its_first_rows_stays_finite(name: str) -> None:
    schedule = NoiseSchedule(ScheduleConfig(kind="sigmoid", num_steps=1000, sigmoid_alpha=9.0))
    assert (schedule.table[:3] == 1.0).all()
    found = sample(lambda x, t: 0.9 * x, torch.randn(2, 3), schedule, config(name, 1000))
    assert torch.isfinite(found).all()


@EACH_SAMPLER
def test_guidance_skips_pure_noise_and_guides_every_other_step(name: str) -> None:
    with_context: list[int] = []
    without: list[int] = []
    mixed: list[Tensor] = []

    def conditional(x: Tensor, t: int) -> Tensor:
        with_context.append(t)
        return x.tanh()

    def unconditional(x: Tensor, t: int) -> Tensor:
        without.append(t)
        mixed.append(guide(x.tanh(), 0.4 * x, x, PRE1.table[t], scale=3.0, rescale=0.7))
        return 0.4 * x

    settings = config(name, 8, guidance_scale=3.0, guidance_rescale=0.7)
    latents = torch.randn(2, 5, dtype=torch.float64)
    found = sample(conditional, latents, PRE1, settings, unconditional=unconditional)
    assert without == with_context[1:] and with_context[0] == 100
    torch.testing.assert_close(found, mixed[-1], rtol=1e-12, atol=1e-12)
    with pytest.raises(ConfigError, match="guidance_scale"):
        sample(conditional, torch.randn(2, 5), PRE1, settings)


@EACH_SAMPLER
def test_both_predictions_may_come_of_one_call_at_guided_steps(name: str) -> None:
    alone: list[int] = []
    paired: list[int] = []

    def conditional(x: Tensor, t: int) -> Tensor:
        alone.append(t)
        return x.tanh()

    def both(x: Tensor, t: int) -> tuple[Tensor, Tensor]:
        paired.append(t)
        return x.tanh(), 0.4 * x

    settings = config(name, 8, guidance_scale=3.0, guidance_rescale=0.7)
    sampler, latents = create_sampler(settings), torch.randn(2, 5)
    in_turn = sampler(conditional, latents, PRE1, unconditional=lambda x, t: 0.4 * x)
    alone.clear()
    assert torch.equal(sampler(conditional, latents, PRE1, both=both), in_turn)
    assert alone == [100] and alone + paired == sampler.timesteps(PRE1)


@EACH_SAMPLER
def test_guidance_keeps_to_its_interval_and_other_steps_ask_the_conditional_prediction_alone(name: str) -> None:
    guided: list[int] = []

    def unconditional(x: Tensor, t: int) -> Tensor:
        guided.append(t)
        return 0.4 * x

    def run(**fields: object) -> Tensor:
        guided.clear()
        settings = config(name, 10, guidance_scale=3.0, **fields)
        return sample(lambda x, t: x.tanh(), latents, PRE1, settings, unconditional=unconditional)

    latents = torch.randn(2, 5, dtype=torch.float64)
    shares = {t: 1.0 - float(PRE1.table[t]) for t in range(10, 100, 10)}
    run(guidance_interval=(0.3, 0.9))
    assert guided == [t for t in sorted(shares, reverse=True) if 0.3 <= shares[t] <= 0.9] == [70, 60, 50, 40]
    run(guidance_interval=(shares[30], shares[50]))
    assert guided == [50, 40, 30]
    assert torch.equal(run(guidance_interval=(0.0, 1.0)), run())
    assert guided == list(range(90, 0, -10))


def test_an_interval_that_no_step_falls_into_is_refused_with_what_they_visit() -> None:
    for num_steps, told in ((2, r"2 steps visit\.\nThey are 0\.506\."), (1, "They are none but 1")):
        settings = config(num_steps=num_steps, guidance_scale=3.0, guidance_interval=(0.6, 0.7))
        with pytest.raises(ConfigError, match=told):
            sample(lambda x, t: x, torch.zeros(1, 2), PRE1, settings, unconditional=lambda x, t: x)


@EACH_SAMPLER
@SCHEDULES
def test_what_starts_in_float64_stays_in_it(name: str, schedule: NoiseSchedule) -> None:
    settings = config(name, 7, guidance_scale=3.0, guidance_rescale=0.7, clip_noise=50.0)

    def denoise(x: Tensor, t: int) -> Tensor:
        assert x.dtype == torch.float64
        return x.tanh()

    latents = torch.randn(2, 5, dtype=torch.float64)
    assert sample(denoise, latents, schedule, settings, unconditional=denoise).dtype == torch.float64


@EACH_SAMPLER
def test_a_configured_sampler_tells_what_it_will_do(name: str) -> None:
    settings = config(name, 4, spacing="meta_trailing", initial_noise_scale=0.6)
    sampler = create_sampler(settings)
    seen: list[int] = []

    def denoise(x: Tensor, t: int) -> Tensor:
        seen.append(t)
        return x.tanh()

    latents = torch.randn(2, 3)
    assert torch.equal(sampler(denoise, latents, META), sample(denoise, latents, META, settings))
    assert sampler.config is settings
    assert sampler.timesteps(META) == seen[:4] == [99, 74, 49, 24]
    assert len(create_sampler(config(name, 40, spacing="meta_trailing")).timesteps(META)) == 50
    with pytest.raises(ConfigError, match=r"sampler\.eta"):
        create_sampler(SamplerConfig(eta=2.0))


def test_without_guidance_the_unconditional_prediction_is_never_asked_for() -> None:
    def never(x: Tensor, t: int) -> Tensor:
        raise AssertionError

    sample(lambda x, t: x, torch.randn(2, 3), PRE1, config(), unconditional=never)


@EACH_SAMPLER
def test_noise_is_scaled_then_clipped_before_the_first_call_and_clipped_after_every_step(name: str) -> None:
    seen: list[Tensor] = []

    def grows(x: Tensor, t: int) -> Tensor:
        seen.append(x)
        return 3.0 * torch.ones_like(x)

    latents = torch.tensor([[-4.0, 0.5, 4.0]])
    sample(grows, latents, PRE1, config(name, 6, initial_noise_scale=0.6, clip_noise=1.2))
    torch.testing.assert_close(seen[0], torch.tensor([[-1.2, 0.3, 1.2]]))
    assert all(x.abs().max() <= 1.2 for x in seen) and seen[-1].max() == 1.2


@EACH_SAMPLER
def test_a_deterministic_sampler_treats_rows_alike_and_draws_nothing(name: str) -> None:
    state = torch.get_rng_state()
    latents = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    together = sample(lambda x, t: x.sin(), latents, PRE1, config(name))
    alone = torch.cat([sample(lambda x, t: x.sin(), row, PRE1, config(name)) for row in latents.split(1)])
    torch.testing.assert_close(together, alone)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_a_ddim_step_keeps_the_marginals_whatever_eta(eta: float) -> None:
    clean, noise, fresh = torch.randn(3, 5, 4, dtype=torch.float64)
    a, b = 0.3, 0.6
    noisy = a**0.5 * clean + (1 - a) ** 0.5 * noise
    share = eta * ((1 - b) / (1 - a) * (1 - a / b)) ** 0.5
    expected = b**0.5 * clean + (1 - b - share**2) ** 0.5 * noise + share * fresh
    torch.testing.assert_close(ddim_step(clean, noisy, Step(1, a, b), eta=eta, variance_noise=fresh), expected)


def test_full_eta_from_pure_noise_does_not_take_the_root_of_a_negative_number() -> None:
    for num_steps in range(2, 101):
        found = sample(lambda x, t: 0.5 * x, torch.randn(2, 3), META, config(num_steps=num_steps, eta=1.0))
        assert torch.isfinite(found).all()


def test_epsilon_scaling_divides_the_noise_alone() -> None:
    clean, noisy = torch.randn(2, 5, 4, dtype=torch.float64)
    plain, scaled = (ddim_step(clean, noisy, Step(1, 0.3, 0.6), epsilon_scaling=c) for c in (None, 1.25))
    torch.testing.assert_close(scaled - 0.6**0.5 * clean, (plain - 0.6**0.5 * clean) / 1.25)


def test_the_ancestral_sampler_keeps_the_spread_of_the_target() -> None:
    torch.manual_seed(0)
    schedule = NoiseSchedule(ScheduleConfig(num_steps=400))
    found = sample(
        lambda x, t: posterior_mean(x, float(schedule.table[t]), 0.25),
        torch.randn(20_000, 1),
        schedule,
        config(num_steps=400, eta=1.0),
    )
    assert found.mean() == pytest.approx(MEAN, abs=0.02) and found.std() == pytest.approx(0.5, abs=0.02)


def test_ancestral_noise_is_taken_from_the_caller_and_ends_before_the_last_step() -> None:
    asked: list[int] = []

    def noise(number: int) -> Tensor:
        asked.append(number)
        return torch.zeros(2, 3)

    sample(lambda x, t: 0.5 * x, torch.randn(2, 3), PRE1, config(num_steps=6, eta=1.0), variance_noise=noise)
    assert asked == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"name": "dddim"}, r'sampler\.name.*Did you mean "ddim"'),
        ({"spacing": "trailling"}, r'sampler\.spacing.*Did you mean "trailing"'),
        ({"num_steps": 0}, r"sampler\.num_steps"),
        ({"eta": 1.5}, r"sampler\.eta"),
        ({"eta": -0.1}, r"sampler\.eta"),
        ({"clip_noise": 0.0}, r"sampler\.clip_noise"),
        ({"initial_noise_scale": 0.0}, r"sampler\.initial_noise_scale"),
        ({"epsilon_scaling": -1.0}, r"sampler\.epsilon_scaling"),
        ({"guidance_rescale": 1.2}, r"sampler\.guidance_rescale"),
        ({"guidance_scale": float("nan")}, r"sampler\.guidance_scale"),
        ({"guidance_interval": (0.9, 0.3)}, r"sampler\.guidance_interval.*the lower first"),
        ({"guidance_interval": (0.3, 1.5)}, r"sampler\.guidance_interval"),
        ({"guidance_interval": (-0.1, 0.5)}, r"sampler\.guidance_interval"),
        ({"guidance_interval": (0.1, 0.5, 0.9)}, r"sampler\.guidance_interval.*two shares"),
        ({"name": "dpm_solver_2m", "eta": 0.5}, r"sampler\.eta.*ddim"),
        ({"name": "dpm_solver_2m", "epsilon_scaling": 1.02}, r"sampler\.epsilon_scaling.*ddim"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused_by_field(fields: dict, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        SamplerConfig(**fields).check()
    with pytest.raises(ConfigError, match=named):
        sample(lambda x, t: x, torch.zeros(1, 2), PRE1, SamplerConfig(**fields))


def test_settings_at_the_ends_of_their_ranges_are_honoured() -> None:
    for fields in (
        {"eta": 1.0},
        {"guidance_rescale": 1.0},
        {"num_steps": 1},
        {"guidance_scale": 0.0},
        {"guidance_interval": (0.0, 1.0)},
        {"clip_noise": 0.05},
    ):
        SamplerConfig(**fields).check()


def test_the_defaults_are_plain_ddim_in_forty_steps() -> None:
    plain = config("ddim", 40, guidance_scale=1.0, guidance_rescale=0.0, initial_noise_scale=1.0, eta=0.0)
    assert SamplerConfig() == plain


def test_a_sampler_is_one_function_and_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_call(predict: Callable[[Tensor, int], Tensor], latents: Tensor, *_: object) -> Tensor:
        return predict(latents, 0)

    monkeypatch.setitem(SAMPLERS, "one_call", one_call)
    assert torch.equal(
        sample(lambda x, t: x + t, torch.zeros(1, 2), PRE1, config("one_call")), torch.full((1, 2), 100.0)
    )
