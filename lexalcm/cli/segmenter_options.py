"""The options of commands that split text into sentences."""

from __future__ import annotations

from argparse import _ArgumentGroup


def add_segmenter_options(group: _ArgumentGroup) -> None:
    group.add_argument(
        "--segmenter",
        metavar="NAME",
        help="sat; another SaT such as sat-12l-sm; rules, which needs no model; punctuation; newline (default: sat)",
    )
    group.add_argument("--segmenter-path", metavar="DIR", help="folder of SaT's model, to do without a network")
    group.add_argument("--segmenter-backend", metavar="NAME", help="of SaT: torch or onnx (default: torch)")
    group.add_argument(
        "--segmenter-threshold", metavar="P", type=float, help="SaT's probability of an end (default: the model's)"
    )
    group.add_argument(
        "--segment-length", metavar="N", type=int, help="characters of a sentence at most (default: 250)"
    )
    group.add_argument(
        "--newlines",
        metavar="NAME",
        help="where a sentence ends too: line, at each line break; paragraph, at each empty line; ignore (default: line)",
    )
