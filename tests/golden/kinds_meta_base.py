"""Checks of cases recorded from Meta's base LCM: its forward pass and its criteria with gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from cards_of_cases import load_case_model
from kinds_meta_models import check_gradients, close, documents_of
from safetensors.torch import load_file
from torch import Tensor

from lexalcm.data.batch import ConceptBatch
from lexalcm.diffusion.regression import Regression, RegressionConfig
from lexalcm.layout import DocumentLayout
from lexalcm.models.base_lcm.model import BaseLCM
from lexalcm.training.train_unit import predict_noised


def load_base(folder: Path) -> BaseLCM:
    model = load_case_model(folder)
    assert isinstance(model, BaseLCM)
    return model


@torch.no_grad()
def check_base_forward(folder: Path, case: dict[str, Any]) -> None:
    """Without padding, with it, packed; and the next concept in raw space."""
    io = load_file(folder / "io.safetensors")
    model = load_base(folder)
    seqs, lengths = io["in.seqs"], io["in.seq_lens"].tolist()
    batch, width = seqs.shape[:2]
    whole = DocumentLayout([width] * batch, packed=False)
    close(model.following(seqs, whole), io["out.forward"])
    padded = DocumentLayout(lengths, packed=False, width=width)
    real = io["in.valid_mask"]
    close(model.following(seqs, padded)[real], io["out.forward_padded"][real])
    close(model.following(seqs[real], DocumentLayout(lengths)), io["out.forward_padded"][real])
    close(model.denormalize(model.following(model.normalize(seqs), whole)), io["out.predict_next"])


def check_base_loss(folder: Path, case: dict[str, Any]) -> None:
    io = load_file(folder / "io.safetensors")
    model = load_base(folder).train()
    for number, entry in enumerate(case["variants"]):
        variant = entry["variant"]
        batch = _batch(io, supervised=variant["criterion"] == "target_mse", min_context=variant.get("min_context_size", 1))
        assert batch.num_targets == entry["num_target_elements"]
        error = "root_sum_square" if variant.get("compute_rmse", True) else "sum_square"
        model.zero_grad(set_to_none=True)
        _, _, terms = predict_noised(model, model, Regression(RegressionConfig(error=error), model.schedule), batch)
        loss = terms.loss_sum / (batch.num_targets if variant.get("reduction") == "mean" else 1)
        loss.backward()
        close(loss, io[f"out.v{number}.loss"], 1e-4, 1e-5)
        close(loss, torch.tensor(entry["summands"]["reconstruction_loss"][0]), 1e-4, 1e-5)
        check_gradients(model, io, f"out.v{number}.")


def _batch(io: dict[str, Tensor], *, supervised: bool, min_context: int) -> ConceptBatch:
    sources = documents_of(io, "in.source")
    if not supervised:
        layout = DocumentLayout([len(s) for s in sources])
        mask = layout.positions >= min_context
        return ConceptBatch(torch.cat(sources), layout, mask, int(mask.sum()))
    documents = [torch.cat(pair) for pair in zip(sources, documents_of(io, "in.target"))]
    layout = DocumentLayout([len(d) for d in documents], source_lengths=[len(s) for s in sources])
    mask = torch.zeros(layout.num_concepts, dtype=torch.bool)
    mask[layout.queries] = True
    return ConceptBatch(torch.cat(documents), layout, mask, layout.num_queries)


KINDS = {"base_forward": check_base_forward, "base_loss": check_base_loss}
