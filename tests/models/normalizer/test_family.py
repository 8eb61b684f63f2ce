from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fairseq2.assets import AssetCard
from fairseq2.gang import create_fake_gangs
from fairseq2.models.family import ModelFamily
from fairseq2.runtime.dependency import get_dependency_resolver
from safetensors.torch import save_file

from lexalcm.errors import ConfigError
from lexalcm.models.normalizer.config import NORMALIZER_FAMILY, NormalizerConfig
from lexalcm.models.normalizer.factory import create_normalizer
from lexalcm.models.normalizer.interop import convert_normalizer_state_dict, to_reference_state_dict
from lexalcm.models.normalizer.model import ConceptNormalizer


@pytest.fixture(scope="module")
def family() -> ModelFamily:
    return get_dependency_resolver().resolve(ModelFamily, key=NORMALIZER_FAMILY)


def load(
    family: ModelFamily, checkpoint: Path, dtype: torch.dtype = torch.float32, **fields: object
) -> ConceptNormalizer:
    card = AssetCard("test", {"checkpoint": f"file://{checkpoint}", "model_arch": "base", **fields})
    gangs = create_fake_gangs(torch.device("cpu"))
    return family.load_model(card, gangs, dtype, None, False, False)  # type: ignore[return-value]


def test_archs_are_those_of_the_reference(family: ModelFamily) -> None:
    wanted = {
        "base": NormalizerConfig(),
        "base_page4k": NormalizerConfig(dim=4096),
        "base_fft": NormalizerConfig(with_fft=True),
        "clipping": NormalizerConfig(clip_proba=1e-4),
        "clipping_fft": NormalizerConfig(clip_proba=1e-4, with_fft=True),
    }
    assert {arch: family.maybe_get_arch_config(arch) for arch in family.get_archs()} == wanted


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_card_loads_our_safetensors_in_float32(family: ModelFamily, tmp_path: Path, dtype: torch.dtype) -> None:
    center, scale = torch.randn(8), torch.rand(8) + 0.1
    save_file({"center": center, "scale": scale}, tmp_path / "n.safetensors", metadata={"method": '"robust"'})
    normalizer = load(family, tmp_path / "n.safetensors", dtype, model_config={"dim": 8})
    assert normalizer.center.dtype == torch.float32
    assert torch.equal(normalizer.center, center) and torch.equal(normalizer.scale, scale)


def test_card_loads_the_reference_layout_with_clipping(family: ModelFamily, tmp_path: Path) -> None:
    source = ConceptNormalizer(8, with_clipping=True)
    source.clip_min.fill_(-3.0)
    torch.save(to_reference_state_dict(source.state_dict(), sources=["wiki"]), tmp_path / "n.pt")
    normalizer = load(family, tmp_path / "n.pt", model_arch="clipping", model_config={"dim": 8})
    assert torch.equal(normalizer.clip_min, torch.full((8,), -3.0))


def test_both_layouts_convert_to_the_same_flat_names() -> None:
    flat = ConceptNormalizer(4).state_dict()
    wrapped = to_reference_state_dict(flat, sources=["a"])
    config = NormalizerConfig(dim=4)
    assert set(wrapped) == {"model", "dataset_mixture"}
    assert list(convert_normalizer_state_dict(wrapped, config)) == list(convert_normalizer_state_dict(flat, config))


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (NormalizerConfig(dim=0), "dim"),
        (NormalizerConfig(dim=True), "dim"),
        (NormalizerConfig(dim=7, with_fft=True), "with_fft"),
        (NormalizerConfig(clip_proba=0.5), "clip_proba"),
        (NormalizerConfig(quantile_min=80.0, quantile_max=20.0), "quantile_min"),
        (NormalizerConfig(normalization_method="robustt"), "normalization_method"),  # type: ignore[arg-type]
    ],
)
def test_config_that_cannot_be_honoured_is_refused_by_field(config: NormalizerConfig, field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        create_normalizer(config)
