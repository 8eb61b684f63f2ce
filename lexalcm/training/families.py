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
from lexalcm.diffusion.samplers import Sampler, SamplerConfig, create_sampler
from lexalcm.models.interface import TwoTowerModel

LCM_OBJECTIVE: Final = "lcm_objective"

LCM_SAMPLER: Final = "lcm_sampler"


def create_lcm_objective(resolver: DependencyResolver, config: ObjectiveConfig) -> TrainingObjective:
    """Builds the objective of the run's model."""
    model = resolver.resolve(Module, key="model")
    assert isinstance(model, TwoTowerModel)
    return Objective(config, model.schedule, model.prediction_type, model.output_form)


def create_lcm_sampler(resolver: DependencyResolver, config: SamplerConfig) -> Sampler:
    """Builds a sampler, which any model can be sampled with."""
    return create_sampler(config)
