"""The text of a decoding error as a part of a sentence."""

from __future__ import annotations

import pytest

from pyproc_wire.codec import JSON, reason
from pyproc_wire.errors import RemoteProtocolError


@pytest.mark.parametrize(("text", "shown"), [
    ("JSON is malformed: invalid character (byte 0)", "JSON is malformed: invalid character (byte 0)"),
    ("Input data was truncated", "input data was truncated"),
    ("A value is missing", "a value is missing"),
    ("I", "i"), ("", "ValueError"), ("UTF-8 is expected", "UTF-8 is expected"), ("a\nb", "a\\nb"),
])  # fmt: skip
def test_only_a_word_is_decapitalised(text: str, shown: str) -> None:
    assert reason(ValueError(text)) == shown


def test_json_is_written_as_it_is() -> None:
    with pytest.raises(RemoteProtocolError, match="not valid json: JSON is malformed"):
        JSON.decode_value(b"x")
