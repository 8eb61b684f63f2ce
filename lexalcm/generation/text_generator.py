"""Text in, text out: sentences become concepts, concepts are continued, and what comes out becomes sentences again.

Shapes: T concepts of a prompt, n of its continuation, C dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch

from lexalcm.errors import ConfigError, DataError
from lexalcm.generation.generator import Ended, NewConcept, Prompt
from lexalcm.generation.output_parquet import ANY_LANGUAGE
from lexalcm.generation.prompts import InputPrompt, text_prompt
from lexalcm.text.interface import ConceptDecoder, DecodedSentence, Segmenter, SentenceEncoder


class ConceptSource(Protocol):
    """What continues concepts: :class:`lexalcm.generation.generator.ConceptGenerator`, or what stands in for it."""

    def generate(self, prompts: Iterable[Prompt]) -> Iterator[NewConcept | Ended]: ...


@dataclass(frozen=True)
class NewSentence:
    """One concept of a continuation, as it comes."""

    number: int
    """From 0."""

    concept: np.ndarray
    """Raw float32 ``[C]``."""

    texts: Mapping[str, DecodedSentence]
    """By language; empty where there is no decoder."""


@dataclass(frozen=True)
class Continuation:
    """What came of a prompt."""

    prompt: InputPrompt
    """With its sentences, where they were made of its text."""

    concepts: np.ndarray
    """Raw float32 ``[n, C]``."""

    ended: Ended

    texts: Mapping[str, Sequence[DecodedSentence]] = field(default_factory=dict)
    """By language; empty where there is no decoder."""

    def as_row(self, *, with_concepts: bool) -> dict[str, Any]:
        """As plain data, to be written."""
        row: dict[str, Any] = {
            "id": self.prompt.id,
            "index": self.prompt.index,
            "digest": self.prompt.digest,
            "lang": self.prompt.lang,
            "prompt": None if self.prompt.sentences is None else list(self.prompt.sentences),
            "continuation": {lang: [s.text for s in sentences] for lang, sentences in self.texts.items()},
        }
        cosines = {lang: [s.cosine for s in sentences] for lang, sentences in self.texts.items()}
        if any(cosine is not None for found in cosines.values() for cosine in found):
            row["cosine"] = {lang: [c if c is None else round(c, 4) for c in found] for lang, found in cosines.items()}
        row |= {"reason": self.ended.reason, "detail": self.ended.detail, "num_concepts": len(self.concepts)}
        if with_concepts:
            row["concept_dim"] = self.concepts.shape[1]
            # By way of text, so that a float32 is written with the digits it has.
            row["concepts"] = [[float(x) for x in concept] for concept in self.concepts.astype(str)]
        return row


class TextGenerator:
    """Continues texts.

    >>> generator = load_generator("my_model")  # doctest: +SKIP
    >>> for sentence in generator.stream("It rained all night. The river rose."):  # doctest: +SKIP
    ...     print(sentence)
    """

    def __init__(
        self,
        concepts: ConceptSource,
        *,
        concept_dim: int,
        segmenter: Segmenter | None = None,
        encoder: SentenceEncoder | None = None,
        decoder: ConceptDecoder | None = None,
        lang: str | None = None,
        target_langs: Sequence[str] | None = (),
        read_ahead: int = 8,
    ) -> None:
        """
        :param segmenter: Needed for texts; lists of sentences do without.
        :param encoder: Needed for whatever is not concepts already.
        :param decoder: Without it, concepts come out.
        :param lang: Of prompts that name none.
        :param target_langs: What is written of each continuation; empty: the prompt's own language; ``None``: the
            decoder knows one language only.
        :param read_ahead: How many prompts are encoded at a time.
        :raises ConfigError: The encoder's concepts are not of the model's width.
        """
        if encoder is not None and encoder.dim != concept_dim:
            raise ConfigError(
                f"The encoder {encoder.name} makes concepts of {encoder.dim} dimensions, but the model's have "
                f"{concept_dim}.\nEncode with what the model was trained on."
            )
        self.concepts = concepts
        self.concept_dim = concept_dim
        self.segmenter = segmenter
        self.encoder = encoder
        self.decoder = decoder
        self.lang = lang
        self.target_langs = target_langs
        self._read_ahead = max(read_ahead, 1)

    def stream(self, text: str, *, lang: str | None = None, target_lang: str | None = None) -> Iterator[str]:
        """Yields the sentences of a continuation as they come.

        :param lang: Of the text; by default the generator's.
        :param target_lang: To write; by default the first of the generator's.
        :raises DataError: There is no sentence in the text.
        :raises ConfigError: There is no decoder, or a language is not known.
        """
        if self.decoder is None:
            raise ConfigError("There is no decoder to write sentences with. Take `follow`, which yields concepts.")
        if target_lang is not None and self.target_langs is None:
            raise ConfigError(f"The decoder {self.decoder.name} knows one language: leave `target_lang` out.")
        target_langs = (
            None if self.target_langs is None else (self.target_langs[:1] if target_lang is None else [target_lang])
        )
        for event in self.follow(text_prompt(text, lang=lang), target_langs=target_langs):
            if isinstance(event, NewSentence):
                yield next(iter(event.texts.values())).text

    def follow(
        self, prompt: InputPrompt, *, target_langs: Sequence[str] | None = None
    ) -> Iterator[NewSentence | Ended]:
        """Yields each concept of a continuation as it comes, with its text, and at last why there are no more.

        :param target_langs: By default the generator's.
        """
        target_langs = self.target_langs if target_langs is None else target_langs
        for prepared, event in self._events([prompt]):
            if isinstance(event, Ended):
                yield event
                continue
            concept = event.concept.numpy()
            texts = self._decode(concept[None], prepared, target_langs)
            yield NewSentence(event.number, concept, {lang: sentences[0] for lang, sentences in texts.items()})

    def continue_text(self, text: str, *, lang: str | None = None) -> Continuation:
        """The whole continuation of a text; errors as in :meth:`stream`."""
        return next(self.continue_prompts([text_prompt(text, lang=lang)]))

    def continue_prompts(self, prompts: Iterable[InputPrompt]) -> Iterator[Continuation]:
        """Continues many prompts in batches and yields each as it finishes, which is not their order.

        Prompts are taken from the iterable as there is room for them.

        :raises DataError: A prompt has no sentence, or concepts of another width than the model's.
        """
        unfinished: dict[int, list[np.ndarray]] = {}
        for prepared, event in self._events(prompts):
            made = unfinished.setdefault(event.prompt, [])
            if isinstance(event, NewConcept):
                made.append(event.concept.numpy())
                continue
            del unfinished[event.prompt]
            concepts = np.stack(made) if made else np.zeros((0, self.concept_dim), np.float32)
            texts = self._decode(concepts, prepared, self.target_langs)
            yield Continuation(prepared, concepts, event, texts)

    def check_width(self, width: int, where: str) -> None:
        """:raises DataError: The concepts given are not of the model's width."""
        if width != self.concept_dim:
            raise DataError(
                f"{where}: its concepts have {width} dimensions, but the model's have {self.concept_dim}.\n"
                f"Encode them with what the model was trained on."
            )

    def _events(self, prompts: Iterable[InputPrompt]) -> Iterator[tuple[InputPrompt, NewConcept | Ended]]:
        entered: dict[int, InputPrompt] = {}

        def enter() -> Iterator[Prompt]:
            for number, prompt in enumerate(self._encoded(prompts)):
                assert prompt.concepts is not None
                concepts = torch.from_numpy(prompt.concepts)
                # What was encoded is not needed twice; what was said is.
                entered[number] = replace(prompt, concepts=None)
                yield Prompt(concepts, key=prompt.key, where=prompt.where)

        for event in self.concepts.generate(enter()):
            yield entered[event.prompt], event
            if isinstance(event, Ended):
                del entered[event.prompt]

    def _encoded(self, prompts: Iterable[InputPrompt]) -> Iterator[InputPrompt]:
        """The prompts in order, with concepts of the model's width; languages are encoded apart."""
        waiting = iter(prompts)
        while chunk := [self._split(prompt) for prompt in islice(waiting, self._read_ahead)]:
            found: dict[int, np.ndarray] = {}
            for lang in dict.fromkeys(prompt.lang for prompt in chunk if prompt.concepts is None):
                same = [i for i, prompt in enumerate(chunk) if prompt.concepts is None and prompt.lang == lang]
                # As `prepare` encodes them: without the white space that may stand around.
                sentences = [sentence.strip() for i in same for sentence in chunk[i].sentences or ()]
                ends = np.cumsum([len(chunk[i].sentences or ()) for i in same])
                found |= zip(same, np.split(self._encode(sentences, lang), ends[:-1]))
            for i, prompt in enumerate(chunk):
                concepts = found.get(i, prompt.concepts)
                assert concepts is not None
                self.check_width(concepts.shape[1], prompt.where)
                yield replace(prompt, concepts=concepts)

    def _split(self, prompt: InputPrompt) -> InputPrompt:
        prompt = replace(prompt, lang=prompt.lang or self.lang)
        if prompt.concepts is not None or prompt.sentences is not None:
            return prompt
        if self.segmenter is None:
            raise ConfigError("There is no segmenter to split a text with. Give sentences, or name one.")
        sentences = tuple(self.segmenter.split(prompt.text or "", prompt.lang or self.lang))
        if not sentences:
            raise DataError(f"{prompt.where}: the segmenter {self.segmenter.name} finds no sentence in it.")
        return replace(prompt, sentences=sentences)

    def _encode(self, sentences: list[str], lang: str | None) -> np.ndarray:
        if self.encoder is None:
            raise ConfigError("There is no encoder to make concepts of sentences with. Give concepts, or name one.")
        concepts = self.encoder.encode(sentences, lang)
        return np.ascontiguousarray(concepts, dtype=np.float32)

    def _decode(
        self, concepts: np.ndarray, prompt: InputPrompt, target_langs: Sequence[str] | None
    ) -> dict[str, list[DecodedSentence]]:
        if self.decoder is None:
            return {}
        if target_langs is None:
            return {ANY_LANGUAGE: self._written(concepts, None)}
        langs = list(target_langs) or [prompt.lang]
        return {lang or ANY_LANGUAGE: self._written(concepts, lang) for lang in langs}

    def _written(self, concepts: np.ndarray, lang: str | None) -> list[DecodedSentence]:
        assert self.decoder is not None
        return self.decoder.decode(concepts, lang) if len(concepts) else []
