"""Continues documents concept by concept: many at once, each at its own pace, with nothing of the past computed twice.

Every document in the batch gets its next concept in the same passes of the denoiser. One that is done leaves, and the
next waiting prompt enters, so that the batch stays full.

Shapes: T concepts of a prompt, B documents in the batch, C dimensions of a concept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Final

import torch
from fairseq2.logging import log
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lexalcm.diffusion.samplers import Sampler, SamplingError
from lexalcm.errors import ConfigError, DataError
from lexalcm.generation.config import GenerationConfig
from lexalcm.generation.draw import draw_concepts
from lexalcm.generation.noise import NoiseSource, SeededNoise
from lexalcm.generation.stop_rules import SpecialVectors, Stop, StopReason, StopRules
from lexalcm.layout import DocumentLayout
from lexalcm.models.interface import GrowingDocuments, TwoTowerModel
from lexalcm.models.layers.denoiser_passes import DenoiserPasses
from lexalcm.models.layers.document_state import DocumentState
from lexalcm.models.layers.graphed_passes import GraphedPasses

_TOLD: Final = 4
"""Documents that a message names."""


@dataclass(frozen=True)
class Prompt:
    """What is to be continued."""

    concepts: Tensor
    """Raw ``[T, C]``, T at least 1, any float type; without special concepts."""

    key: str = ""
    """What its noise depends on, beside the seed."""

    where: str = ""
    """Its place in the input, for messages."""


@dataclass(frozen=True)
class NewConcept:
    """A document has one concept more."""

    prompt: int
    """Number of the prompt, from 0."""

    number: int
    """Number of the concept behind the prompt, from 0."""

    concept: Tensor
    """Raw ``[C]``, float32, on the CPU."""


@dataclass(frozen=True)
class Ended:
    """A document is done."""

    prompt: int
    """Number of the prompt, from 0."""

    reason: StopReason

    num_concepts: int
    """How many concepts it got."""

    cosine: float | None
    """What fired the rule: the cosine to the end concept, or to the earlier one."""

    detail: str
    """The reason in words."""


@dataclass
class _Document:
    """A document in the batch."""

    prompt: int
    history: Tensor
    """Raw ``[n, C]`` on the CPU: what the stop rules look back at."""
    where: str

    num_generated: int = 0


@dataclass
class _Batch:
    """Documents, and their rows in the model's state."""

    state: GrowingDocuments
    documents: list[_Document] = field(default_factory=list)


