"""Checks of cases recorded from Meta's two-tower model: towers, criteria with gradients, training steps, checkpoints."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from typing import Any

import torch
from cards_of_cases import load_case_model, write_normalizer_card
from fairseq2.models import ModelFamily
from fairseq2.runtime.dependency import get_dependency_resolver
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from lexalcm import load_model
from lexalcm.data.batch import ConceptBatch
from lexalcm.diffusion.objective import Draw, LossTerms, Objective, ObjectiveConfig
from lexalcm.layout import DocumentLayout
from lexalcm.models.base_lcm.config import BASE_FAMILY
from lexalcm.models.base_lcm.factory import create_base_model
from lexalcm.models.interface import TwoTowerModel
from lexalcm.models.normalizer.config import NormalizerConfig
from lexalcm.models.two_tower.factory import create_two_tower_model
from lexalcm.models.two_tower.model import TwoTowerContext, TwoTowerDiffusionLCM
from lexalcm.training.train_unit import predict_drawn


def load_two_tower(folder: Path) -> TwoTowerDiffusionLCM:
    """The model of a case, with queries placed as Meta places them."""
    model = load_case_model(folder, query_positions="meta_compatible")
    assert isinstance(model, TwoTowerDiffusionLCM)
    return model


def close(found: Tensor, expected: Tensor, rtol: float = 1e-5, atol: float | None = None) -> None:
    torch.testing.assert_close(found, expected, rtol=rtol, atol=rtol if atol is None else atol)


@torch.no_grad()
def check_encode(folder: Path, case: dict[str, Any]) -> None:
    """Padded as recorded, and packed."""
    io = load_file(folder / "io.safetensors")
    model = load_two_tower(folder)
    seqs, expected = io["in.seqs"], io["out.context"]
    batch, width = seqs.shape[:2]
    lengths = io.get("in.seq_lens", torch.full((batch,), width)).tolist()
    layout = DocumentLayout(lengths, packed=False, width=width)
    real = layout.real
    close(model.encoder_frontend(seqs, layout.positions)[real], io["out.frontend"][real])
    close(model.encode(seqs, layout).hidden[real], expected[real])
    layout = DocumentLayout(lengths)
    has_past = layout.positions > 0
    close(model.encode(seqs[real], layout).past[has_past], expected[real][:-1][has_past[1:]])


@torch.no_grad()
def check_encode_incremental(folder: Path, case: dict[str, Any]) -> None:
    io = load_file(folder / "io.safetensors")
    model = load_two_tower(folder)
    seqs = io["in.seqs"]
    batch, width = seqs.shape[:2]
    state = model.new_state()
    parts = []
    for start, stop in [(0, 3), *((i, i + 1) for i in range(3, width))]:
        layout = DocumentLayout([stop - start] * batch, packed=False)
        parts.append(model.encode(seqs[:, start:stop], layout, state).hidden)
    close(torch.cat(parts, dim=1), io["out.incremental"])
    close(model.encode(seqs, DocumentLayout([width] * batch, packed=False)).hidden, io["out.full"])


@torch.no_grad()
def check_denoise_train(folder: Path, case: dict[str, Any]) -> None:
    """Packed; without source lengths padded too."""
    io = load_file(folder / "io.safetensors")
    model = load_two_tower(folder)
    lengths = io["in.context_lens"].tolist()
    sources = io.get("in.source_lengths")
    layout = DocumentLayout(lengths, source_lengths=None if sources is None else sources.tolist())
    context_real = torch.arange(io["in.context_seqs"].size(1)) < io["in.context_lens"][:, None]
    real = io["in.noisy_valid_mask"]
    dropped = io.get("in.dropped_rows")
    context = model.encode(io["in.context_seqs"][context_real], layout)
    found = model.predict(
        io["in.noisy_seqs"][real],
        io["in.timesteps"][real],
        context,
        layout,
        dropped=None if dropped is None else dropped[real],
    )
    close(found, io["out.denoised"][real])
    if sources is None:
        padded = DocumentLayout(lengths, packed=False, width=real.size(1))
        context = model.encode(io["in.context_seqs"], padded)
        found = model.predict(io["in.noisy_seqs"], io["in.timesteps"], context, padded, dropped=dropped)
        close(found[real], io["out.denoised"][real])


@torch.no_grad()
def check_denoise_infer(folder: Path, case: dict[str, Any]) -> None:
    """The next position of each row, from an encoder output that is given."""
    io = load_file(folder / "io.safetensors")
    model = load_two_tower(folder)
    context, timesteps = io["in.context"], io["in.timesteps"]
    close(model.denoiser.embed_time(timesteps), io["out.timestep_embedding"])
    for row in range(len(context)):
        for length, expected in (
            (int(io["in.context_lens"][row]), io["out.denoised_padded"]),
            (context.size(1), io["out.denoised_unpadded"]),
        ):
            # A length of 0 means that the zero row alone is seen, which ours asks for by name.
            hidden = context[row : row + 1, : max(length, 1)]
            layout = DocumentLayout([hidden.size(1)], packed=False)
            cache = model.denoise_cache(TwoTowerContext(None, hidden, None), layout, next_only=True)
            found = model.predict_step(
                io["in.noisy_seqs"][row : row + 1], int(timesteps[row]), cache, dropped=length == 0
            )
            close(found, expected[row : row + 1])


class RecordedBatch:
    """Documents of a criterion's case, packed, with the recorded timesteps, noise and dropped rows."""

    def __init__(self, io: dict[str, Tensor], prefix: str, *, finetune: bool) -> None:
        sources = documents_of(io, f"{prefix}source")
        targets = documents_of(io, f"{prefix}target") if finetune else sources
        documents = [torch.cat(pair) for pair in zip(sources, targets)] if finetune else sources
        layout = DocumentLayout(
            [len(d) for d in documents], source_lengths=[len(s) for s in sources] if finetune else None
        )
        everywhere = torch.ones(layout.num_concepts, dtype=torch.bool)
        self.batch = ConceptBatch(torch.cat(documents), layout, everywhere, layout.num_queries)
        timesteps = io[f"{prefix}timesteps"]
        real = torch.arange(timesteps.size(1)) < torch.tensor([len(t) for t in targets])[:, None]
        dropped = io.get(f"{prefix}dropped_rows")
        dropped = None if dropped is None else dropped[real]
        self.draw = Draw(timesteps[real], io[f"{prefix}noise"][real], dropped)
        self.raw = torch.cat(targets)

    def loss(self, model: TwoTowerDiffusionLCM, objective: Objective) -> tuple[Tensor, LossTerms]:
        """The clean prediction and the loss, as training makes them."""
        return predict_drawn(model, model, objective, self.batch, self.draw)


