"""A recipe's section, a card, or one over the other: what is chosen, and who is told of a mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fairseq2.recipe.base import RecipeContext

from lexalcm.diffusion.objective import ObjectiveConfig
from lexalcm.diffusion.samplers import SamplerConfig
from lexalcm.diffusion.timestep_density import TimestepDensityConfig
from lexalcm.errors import CardError, ConfigError
from lexalcm.recipes.components import OBJECTIVES, SAMPLERS, ChosenComponent, ComponentKind, choose_component
from lexalcm.recipes.config import ComponentSection, LcmTrainConfig
from lexalcm.recipes.host import RecipeHost
from tests.recipes.acting import ActingRecipe


def choose(kind: ComponentKind[Any], **fields: Any) -> ChosenComponent[Any]:
    """What a run's resolver makes of a section of these fields."""
    chosen: list[ChosenComponent[Any]] = []

    def act(context: RecipeContext) -> None:
        chosen.append(choose_component(context.resolver, ComponentSection(**fields), kind, where=kind.name))

    RecipeHost(ActingRecipe(act), no_rich=True).run(LcmTrainConfig(), Path("unused"), record=False)
    return chosen[0]


def test_a_card_gives_the_fields_and_the_section_wins_one_by_one() -> None:
    changed = {"noise_draws": 2, "timestep_density": {"b": 0.75}}
    config = choose(OBJECTIVES, name="high_noise_objective", config=changed).config
    density = TimestepDensityConfig(kind="beta", a=1.0, b=0.75)
    assert config == ObjectiveConfig(timestep_density=density, noise_draws=2, guidance_dropout=0.15)


def test_without_a_card_the_family_is_ours_and_its_defaults_hold() -> None:
    assert choose(OBJECTIVES, config={"noise_draws": 3}).config == ObjectiveConfig(noise_draws=3)
    assert choose(OBJECTIVES, family="lcm_objective").config == ObjectiveConfig()


def test_a_chosen_sampler_is_checked_when_it_is_built() -> None:
    chosen = choose(SAMPLERS, name="plain_sampler", config={"eta": 2.0})
    assert chosen.config == SamplerConfig(num_steps=20, eta=2.0)
    with pytest.raises(ConfigError, match=r"`sampler\.eta` must be between 0 and 1"):
        chosen.create()


def test_a_mistake_in_a_card_names_the_card(tmp_path: Path) -> None:
    file = tmp_path / "card.yaml"
    for text, told in (
        ("objective_family: lcm_objektive", r'`objective\.name`: "lcm_objektive" is not a known.*"lcm_objective"'),
        ("objective_family: lcm_objective\nobjective_config: {noise_draw: 2}", "_config of card .*`noise_draw`"),
        ("objective_family: lcm_objective\nobjective_config: [2]", "must be a mapping"),
        ("sampler_family: lcm_sampler", "describes no objective"),
    ):
        file.write_text(f"name: mine\n{text}\n")
        with pytest.raises((CardError, ConfigError), match=f"(?s){told}") as caught:
            choose(OBJECTIVES, name=str(file))
        assert str(file) in str(caught.value)