class ConceptGenerator:
    """A model, a sampler and stop rules. It may be used again; weights must not change in between."""

    def __init__(
        self,
        model: TwoTowerModel,
        sampler: Sampler,
        config: GenerationConfig,
        *,
        special: SpecialVectors | None = None,
    ) -> None:
        """
        :param model: Is put into evaluation mode.
        :raises ConfigError: Settings that do not go with each other or with the model.
        """
        config.check()
        self.special = SpecialVectors() if special is None else special
        self.special.check(model.concept_dim)
        if config.temperature > 0.0 and not model.predicts_directly:
            raise ConfigError(
                f"`temperature` adds noise to what a base model predicts; a {type(model).__name__} samples by itself. "
                "Set it to 0; `sampler.initial_noise_scale` is what varies its results."
            )
        self.model = model.eval()
        self.sampler = sampler
        self.config = config
        first = next(chain(model.parameters(), model.buffers()))
        self.device, self._dtype = first.device, first.dtype
        if config.cuda_graphs and self.device.type != "cuda":
            raise ConfigError(f"`cuda_graphs` needs a model on a CUDA device, but this one is on {self.device}.")
        self._uses_graphs = self.device.type == "cuda" if config.cuda_graphs is None else config.cuda_graphs
        self._room = self._room_for_prompts()
        timesteps = getattr(sampler, "timesteps", None)
        self._timesteps = [] if timesteps is None or model.predicts_directly else timesteps(model.schedule)
        self._rules = StopRules(config, self.special)
        self._root: GrowingDocuments | None = None

    @property
    def num_passes(self) -> int | None:
        """Passes of the denoiser for a concept, those without context not counted; ``None`` where a sampler of another
        package does not say."""
        return 1 if self.model.predicts_directly else len(self._timesteps) or None

    def generate(self, prompts: Iterable[Prompt], *, noise: NoiseSource | None = None) -> Iterator[NewConcept | Ended]:
        """Continues prompts, which are taken from the iterable when there is room for them. The documents of a batch
        take turns; the concepts of one come in order, followed by its end.

        :param noise: By default seeded by the configuration's seed and each prompt's key.
        :raises DataError: A prompt is empty, of another width, or not finite.
        :raises SamplingError: Latents became infinite or NaN.
        """
        noise = SeededNoise(self.config.seed, self.model.concept_dim) if noise is None else noise
        if self._root is None:
            self._root = self._new_state()
            log.info("Generation - {} pass(es) of the denoiser a sentence.", self.num_passes or "an unknown number of")
        waiting = enumerate(prompts)
        batch = _Batch(self._root.fork())
        while True:
            new = list(islice(waiting, self.config.batch_size - len(batch.documents)))
            if new:
                self._enter(batch, new)
                for number, prompt in new:
                    noise.enter(number, prompt.key)
            if not batch.documents:
                return
            yield from self._advance(batch, noise)

    def _new_state(self) -> GrowingDocuments:
        with self._inference():
            state = self.model.new_state(self._timesteps)
        if self._uses_graphs and isinstance(state, DocumentState) and isinstance(state.tables, DenoiserPasses):
            state.tables = GraphedPasses(state.tables)
        return state

    def _enter(self, batch: _Batch, prompts: Sequence[tuple[int, Prompt]]) -> None:
        """Encodes prompts and adds them to the batch."""
        documents = []
        for number, prompt in prompts:
            where = prompt.where or f"Prompt {number + 1}"
            concepts = self._shortened(where, self._checked(where, prompt))
            batch.documents.append(_Document(number, concepts, where))
            around = (self.special.start, concepts, self.special.behind)
            documents.append(
                torch.cat([part.reshape(-1, part.size(-1)).float() for part in around if part is not None])
            )
        state = batch.state.fork()
        self._encode(state, pad_sequence(documents, batch_first=True), [len(document) for document in documents])
        batch.state.join(state)

    def _encode(self, state: GrowingDocuments, raw: Tensor, lengths: Sequence[int]) -> None:
        """Reads raw concepts ``[B, n, C]``, of which the first ``lengths`` of each row are real, into a state."""
        layout = DocumentLayout(lengths, packed=False)
        layout.to(self.device)
        with self._inference():
            self.model.encode(self.model.normalize(raw.to(self.device)), layout, state)

    def _shortened(self, where: str, concepts: Tensor) -> Tensor:
        """Cuts what a prompt has too many concepts at its start."""
        if self._room is None or len(concepts) <= self._room:
            return concepts
        log.warning(
            "{} has {} sentences; its last {} are read, so that {} more have room in the model's {}.",
            where,
            len(concepts),
            self._room,
            self.config.max_sentences,
            self.model.max_document_len,
        )
        return concepts[-self._room :]

    def _advance(self, batch: _Batch, noise: NoiseSource) -> Iterator[NewConcept | Ended]:
        """Gives every document of the batch one concept, and lets those leave that are done."""
        try:
            raw = self._draw(batch, noise)
        except SamplingError as ex:
            told = [f"row {row} is {d.where}" for row, d in enumerate(batch.documents, start=1)]
            more = f", and {len(told) - _TOLD} more" if len(told) > _TOLD else ""
            raise SamplingError(f"{ex}\nIn the batch, {', '.join(told[:_TOLD])}{more}.") from ex
        seen = raw[:, 0].float().cpu()
        going = []
        for row, document in enumerate(batch.documents):
            stop = self._rules.check(seen[row], document.history, document.num_generated)
            if stop is None or stop.reason == "max_sentences" or self.config.include_stop:
                yield NewConcept(document.prompt, document.num_generated, seen[row])
                document.num_generated += 1
            if stop is None:
                document.history = torch.cat([document.history, seen[row : row + 1]])
                going.append(row)
            else:
                noise.leave(document.prompt)
                yield _ended(document, stop)
        if len(going) < len(batch.documents):
            batch.documents = [batch.documents[row] for row in going]
            if not going:
                batch.state = batch.state.fork()
                return
            batch.state.select(going, self.device)
            raw = raw[going]
        self._encode(batch.state, raw, [1] * len(raw))

    def _draw(self, batch: _Batch, noise: NoiseSource) -> Tensor:
        """Draws the next concept of every document: raw ``[B, 1, C]``."""
        numbers = [document.prompt for document in batch.documents]

        def gathered(draw: str) -> Tensor:
            return torch.stack([getattr(noise, draw)(number) for number in numbers]).unsqueeze(1).to(self.device)

        model = self.model
        with self._inference():
            cache = model.next_cache(batch.state)
            if model.predicts_directly:
                clean = model.denoise_step(torch.zeros_like(cache), model.schedule.last_timestep, cache)
                if self.config.temperature > 0.0:
                    clean = clean + self.config.temperature * gathered("latents")
                if not torch.isfinite(clean).all():
                    raise SamplingError("The model's prediction is not finite: its weights are wrong.")
                return model.denormalize(clean)
            clean = draw_concepts(
                model,
                cache,
                gathered("latents"),
                self.sampler,
                next_only=True,
                variance_noise=lambda number: gathered("variance"),
            )
            return model.denormalize(clean)

    def _checked(self, where: str, prompt: Prompt) -> Tensor:
        concepts = prompt.concepts.float().cpu()
        if concepts.dim() != 2 or concepts.size(1) != self.model.concept_dim:
            raise DataError(
                f"{where} has the shape {list(concepts.shape)}, but the model's concepts are {self.model.concept_dim} "
                f"wide: [sentences, {self.model.concept_dim}] is needed. Encode it as the model's training data was."
            )
        if not len(concepts):
            raise DataError(f"{where} is empty: at least one sentence is needed.")
        bad = (~torch.isfinite(concepts).all(dim=1)).nonzero().flatten().tolist()
        if bad:
            raise DataError(f"{where}: the concept of sentence {bad[0] + 1} of {len(concepts)} is infinite or NaN.")
        return concepts

    def _room_for_prompts(self) -> int | None:
        """How many sentences of a prompt the model has positions for; ``None``: any."""
        longest = self.model.max_document_len
        if longest is None:
            return None
        longest -= sum(vector is not None for vector in (self.special.start, self.special.behind))
        room = longest - self.config.max_sentences
        if room < 1:
            raise ConfigError(
                f"`max_sentences` ({self.config.max_sentences}) leaves no room for a prompt in the model's "
                f"{self.model.max_document_len} positions. The most is {longest - 1}."
            )
        return room

    @contextmanager
    def _inference(self) -> Iterator[None]:
        # Weights in half precision need autocast around them, for the parts that stay in float32.
        half = self._dtype in (torch.bfloat16, torch.float16)
        dtype = self._dtype if half else torch.bfloat16
        with torch.inference_mode(), torch.autocast(self.device.type, dtype=dtype, enabled=half):
            yield


def _ended(document: _Document, stop: Stop) -> Ended:
    return Ended(document.prompt, stop.reason, document.num_generated, stop.cosine, stop.detail)
