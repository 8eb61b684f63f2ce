"""The families of objectives and samplers that this package brings, as fairseq2 components.

Another package registers its own in the same way, from its ``fairseq2.extension`` entry point::

    register_component(container, TrainingObjective, "my_objective", MyObjectiveConfig, create_my_objective)
    register_component(container, Sampler, "my_sampler", MySamplerConfig, create_my_sampler)

A card with ``objective_family: my_objective``, or the section's ``family`` in a recipe, then chooses it.
"""

from __future__ import annotations

from typing import Final

from fairseq2.runtime.dependency import DependencyResolver
from torch.nn import Module

from lexalcm.diffusion.objective import Objective, ObjectiveConfig, TrainingObjective
from lexalcm.diffusion.regression import Regression, RegressionConfig
from lexalcm.diffusion.samplers import Sampler, SamplerConfig, create_sampler
from lexalcm.errors import ConfigError
from lexalcm.models.interface import TwoTowerModel

LCM_OBJECTIVE: Final = "lcm_objective"

LCM_REGRESSION: Final = "lcm_regression"

LCM_SAMPLER: Final = "lcm_sampler"


def create_lcm_objective(resolver: DependencyResolver, config: ObjectiveConfig) -> TrainingObjective:
    """Builds the objective of the run's model.

    :raises ConfigError: The two do not go together.
    """
    model = _model_of_run(resolver)
    if model.trained_with_guidance not in (None, config.guidance_dropout > 0.0):
        raise ConfigError(
            f"`objective.config.guidance_dropout` is {config.guidance_dropout}, but the model's configuration says that it is "
            f"{'' if model.trained_with_guidance else 'not '}trained for guidance.\nChange one of them: Meta's two-tower "
            f"family has `trained_with_cf_guidance`; its base family cannot be guided and needs 0."
        )
    return Objective(config, model.schedule, model.prediction_type, model.output_form)


def create_lcm_regression(resolver: DependencyResolver, config: RegressionConfig) -> TrainingObjective:
    """Builds the objective of models that predict without noise."""
    return Regression(config, _model_of_run(resolver).schedule)


def _model_of_run(resolver: DependencyResolver) -> TwoTowerModel:
    model = resolver.resolve(Module, key="model")
    assert isinstance(model, TwoTowerModel)
    return model


def create_lcm_sampler(resolver: DependencyResolver, config: SamplerConfig) -> Sampler:
    """Builds a sampler, which any model can be sampled with."""
    return create_sampler(config)
