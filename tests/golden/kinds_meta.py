"""All checks of cases recorded from Meta's release, and what is left for later."""

from __future__ import annotations

import kinds_meta_base
import kinds_meta_data
import kinds_meta_diffusion
import kinds_meta_models
import kinds_meta_small

KINDS = {
    **kinds_meta_diffusion.KINDS,
    **kinds_meta_models.KINDS,
    **kinds_meta_base.KINDS,
    **kinds_meta_data.KINDS,
    **kinds_meta_small.KINDS,
}

LATER = dict.fromkeys(
    ("generate", "score", "base_generate", "base_score"), "Meta's generation loop and options are an issue of their own"
)