def documents_of(io: dict[str, Tensor], prefix: str) -> list[Tensor]:
    count = sum(name.startswith(f"{prefix}.") for name in io)
    return [io[f"{prefix}.{i}"] for i in range(count)]


def objective_of(model: TwoTowerDiffusionLCM, variant: dict[str, Any]) -> Objective:
    """Ours for a criterion's options. ``reduction`` is the caller's: ours sums, and the trainer divides."""
    config = ObjectiveConfig(
        error="root_sum_square" if variant.get("compute_rmse", True) else "sum_square",
        weighting="clamp_snr_meta" if variant.get("weighting") == "clamp_snr" else "none",
        **{key: variant[key] for key in ("min_gamma", "max_gamma") if key in variant},
    )
    return Objective(config, model.schedule, model.prediction_type, model.output_form)


def check_loss(folder: Path, case: dict[str, Any], *, finetune: bool = False) -> None:
    io = load_file(folder / "io.safetensors")
    model = load_two_tower(folder).train()
    batch = RecordedBatch(io, "in.", finetune=finetune)
    for number, entry in enumerate(case["variants"]):
        variant = entry["variant"]
        model.zero_grad(set_to_none=True)
        predicted, terms = batch.loss(model, objective_of(model, variant))
        assert batch.batch.num_targets == entry["num_target_elements"]
        count = entry["num_target_elements"] if variant.get("reduction") == "mean" else 1
        loss = terms.loss_sum / count
        loss.backward()
        close(loss, io[f"out.v{number}.loss"], 1e-5)
        check_gradients(model, io, f"out.v{number}.")
        check_summands(model, batch, predicted.detach(), entry, count)


def check_gradients(model: TwoTowerModel, io: dict[str, Tensor], prefix: str) -> None:
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert {name for name, grad in gradients.items() if grad is None} <= model.inert_parameters()
    norm = torch.stack([g.norm() for g in gradients.values() if g is not None]).norm()
    close(norm, io[f"{prefix}grad_norm"], 1e-4, 1e-5)
    for name, expected in io.items():
        if name.startswith(f"{prefix}grad."):
            # Float32 sums of entries up to 100 are off by more than 1e-5, the recorded ones too (3e-5 of float64's).
            scale = max(1.0, float(expected.abs().max()))
            close(gradients[name.removeprefix(f"{prefix}grad.")], expected, 1e-4, 1e-5 * scale)


