"""Every option of the decoder is honoured or refused, and recorded."""

from __future__ import annotations

from typing import Any

import pytest

from lexalcm.errors import ConfigError
from lexalcm.text.decoder_options import DecoderOptions, read_decoder_options


def test_text_of_a_command_line_is_read_as_numbers() -> None:
    read = read_decoder_options({"beam_size": "3", "temperature": "0.5", "max_length": "40"})
    assert read == DecoderOptions(beam_size=3, temperature=0.5, max_length=40)


def test_what_is_recorded_is_what_has_an_effect() -> None:
    common = {"temperature": 1.0, "unk_penalty": 0.0, "min_length": 1, "max_length": None}
    assert read_decoder_options({"seed": 7}).used() == {
        "method": "beam_search", "beam_size": 5, "len_penalty": 1.0, **common
    }  # fmt: skip
    assert read_decoder_options({"top_p": 0.9}).used() == {"method": "top_p", "top_p": 0.9, "seed": 0, **common}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"beamsize": 1}, '"beamsize" is not a known decoder option. Did you mean "beam_size"'),
        ({"max_seq_len": 9}, "`max_seq_len` is called `max_length` here"),
        ({"beam_size": "many"}, "`beam_size` must be a whole number, but is 'many'"),
        ({"beam_size": 2.5}, "must be a whole number, but is 2.5"),
        ({"beam_size": True}, "must be a whole number, but is True"),
        ({"beam_size": 0}, "must be at least 1 and at most 1000, but is 0"),
        ({"top_p": 0}, "must be above 0 and at most 1, but is 0"),
        ({"top_p": "1.01"}, "must be above 0 and at most 1, but is '1.01'"),
        ({"temperature": 0.0}, "must be above 0, but is 0.0"),
        ({"temperature": "nan"}, "must be a number, but is 'nan'"),
        ({"len_penalty": "inf"}, "must be a number, but is 'inf'"),
        ({"top_p": 0.9, "beam_size": 2}, "`beam_size` belongs to beam search, but `top_p` asks for sampling"),
        ({"min_length": 9, "max_length": 8}, "`min_length` is 9, more than `max_length`, 8"),
    ],
)
def test_an_option_that_cannot_be_honoured_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_decoder_options(given)
