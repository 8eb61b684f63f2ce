from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lexalcm.models.normalizer.model import ConceptNormalizer, from_frequencies, to_frequencies

GOLDEN = Path(os.environ.get("LEXALCM_GOLDEN", Path(__file__).parents[3] / "../shared/golden")) / "meta/normalizer_fit"


def fitted(dim: int, **options: bool) -> ConceptNormalizer:
    torch.manual_seed(0)
    normalizer = ConceptNormalizer(dim, **options)
    center, scale = torch.randn(dim), torch.rand(dim) + 0.5
    bounds = {"clip_min": torch.full((dim,), -1.0), "clip_max": torch.full((dim,), 2.0)}
    normalizer.set_statistics(center=center, scale=scale, **(bounds if normalizer.with_clipping else {}))
    return normalizer


def test_new_normalizer_is_the_identity() -> None:
    x = torch.randn(3, 8)
    normalizer = ConceptNormalizer(8)
    assert torch.equal(normalizer.normalize(x), x)
    assert torch.equal(normalizer.denormalize(x), x)


def test_normalize_subtracts_center_and_divides_by_scale() -> None:
    normalizer = ConceptNormalizer(2)
    normalizer.set_statistics(center=torch.tensor([1.0, -1.0]), scale=torch.tensor([2.0, 0.5]))
    assert normalizer.normalize(torch.tensor([[5.0, 0.0]])).tolist() == [[2.0, 2.0]]
    assert normalizer.denormalize(torch.tensor([[2.0, 2.0]])).tolist() == [[5.0, 0.0]]


@pytest.mark.parametrize("cast", [torch.float16, torch.bfloat16, torch.float64])
def test_statistics_stay_float32_under_casts(cast: torch.dtype) -> None:
    normalizer = fitted(8)
    center = normalizer.center.clone()
    outer = torch.nn.Sequential(normalizer, torch.nn.Linear(8, 8)).to(cast)
    assert outer[1].weight.dtype == cast
    assert normalizer.center.dtype == normalizer.scale.dtype == torch.float32
    assert torch.equal(normalizer.center, center)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_output_is_float32_also_under_autocast(dtype: torch.dtype) -> None:
    normalizer = fitted(8)
    x = torch.randn(4, 8).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        y = normalizer.normalize(x)
        back = normalizer.denormalize(y)
    assert y.dtype == back.dtype == torch.float32
    assert torch.equal(y, (x.float() - normalizer.center) / normalizer.scale)
    torch.testing.assert_close(back, x.float())


def test_meta_construction_then_state_dict_restores_everything() -> None:
    state = fitted(8).state_dict()
    with torch.device("meta"):
        normalizer = ConceptNormalizer(8)
    normalizer.to_empty(device="cpu")
    normalizer.load_state_dict(state)
    assert set(state) == {"center", "scale"}
    assert all(torch.equal(state[k], v) for k, v in normalizer.state_dict().items())


def test_reset_after_meta_construction_gives_the_identity() -> None:
    with torch.device("meta"):
        normalizer = ConceptNormalizer(8)
    normalizer.to_empty(device="cpu")
    normalizer.center.fill_(7.0)
    normalizer.scale.fill_(7.0)
    normalizer.reset_parameters()
    assert torch.equal(normalizer.normalize(torch.ones(8)), torch.ones(8))


def test_frequencies_are_the_transform_by_definition_and_invert() -> None:
    x = torch.randn(3, 8, dtype=torch.float64)
    y = to_frequencies(x)
    angles = 2 * torch.pi * torch.outer(torch.arange(8.0), torch.arange(8.0)).double() / 8
    real, imaginary = x @ torch.cos(angles), -(x @ torch.sin(angles))
    torch.testing.assert_close(y, torch.cat([real[:, :5], imaginary[:, 1:4]], dim=-1))
    torch.testing.assert_close(from_frequencies(y), x)


def test_clipping_holds_in_the_normalised_space_both_ways() -> None:
    normalizer = fitted(4, with_clipping=True)
    y = normalizer.normalize(1000 * torch.randn(50, 4))
    assert y.min() == -1.0 and y.max() == 2.0
    assert torch.equal(normalizer.denormalize(torch.full((4,), 9.0)), 2.0 * normalizer.scale + normalizer.center)


@pytest.mark.parametrize(
    ("center", "scale"),
    [(torch.zeros(3), torch.ones(3)), (torch.zeros(4), torch.zeros(4)), (torch.full((4,), torch.nan), torch.ones(4))],
)
def test_statistics_that_cannot_be_used_are_refused(center: torch.Tensor, scale: torch.Tensor) -> None:
    with pytest.raises(ValueError):
        ConceptNormalizer(4).set_statistics(center=center, scale=scale)


def test_a_clipping_normalizer_needs_bounds_and_others_have_no_use_for_them() -> None:
    center, scale, bound = torch.zeros(4), torch.ones(4), torch.ones(4)
    with pytest.raises(ValueError, match="needs bounds"):
        ConceptNormalizer(4, with_clipping=True).set_statistics(center=center, scale=scale)
    with pytest.raises(ValueError, match="both or not at all"):
        ConceptNormalizer(4, with_clipping=True).set_statistics(center=center, scale=scale, clip_max=bound)
    with pytest.raises(ValueError, match="has no bounds"):
        ConceptNormalizer(4).set_statistics(center=center, scale=scale, clip_min=-bound, clip_max=bound)
    with pytest.raises(ValueError, match="at most `clip_max`"):
        ConceptNormalizer(4, with_clipping=True).set_statistics(
            center=center, scale=scale, clip_min=bound, clip_max=-bound
        )


def test_statistics_refused_leave_the_old_ones_in_place() -> None:
    normalizer = fitted(4, with_clipping=True)
    before = {name: value.clone() for name, value in normalizer.state_dict().items()}
    one, zero = torch.ones(4), torch.zeros(4)
    with pytest.raises(ValueError, match="clip_max"):
        normalizer.set_statistics(center=one, scale=one, clip_min=zero, clip_max=torch.zeros(3))
    assert all(torch.equal(value, before[name]) for name, value in normalizer.state_dict().items())


@pytest.mark.parametrize("options", [{}, {"with_fft": True}, {"with_clipping": True}])
def test_statistics_of_one_normalizer_make_another(options: dict[str, bool]) -> None:
    normalizer, other = fitted(8, **options), ConceptNormalizer(8, **options)
    other.set_statistics(**normalizer.statistics.tensors())
    assert normalizer.statistics.with_fft is normalizer.with_fft
    assert torch.equal(other.normalize(torch.ones(8)), normalizer.normalize(torch.ones(8)))


def test_transforms_agree_with_the_reference_release() -> None:
    if not GOLDEN.is_dir():
        pytest.skip(f"golden vectors are not at {GOLDEN}")
    case = json.loads((GOLDEN / "case.json").read_text())
    tensors = load_file(GOLDEN / "io.safetensors")
    for sub in case["subcases"]:
        i = sub["index"]
        normalizer = ConceptNormalizer(
            sub["dim"], with_fft=sub["with_fft"], with_clipping=sub["clip_proba"] is not None
        )
        normalizer.load_state_dict({name: tensors[f"out.{i}.{name}"] for name in normalizer.state_dict()})
        x = tensors["in.test"]
        y = normalizer.normalize(x)
        for name, value in {
            "normalized": y,
            "denormalized": normalizer.denormalize(x),
            "roundtrip": normalizer.denormalize(y),
        }.items():
            torch.testing.assert_close(value, tensors[f"out.{i}.{name}"], rtol=1e-4, atol=1e-4, msg=f"{i} {name}")
