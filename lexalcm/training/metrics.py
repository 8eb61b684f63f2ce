"""The metrics of training and validation that fairseq2 does not know: names, how they are shown, which way is better.

Loss, gradient norm, elements (concepts) a second and the padding ratio are fairseq2's own.
"""

from __future__ import annotations

from typing import Final

from fairseq2.metrics.formatters import format_as_float, format_as_int, format_as_percentage
from fairseq2.metrics.recorders import MetricDescriptor
from fairseq2.runtime.dependency import DependencyContainer

from lexalcm.data.validate import BAD_ROW_KINDS

NUM_QUARTERS: Final = 4


def quarter_name(quarter: int) -> str:
    """Name of the loss over a quarter of the timesteps, 1 the least noisy."""
    return f"loss_noise_quarter_{quarter}"


def bad_rows_name(kind: str) -> str:
    """Name of the count of documents skipped over the whole run; ``kind`` is one of ``BAD_ROW_KINDS``."""
    return f"total_bad_rows_{kind}"


def _descriptors() -> list[MetricDescriptor]:
    share, number, count = format_as_percentage, format_as_float, format_as_int
    rows = [
        ("raw_l2", "L2 to Target (raw space)", 110, number, False),
        ("cosine", "Cosine to Target", 120, number, True),
        *((quarter_name(q), f"Loss in Noise Quarter {q}", 130 + q, number, False) for q in range(1, NUM_QUARTERS + 1)),
        ("one_pass_cosine", "One-pass Cosine", 140, number, True),
        ("retrieval_at_1", "Retrieval@1", 141, number, True),
        ("retrieval_at_10", "Retrieval@10", 142, number, True),
        ("retrieval_at_1_unseen", "Retrieval@1 (unseen)", 143, number, True),
        ("retrieval_at_10_unseen", "Retrieval@10 (unseen)", 144, number, True),
        ("energy_score", "Energy Score", 145, number, False),
        *((bad_rows_name(kind), f"Bad Rows ({kind.replace('_', ' ')})", 811, count, False) for kind in BAD_ROW_KINDS),
        ("total_skipped_steps", "Steps Not Taken", 812, count, False),
        ("model_tflops", "Model TFLOP/s", 820, number, True),
        ("mfu", "Model FLOPs Utilization", 821, share, True),
    ]
    return [
        MetricDescriptor(name, shown, priority, formatter, higher_better=better)
        for name, shown, priority, formatter, better in rows
    ]


def register_metric_descriptors(container: DependencyContainer) -> None:
    """Makes the metrics known to fairseq2's recorders and to ``regime.score_metric``."""
    for descriptor in _descriptors():
        container.collection.register_instance(MetricDescriptor, descriptor)
