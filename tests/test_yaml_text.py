"""YAML from strangers is plain data of a card's size, or an error of one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lexalcm.yaml_text import MOST_CHARACTERS, parse_yaml, read_yaml


def unfolding(levels: int, line: str) -> str:
    """A text in which each line names the one before ten times."""
    lines = [f"a{i}: &a{i} " + line.format(", ".join([f"*a{i - 1}"] * 10)) for i in range(1, levels)]
    return "\n".join(["a0: &a0 {x: 1}", *lines])


def test_plain_data_with_aliases_and_merges_comes_back() -> None:
    text = 'a: &x {b: 1e-3, c: off}\nd: {<<: *x, e: [*x, "two\\nlines", 2024-05-01]}\n---\n---\nf: !!str 4\n'
    first, second = parse_yaml(text)
    assert first["a"] == {"b": 0.001, "c": "off"} and first["d"]["b"] == 0.001
    assert first["d"]["e"][:2] == [first["a"], "two\nlines"] and second == {"f": "4"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: !!python/object/apply:os.system ['touch owned']", "tag !!python/object/apply:os.system would build"),
        ("a: !!python/name:os.system", "tag !!python/name:os.system"),
        ("a: !mine {b: 1}", "tag !mine"),
        ("a: !!binary aGk=", "tag !!binary"),
        ("a: !!set {b}", "tag !!set"),
        ("a: !!bool maybe", "'maybe' is not a value of its tag"),
        ("? [a, b]\n: 1", "line 1: a key must be written out"),
        ("a: &k [1]\n*k : 2", "line 2: a key must be written out"),
        ("a: &a [1, *a]", "a stands within what it names"),
        (unfolding(12, "[{}]"), "unfolds to more than 50,000 values"),
        (unfolding(12, "{{<<: [{}]}}"), "unfolds to more than 50,000 values"),
        ("a: " + "[" * 500 + "]" * 500, "more than 64 levels deep"),
        ("".join(" " * i + "a:\n" for i in range(500)), "more than 64 levels deep"),
        ('a: "\\e[31m"', r"control character '\x1b'"),
        ('a: "\\ud800"', r"control character '\ud800'"),
        ("a: " + "9" * 5000, "4300"),
        ("a: 1\na: 2", "duplicate key"),
        ("a: " + "x" * MOST_CHARACTERS, "more than 1,048,576 characters"),
    ],
)
def test_what_is_more_than_plain_data_is_an_error_of_one_line(text: str, told: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_yaml(text)
    assert told in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "card.yaml")
    with pytest.raises(ValueError, match="not a regular file"):
        read_yaml(tmp_path / "card.yaml")
