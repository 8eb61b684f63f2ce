"""All checks of cases recorded from Meta's release."""

from __future__ import annotations

import kinds_meta_base
import kinds_meta_data
import kinds_meta_diffusion
import kinds_meta_generation
import kinds_meta_models
import kinds_meta_small

KINDS = {
    **kinds_meta_diffusion.KINDS,
    **kinds_meta_models.KINDS,
    **kinds_meta_base.KINDS,
    **kinds_meta_data.KINDS,
    **kinds_meta_small.KINDS,
    **kinds_meta_generation.KINDS,
}
