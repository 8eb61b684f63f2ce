"""fairseq2's recipe machinery, composed by us.

``fairseq2.recipe.cli.main`` prints tracebacks for users' faults and logs the whole environment, keys and tokens
included; ``run`` has no place for a configuration that is checked first. So the dozen steps they consist of are taken
here, in their order. Names with an underscore are fairseq2's private ones: only this file and
``checkpoints/asset_folders.py`` touch them, and their tests fail when a new release moves them.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from fairseq2.assets import AssetStore
from fairseq2.checkpoint import CheckpointDir
from fairseq2.composition import _register_library
from fairseq2.io import TensorFileDumper, TensorFileLoader
from fairseq2.logging import configure_logging, log
from fairseq2.recipe.base import Recipe
from fairseq2.recipe.component import _ComponentEntry
from fairseq2.recipe.composition import _register_train_recipe
from fairseq2.recipe.internal.cluster import _ClusterPreparer
from fairseq2.recipe.internal.config import _RecipeConfigHolder, _StandardRecipeConfigStructurer
from fairseq2.recipe.internal.log import _LogHelper
from fairseq2.recipe.internal.logging import _DistributedLogConfigurer
from fairseq2.recipe.internal.output_dir import _OutputDirectoryCreator
from fairseq2.recipe.internal.task import _TaskRunner
from fairseq2.recipe.internal.torch import _TorchConfigurer
from fairseq2.recipe.run import _RecipeConfigDumper, _swap_default_resolver
from fairseq2.runtime.dependency import DependencyContainer, DependencyNotFoundError, DependencyResolver, wire_object
from fairseq2.task import Task
from fairseq2.utils.structured import ValueConverter
from fairseq2.utils.validation import ObjectValidator
from fairseq2.utils.yaml import YamlDumper
from fairseq2.validator import NOOP_VALIDATOR

from lexalcm.recipes.checkpoint_files import RestrictedDumper, RestrictedLoader
from lexalcm.recipes.whole_files import WholeYamlDumper
from lexalcm.shown import is_secret, without_passwords

if TYPE_CHECKING:  # importing fairseq2's trainer first is a circle among its own modules
    from fairseq2.trainer import Trainer

T = TypeVar("T")

_LOGGED_VARIABLES: Final = (
    "CUDA_",
    "NCCL_",
    "OMP_",
    "MKL_",
    "TORCH_",
    "PYTORCH_",
    "SLURM_JOB",
    "SLURM_NODE",
    "WORLD_SIZE",
    "RANK",
    "LOCAL_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
    "LEXALCM_",
)


class RecipeHost:
    """One run of one recipe."""

    def __init__(self, recipe: Recipe, *, no_rich: bool = False) -> None:
        configure_logging(no_rich=no_rich)
        self._config: object | None = None
        self._output_dir: Path | None = None
        self._checkpoint_dir: Path | None = None
        self._container = DependencyContainer()
        with _swap_default_resolver(self._container):
            _register_library(self._container, no_progress=True if no_rich else None)
            self._use_our_files()
            _register_train_recipe(self._container, recipe)
            self._register_run()

    def _use_our_files(self) -> None:
        # The library has registered its own already, and a container takes only one of a kind.
        for kls, ours in (
            (TensorFileDumper, RestrictedDumper),
            (TensorFileLoader, RestrictedLoader),
            (YamlDumper, WholeYamlDumper),
        ):
            del self._container._registrations[(kls, None)]
            self._container.register_type(kls, ours, singleton=True)

    def _register_run(self) -> None:
        # fairseq2 freezes the container at the first look-up, which structuring the configuration already is; what is
        # known only later is therefore registered as a question to this object.
        def config_holder(resolver: DependencyResolver) -> _RecipeConfigHolder:
            assert self._config is not None
            resolver.resolve(ObjectValidator).validate(self._config)
            return _RecipeConfigHolder(self._config)

        def output_dir(resolver: DependencyResolver) -> Path:
            assert self._output_dir is not None
            return resolver.resolve(_OutputDirectoryCreator).create(self._output_dir)

        self._container.register(_RecipeConfigHolder, config_holder)
        self._container.register(Path, output_dir)
        self._container.register(CheckpointDir, lambda resolver: CheckpointDir(self._checkpoint_dir))

    @property
    def resolver(self) -> DependencyResolver:
        return self._container

    def structure(self, value: object, kls: type[T]) -> T:
        """Turns plain data into ``kls``, the configuration of named components included."""
        structurer = wire_object(self._container, _StandardRecipeConfigStructurer)
        with _swap_default_resolver(self._container):
            return structurer.structure(kls, value)  # type: ignore[return-value]

    def unstructure(self, config: object) -> dict[str, object]:
        """Turns a configuration into plain data."""
        return self._container.resolve(ValueConverter).unstructure(config)  # type: ignore[return-value]

    def asset_store(self, config: object) -> AssetStore:
        """Returns the cards that a run with ``config`` knows, those under its ``common.assets.extra_paths`` included."""
        self._config = config
        with _swap_default_resolver(self._container):
            return self._container.resolve(AssetStore)

    def run(self, config: object, output_dir: Path, *, checkpoint_dir: Path | None = None, record: bool = True) -> None:
        """Creates the recipe's task and runs it.

        :param record: Write ``config.yaml`` and log files into ``output_dir``.
        """
        self._config, self._output_dir, self._checkpoint_dir = config, output_dir, checkpoint_dir
        logger = logging.getLogger("fairseq2")
        level = logger.level
        if not record:
            # A dry run prints what it finds; the log of a real run, the whole model among it, would bury that.
            logger.setLevel(logging.WARNING)
        try:
            self._run(record)
        finally:
            logger.setLevel(level)

    def _run(self, record: bool) -> None:
        container = self._container
        with _swap_default_resolver(container):
            container.resolve(_ClusterPreparer).prepare()
            if record:
                container.resolve(_DistributedLogConfigurer).configure()
                container.resolve(_RecipeConfigDumper).dump()
            container.resolve(_TorchConfigurer).configure()
            if record:
                log_helper = container.resolve(_LogHelper)
                log_helper.log_system_info()
                log_helper.log_software_info()
                log.info("Environment Variables - {}", _telling_variables())
            task = container.resolve(Task)
            container.resolve(_TaskRunner).run(task)


def end_after_this_step(trainer: Trainer) -> None:
    """Makes the trainer end behind the step under way, in good order and with a checkpoint, as ``request_stop`` promises.

    With a number of steps set it would ignore that; and it would validate before it stops, which takes longer than a
    machine that is about to be taken away may have.
    """
    trainer._validator = NOOP_VALIDATOR
    if trainer._max_num_steps is not None and trainer.step_nr < trainer._max_num_steps:
        trainer._max_num_steps = None
        trainer.request_stop()


def component_config_kls(resolver: DependencyResolver, kls: type, name: str) -> type | None:
    """Returns the configuration class of the component ``name`` of a kind, ``None`` if nothing has that name."""
    try:
        return resolver.resolve(_ComponentEntry, key=(kls, name)).config_kls
    except DependencyNotFoundError:
        return None


def component_names(resolver: DependencyResolver, kls: type) -> list[str]:
    """Names of the registered components of a kind."""
    return sorted(key[1] for key in resolver.iter_keys(_ComponentEntry) if key[0] is kls)


def _telling_variables() -> str:
    """The variables that change how a run computes; the rest of the environment may hold keys and tokens."""
    telling = {k: v for k, v in sorted(os.environ.items()) if k.startswith(_LOGGED_VARIABLES)}
    shown = [f"{k}={without_passwords(v)}" for k, v in telling.items() if not is_secret(k)]
    return ", ".join(shown) or "none that change how a run computes"
