"""Which sizes and which revision of the published code a published LexaLCM-Pre1 checkpoint belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from lexalcm.errors import CheckpointError, ConfigError, near_match, unknown_name
from lexalcm.models.pre1.interop import has_denoiser_norms, is_published


@dataclass(frozen=True, kw_only=True)
class Revision:
    """What tells the revisions apart (specification of LexaLCM-Pre1, table of section 3)."""

    scaled_context: bool = True
    """The contextualizer's branches are multiplied by ``1 / sqrt(num_context_layers)``."""

    denoiser_norms: bool
    """The denoiser's sublayers see normed input and are multiplied by ``1 / sqrt(num_denoiser_layers)``. Otherwise they
    are added as they are, and each doubles the stream."""

    bounded_ffn: bool = True
    """The denoiser's feed-forward networks return ``5 tanh(y)``, and their modulation is clamped."""

    clamped_conditioning: bool = False
    """The modulation of the denoiser's attentions is clamped, and the timestep embedding."""

    loss: Literal["own_label", "all_pairs", "per_position"]
    """How distances between predictions and labels become one number."""

    returns_last: bool = True
    """Without labels, the last position alone is returned."""


REVISIONS: Final[Mapping[str, Revision]] = {
    "first_trainable": Revision(scaled_context=False, denoiser_norms=False, bounded_ffn=False, loss="own_label"),
    "documented": Revision(denoiser_norms=False, loss="all_pairs"),
    "first_residual": Revision(denoiser_norms=True, loss="all_pairs"),
    "final": Revision(denoiser_norms=True, clamped_conditioning=True, loss="per_position", returns_last=False),
}
"""By name, in the order of time."""


def find_revision(name: str) -> Revision:
    """:raises ConfigError: There is no revision of this name."""
    if name not in REVISIONS:
        raise ConfigError(unknown_name("revision of LexaLCM-Pre1", name, REVISIONS))
    return REVISIONS[name]


def revision_of(keys: Iterable[str]) -> Literal["documented", "final"]:
    """Tells the two named revisions apart: the later has norms on the denoiser's residual branches.

    Of the other two, each has the keys of one of these, and can only be asked for by name.

    :param keys: Of a published state dict.
    :raises CheckpointError: The keys are not those of a published checkpoint.
    """
    keys = list(keys)
    if not is_published(keys):
        found = f"begin with `{min(keys)}`" if keys else "are empty"
        raise CheckpointError(
            f"LexaLCM-Pre1 was published with keys such as `DenoiserTower.final_norm.weight`, but these {found}."
        )
    return "final" if has_denoiser_norms(keys) else "documented"


@dataclass(frozen=True, kw_only=True)
class OriginalConfig:
    """Sizes of a published model. Its dropouts are left out: none is drawn."""

    concept_dim: int
    """Dimension of a concept."""

    model_dim: int
    """Width of both towers."""

    latent_dim: int
    """Dimension of the latent between the towers."""

    num_context_layers: int
    """Layers of the contextualizer."""

    num_denoiser_layers: int
    """Layers of the denoiser."""

    num_heads: int
    """Attention heads of both towers."""

    ffn_dim: int
    """Inner width of the feed-forward networks."""

    timestep_dim: int
    """Number of sine and cosine features of a timestep."""

    num_train_steps: int
    """Passes of the published loop in training, of which the last alone counts."""

    num_inference_steps: int
    """The same in evaluation."""

    guidance_scale: float = 0.0
    """Classifier-free guidance in evaluation; 0 switches it off."""

    @property
    def num_schedule_steps(self) -> int:
        """N of the noise schedule, whose table has N + 1 rows."""
        return max(self.num_train_steps, self.num_inference_steps)


_SIZES: Final = {
    "input_dim": "concept_dim",
    "d_model": "model_dim",
    "d_latent": "latent_dim",
    "num_context_layers": "num_context_layers",
    "num_denoiser_layers": "num_denoiser_layers",
    "n_heads": "num_heads",
    "d_ff": "ffn_dim",
    "AdaLN_Timestep_Embed_Dim": "timestep_dim",
    "denoiser_iterations_pretrain": "num_train_steps",
    "denoiser_iterations_inference": "num_inference_steps",
}
PUBLISHED_TYPE: Final = "lexa_lcm_pre1"
_DROPOUTS: Final = ("dropout_context", "dropout_latent", "dropout_denoiser", "dropout_denoiser_rows")
_BOOKKEEPING: Final = ("architectures", "auto_map", "dtype", "torch_dtype", "transformers_version", "_name_or_path")


def original_config(published: Mapping[str, object]) -> OriginalConfig:
    """Reads the fields of a published ``config.json``.

    :raises CheckpointError: A field is missing, unknown or impossible.
    """
    known = (*_SIZES, "cfg_scale", "model_type", *_DROPOUTS, *_BOOKKEEPING)
    for name in published:
        if name not in known:
            hint = near_match(name, known)
            raise CheckpointError(f"config.json has a field `{name}`, which LexaLCM-Pre1 does not know.{hint}")
    if missing := [name for name in _SIZES if name not in published]:
        raise CheckpointError(f"config.json lacks fields of LexaLCM-Pre1: {', '.join(missing)}.")
    _require(published.get("model_type", PUBLISHED_TYPE) == PUBLISHED_TYPE, published, "model_type", f"`{PUBLISHED_TYPE}`")
    sizes = {}
    for name, ours in _SIZES.items():
        value = published[name]
        whole = isinstance(value, int) and not isinstance(value, bool)
        _require(whole and value >= 1, published, name, "a whole number of at least 1")
        sizes[ours] = value
    scale = published.get("cfg_scale", 0.0)
    number = isinstance(scale, (int, float)) and not isinstance(scale, bool)
    _require(number and scale >= 0, published, "cfg_scale", "a number of at least 0")
    config = OriginalConfig(**sizes, guidance_scale=float(scale))
    heads_fit = config.model_dim % config.num_heads == 0 and config.model_dim % 2 == 0
    _require(heads_fit, published, "d_model", f"even and a multiple of `n_heads` ({config.num_heads})")
    _require(config.timestep_dim % 2 == 0, published, "AdaLN_Timestep_Embed_Dim", "even")
    return config


def _require(holds: bool, published: Mapping[str, object], name: str, expected: str) -> None:
    if not holds:
        raise CheckpointError(f"config.json: `{name}` must be {expected}, but is {published.get(name)!r}.")
