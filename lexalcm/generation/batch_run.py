"""Continues all prompts of an input into an output."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lexalcm.generation.output import OutputFile
from lexalcm.generation.prompts import InputPrompt, left_to_do
from lexalcm.generation.text_generator import TextGenerator


def continue_into(
    output: OutputFile,
    generator: TextGenerator,
    prompts: Iterable[InputPrompt],
    *,
    on_done: Callable[[int], None] | None = None,
) -> None:
    """Continues the prompts that the output does not hold yet, writes each as it finishes, and finishes the output.

    However it is broken off, what is done is kept.

    :param output: Open.
    :param on_done: Told how many concepts each continuation has.
    """
    # JSON holds vectors only where there is nothing else to tell; parquet always does.
    with_concepts = output.path != output.journal or generator.decoder is None
    try:
        for continuation in generator.continue_prompts(left_to_do(prompts, set(output.done))):
            output.add(continuation.as_row(with_concepts=with_concepts))
            if on_done is not None:
                on_done(len(continuation.concepts))
    finally:
        output.close()
    output.finish()
