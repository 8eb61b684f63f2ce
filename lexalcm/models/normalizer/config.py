"""Configuration of the ``sonar_normalizer`` family; field names and archs are those of the reference release."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, get_args

from fairseq2.runtime.config_registry import ConfigRegistrar
from fairseq2.runtime.dependency import DependencyContainer

from lexalcm.errors import ConfigError, unknown_name

NORMALIZER_FAMILY: Final = "sonar_normalizer"

NormalizationMethod = Literal["standard", "robust", "gaussian_robust"]


@dataclass(kw_only=True)
class NormalizerConfig:
    """Holds the configuration of a normalizer.

    ``quantile_min``, ``quantile_max`` and ``normalization_method`` record how statistics were fitted; the transform
    itself only knows ``center`` and ``scale``.
    """

    dim: int = 1024
    """The number of dimensions of a concept."""

    clip_proba: float | None = None
    """If set, normalised values are clamped to bounds per dimension, fitted at this and the opposite quantile."""

    with_fft: bool = False
    """If ``True``, the real Fourier transform of a concept is what gets normalised. Needs an even ``dim``."""

    quantile_min: float = 0.25
    """The lower quantile of the robust methods, in percent as the reference reads it."""

    quantile_max: float = 0.75
    """The upper quantile of the robust methods, in percent as the reference reads it."""

    normalization_method: NormalizationMethod = "gaussian_robust"
    """How the reference fits center and scale."""

    def check(self) -> None:
        """:raises ConfigError: A field cannot be honoured."""
        # Not named `validate`: fairseq2 calls a method of that name on whatever it structures, and wants its own result.
        if type(self.dim) is not int or self.dim < 1:
            raise ConfigError(f"`dim` of a normalizer must be a positive integer, but is {self.dim!r}.")
        if self.with_fft and self.dim % 2:
            raise ConfigError(f"`with_fft` of a normalizer needs an even `dim`, but `dim` is {self.dim}.")
        if self.clip_proba is not None and not 0.0 < self.clip_proba < 0.5:
            raise ConfigError(
                f"`clip_proba` of a normalizer must lie between 0 and 0.5, but is {self.clip_proba!r}. Leave it out (null)"
                " to keep values as they are."
            )
        if not 0.0 <= self.quantile_min < self.quantile_max <= 100.0:
            raise ConfigError(
                "`quantile_min` and `quantile_max` of a normalizer must be ascending percentages, but are"
                f" {self.quantile_min!r} and {self.quantile_max!r}."
            )
        methods = get_args(NormalizationMethod)
        if self.normalization_method not in methods:
            raise ConfigError(
                f"`normalization_method`: {unknown_name('normalization method', str(self.normalization_method), methods)}"
            )

    def check_for_model(self, concept_dim: int) -> None:
        """
        :param concept_dim: Of the model whose configuration this is a part of.
        :raises ConfigError: A field cannot be honoured, or the dimensions differ.
        """
        self.check()
        if self.dim != concept_dim:
            raise ConfigError(
                f"The model's normalizer is for concepts of {self.dim} dimensions, but its `sonar_embed_dim` is {concept_dim}."
                f"\nName another in `sonar_normalizer_name`; null there and `normalizer: {{dim: {concept_dim}}}` means a plain "
                f"one, whose statistics the run's `normalizer` section sets."
            )


_ARCHS: Final[dict[str, dict[str, Any]]] = {
    "base": {},
    "base_page4k": {"dim": 4096},
    "base_fft": {"with_fft": True},
    "clipping": {"clip_proba": 1e-4},
    "clipping_fft": {"clip_proba": 1e-4, "with_fft": True},
}


def normalizer_arch(name: str) -> NormalizerConfig:
    """Returns the configuration that an arch's name stands for.

    :raises ConfigError: There is no such arch.
    """
    if name not in _ARCHS:
        raise ConfigError(f"arch: {unknown_name('arch of a normalizer', name, _ARCHS)}")
    return NormalizerConfig(**_ARCHS[name])


def register_normalizer_configs(container: DependencyContainer) -> None:
    arch = ConfigRegistrar(container, NormalizerConfig)
    for name in _ARCHS:
        arch(name)(partial(normalizer_arch, name))
