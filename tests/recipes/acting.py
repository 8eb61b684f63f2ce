"""A recipe that does one thing with its context, to look at what a run is given."""

from __future__ import annotations

from collections.abc import Callable

from fairseq2.recipe.base import Recipe, RecipeContext
from fairseq2.task import Task

from lexalcm.recipes.config import LcmTrainConfig


class ActingTask(Task):
    """Does it when run."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act

    def run(self) -> None:
        self._act()

    def request_stop(self) -> None: ...

    def close(self) -> None: ...

    @property
    def step_nr(self) -> int:
        return 0


class ActingRecipe(Recipe):
    """Does it with the context of the run."""

    def __init__(self, act: Callable[[RecipeContext], object]) -> None:
        self._act = act

    @property
    def config_kls(self) -> type[object]:
        return LcmTrainConfig

    def create_task(self, context: RecipeContext) -> Task:
        return ActingTask(lambda: self._act(context))
