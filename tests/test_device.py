from __future__ import annotations

import pytest
import torch

from lexalcm.device import check_device
from lexalcm.errors import ConfigError


def test_cpu_is_always_there() -> None:
    assert check_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:99", "meta", "gpu"])
def test_device_that_is_not_there_is_one_line_with_those_that_are(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"`--device {name}` .* Present: cpu") as caught:
        check_device(name)
    assert "\n" not in str(caught.value)


def test_cuda_means_the_first_card() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    assert check_device("cuda") == torch.device("cuda", 0)