def check_summands(
    model: TwoTowerDiffusionLCM, batch: RecordedBatch, predicted: Tensor, entry: dict[str, Any], count: int
) -> None:
    """What Meta logs: the unweighted loss, whole and by timestep, and that of de-normalised concepts."""
    variant, summands = entry["variant"], entry["summands"]
    clean, timesteps = model.normalize(batch.raw), batch.draw.timesteps
    everywhere = torch.ones_like(timesteps, dtype=torch.bool)
    plain = objective_of(model, {**variant, "weighting": "none"})
    terms = plain.loss(predicted, clean, timesteps, everywhere)
    close(terms.loss_sum / count, torch.tensor(summands["mse_loss"][0]), 1e-5)
    for name, (expected, members) in summands.items():
        bucket = re.fullmatch(r"reconstruction_loss_t(\d+)-(\d+)", name)
        if bucket is None:
            continue
        # Meta's bucket of t = a..b counts (a - b, a], so that the first has t = 0 alone and the last is missing.
        first, last = (int(x) for x in bucket.groups())
        inside = (timesteps > 2 * first - last) & (timesteps <= first)
        assert int(inside.sum()) == members
        found = plain.loss(predicted, clean, timesteps, inside).loss_sum
        close(found, torch.tensor(expected), 1e-5)
    if model.prediction_type == "sample":
        # Meta de-normalises noise and velocities too, which means nothing.
        squared = (model.denormalize(predicted) - model.denormalize(clean)).square().sum(-1)
        raw = (squared + 1e-5).sqrt() if variant.get("compute_rmse", True) else squared
        close(raw.sum() / count, torch.tensor(summands["unnormalized_reconstruction_loss"][0]), 1e-4)


def check_loss_finetune(folder: Path, case: dict[str, Any]) -> None:
    check_loss(folder, case, finetune=True)


def check_train_steps(folder: Path, case: dict[str, Any]) -> None:
    """Gradients over the number of targets, clipped, AdamW, the recorded rates."""
    io = load_file(folder / "io.safetensors")
    model = load_two_tower(folder).train()
    hyper = case["hyper_parameters"]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=hyper["lr"], betas=hyper["betas"], eps=hyper["eps"], weight_decay=hyper["weight_decay"]
    )
    objective = objective_of(model, {"compute_rmse": False, "weighting": "none"})
    for number, step in enumerate(case["steps"]):
        batch = RecordedBatch(io, f"in.step{number}.", finetune=False)
        _, terms = batch.loss(model, objective)
        close(terms.loss_sum, io[f"out.step{number}.loss"], 1e-4)
        (terms.loss_sum / step["num_target_elements"]).backward()
        norm = clip_grad_norm_(model.parameters(), hyper["max_grad_norm"])
        close(norm, io[f"out.step{number}.grad_norm"], 1e-4)
        for group in optimizer.param_groups:
            group["lr"] = step["lr_used"]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    parameters = dict(model.named_parameters())
    for name, expected in io.items():
        parameter = name.removeprefix("out.param.")
        # The public case holds the parameters that training began with; its later losses are those of trained ones.
        if parameter != name and not torch.equal(expected, before[parameter]):
            close(parameters[parameter].detach(), expected, 1e-4, 2e-5)


@torch.no_grad()
def check_trainer_checkpoint(folder: Path, case: dict[str, Any]) -> None:
    """Both cards that the trainer wrote, and its folder, moved since: the paths in its cards lead nowhere."""
    io = load_file(folder / "io.safetensors")
    with TemporaryDirectory() as place:
        run = Path(place) / "moved"
        copytree(folder / "run", run)
        cards = sorted(run.rglob("model_card.yaml"))
        assert cards
        for card in cards:
            write_normalizer_card(folder, card.parent)
        models = [load_model(source) for source in (run, *cards)]
    for model in models:
        assert isinstance(model, TwoTowerDiffusionLCM)
        seqs = io["in.seqs"]
        layout = DocumentLayout([seqs.size(1)] * len(seqs), packed=False)
        context = model.encode(seqs, layout)
        close(context.hidden, io["out.context"])
        cache = model.denoise_cache(context, layout, next_only=True)
        for row, timestep in enumerate(io["in.timesteps"].flatten().tolist()):
            found = model.predict_step(io["in.noisy_seqs"], timestep, cache)
            close(found[row], io["out.denoised"][row])


def check_param_counts(counts: dict[str, Any]) -> None:
    """Each arch at full size: its configuration, names, shapes and number of parameters."""
    for arch, expected in counts["archs"].items():
        family = get_dependency_resolver().resolve(ModelFamily, key=expected["family"])
        config = family.maybe_get_arch_config(arch)
        assert config is not None, arch
        ours = asdict(config)
        assert {name: ours[name] for name in expected["config"]} == expected["config"]
        if ours["sonar_normalizer_name"] is not None:
            config.normalizer = NormalizerConfig(dim=ours["sonar_embed_dim"])
        with torch.device("meta"):
            model = create_base_model(config) if expected["family"] == BASE_FAMILY else create_two_tower_model(config)
        state = {name: list(value.shape) for name, value in model.state_dict().items()}
        assert state == expected.get("state_dict", state) and len(state) == expected["num_state_dict_keys"]
        assert sum(p.numel() for p in model.parameters()) == expected["trainable_parameters"]


KINDS = {
    "encode": check_encode,
    "encode_incremental": check_encode_incremental,
    "denoise_train": check_denoise_train,
    "denoise_infer": check_denoise_infer,
    "loss": check_loss,
    "loss_finetune": check_loss_finetune,
    "train_steps": check_train_steps,
    "trainer_checkpoint": check_trainer_checkpoint,
}
