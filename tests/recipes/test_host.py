"""fairseq2's private names that the host stands on: a release that moves one must fail here, by its name."""

from __future__ import annotations

import logging
from inspect import getsource, signature
from pathlib import Path

import pytest
from fairseq2.io import TensorFileDumper, TensorFileLoader
from fairseq2.optim.lr_schedulers import LRScheduler
from fairseq2.recipe.base import RecipeContext
from fairseq2.trainer import Trainer
from fairseq2.utils.yaml import RuamelYamlDumper, YamlDumper
from torch.optim import Optimizer

from lexalcm.diffusion.objective import ObjectiveConfig, TrainingObjective
from lexalcm.recipes.checkpoint_files import RestrictedDumper, RestrictedLoader
from lexalcm.recipes.config import LcmTrainConfig
from lexalcm.recipes.host import RecipeHost, component_config_kls, component_names
from lexalcm.training.lr_schedule import WARMUP_SHARE_LR, WarmupShareConfig
from tests.recipes.acting import ActingRecipe


def nothing(context: RecipeContext) -> None: ...


def test_a_recipe_gets_the_config_and_folder_of_its_run(tmp_path: Path) -> None:
    seen = []
    act = ActingRecipe(lambda context: seen.append((context.get_config_as(LcmTrainConfig), context.output_dir)))
    host = RecipeHost(act, no_rich=True)
    config = host.structure(host.unstructure(LcmTrainConfig()), LcmTrainConfig)
    assert isinstance(config.lr_scheduler.config, WarmupShareConfig)
    host.run(config, tmp_path / "run")
    assert seen == [(config, tmp_path / "run")]
    assert (tmp_path / "run" / "config.yaml").is_file() and (tmp_path / "run" / "logs" / "rank_0.log").is_file()


def test_an_unrecorded_run_writes_nothing_and_restores_the_log_level(tmp_path: Path) -> None:
    host = RecipeHost(ActingRecipe(nothing), no_rich=True)
    config = host.structure(host.unstructure(LcmTrainConfig()), LcmTrainConfig)
    level = logging.getLogger("fairseq2").level
    host.run(config, tmp_path / "run", record=False)
    assert not any(f.is_file() for f in tmp_path.rglob("*"))
    assert logging.getLogger("fairseq2").level == level


def test_checkpoints_go_through_the_restricted_reader_and_writer() -> None:
    resolver = RecipeHost(ActingRecipe(nothing), no_rich=True).resolver
    assert isinstance(resolver.resolve(TensorFileDumper), RestrictedDumper)
    assert isinstance(resolver.resolve(TensorFileLoader), RestrictedLoader)


def test_components_are_known_by_kind_and_name() -> None:
    resolver = RecipeHost(ActingRecipe(nothing), no_rich=True).resolver
    assert component_config_kls(resolver, LRScheduler, WARMUP_SHARE_LR) is WarmupShareConfig
    assert component_config_kls(resolver, TrainingObjective, "lcm_objective") is ObjectiveConfig
    assert component_config_kls(resolver, TrainingObjective, WARMUP_SHARE_LR) is None
    assert {"adamw", "lcm_adamw", "muon"} <= set(component_names(resolver, Optimizer))


def test_the_trainer_still_has_what_ending_it_early_takes() -> None:
    parameters = signature(Trainer.__init__).parameters
    assert {"max_num_steps", "validator"} <= parameters.keys()
    source = getsource(Trainer)
    for name in ("self._max_num_steps", "self._validator is NOOP_VALIDATOR", "self._stop_requested"):
        assert name in source


def test_a_file_of_the_run_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = RecipeHost(ActingRecipe(nothing), no_rich=True).resolver
    dumper = resolver.resolve(YamlDumper)
    dumper.dump({"a": 1}, tmp_path / "config.yaml")

    def torn(self: RuamelYamlDumper, obj: object, output: Path) -> None:
        output.write_text("a: ")
        raise KeyboardInterrupt

    monkeypatch.setattr(RuamelYamlDumper, "dump", torn)
    with pytest.raises(KeyboardInterrupt):
        dumper.dump({"a": 2}, tmp_path / "config.yaml")
    assert (tmp_path / "config.yaml").read_text() == "a: 1\n"
