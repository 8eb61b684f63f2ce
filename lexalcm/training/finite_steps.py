"""Takes no step that would put NaN or infinity into the weights.

Looked at is the norm of the gradient, which the trainer computes in every step anyway, over all ranks. The step waits for
that one number before the optimizer, as it does behind it in any case. A loss that is not finite shows in it, see
:meth:`lexalcm.training.train_unit.LcmTrainUnit.process_batch`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, final

from fairseq2.nn.data_parallel import DataParallelFacade, get_data_parallel_facade, set_data_parallel_facade
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer
from typing_extensions import override


class FiniteSteps:
    """Stands between the gradient and the optimizer.

    Where the gradient is not finite, the optimizer finds none at all: weights, its own averages and the EMA stay as they
    are. The step counts all the same, on all ranks.
    """

    def __init__(self, dp_model: Module, optimizer: Optimizer, *, on_skip: Callable[[int], None]) -> None:
        """
        :param dp_model: The data-parallel wrapper, before a trainer is made of it.
        :param on_skip: Called on all ranks for each step that is not taken, with how many there were in a row.
        """
        self._on_skip = on_skip
        self._num_in_a_row = 0
        self._facade = _NormKeepingFacade(get_data_parallel_facade(dp_model))
        set_data_parallel_facade(dp_model, self._facade)
        optimizer.register_step_pre_hook(self._before_step)

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        norm, self._facade.norm = self._facade.norm, None
        if norm is None or math.isfinite(float(norm)):
            self._num_in_a_row = 0
            return
        self._num_in_a_row += 1
        optimizer.zero_grad(set_to_none=True)
        self._on_skip(self._num_in_a_row)


@final
class _NormKeepingFacade(DataParallelFacade):
    """What the trainer sees of the model, which remembers the norm of the gradient."""

    def __init__(self, facade: DataParallelFacade) -> None:
        self._facade = facade
        self.norm: Tensor | None = None

    @override
    def state_dict(self) -> dict[str, object]:
        return self._facade.state_dict()

    @override
    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        self._facade.load_state_dict(state_dict)

    @override
    def no_sync(self) -> AbstractContextManager[None]:
        return self._facade.no_sync()

    @override
    def clip_grad_norm(self, max_norm: float | None) -> Tensor:
        self.norm = self._facade.clip_grad_norm(max_norm)
        return self.norm

    @override
    def summon_full_parameters(self) -> AbstractContextManager[None]:
        return self._facade.summon_full_parameters()
