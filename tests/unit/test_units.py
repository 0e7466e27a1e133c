"""Sizes and times as people write them, and every way to write them wrong."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyproc import Limits
from pyproc.config.units import SIZE_MAX, TIME_MAX, parse_size, parse_time, time_text
from pyproc.errors import ConfigError
from pyproc.sandbox.denial import limit_text

UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


@pytest.mark.parametrize(
    ("written", "meant"),
    [(0, 0), (64, 64), ("64 MiB", 64 << 20), ("64MiB", 64 << 20), (" 1 GiB ", 1 << 30), ("0 B", 0), ("1.5 KiB", 1536),
     ("0.1 KiB", 102), ("1024 TiB", SIZE_MAX), (SIZE_MAX, SIZE_MAX)],
)
def test_a_size_is_read(written: object, meant: int) -> None:
    size = parse_size("limits.memory", written)
    assert (size, type(size)) == (meant, int)


@pytest.mark.parametrize(
    ("written", "meant"),
    [(1, 1.0), (0.25, 0.25), ("250 ms", 0.25), ("30 s", 30.0), ("30s", 30.0), ("2 min", 120.0), ("1 h", 3600.0),
     ("90 d", 7_776_000.0), ("10 us", 1e-5), ("0.1 s", 0.1), (TIME_MAX, TIME_MAX)],
)
def test_a_time_is_read(written: object, meant: float) -> None:
    time = parse_time("pools.a.timeout", written)
    assert (time, type(time)) == (meant, float)


@given(st.floats(min_value=1e-9, max_value=TIME_MAX))
def test_a_time_that_is_written_is_read_as_the_same(seconds: float) -> None:
    assert parse_time("limits.cpu_time", time_text(seconds)) == seconds


@pytest.mark.parametrize(("seconds", "written"), [(30.0, "30 s"), (1234567.0, "1234567 s"), (0.1, "0.1 s"), (100, "100 s")])
def test_a_time_is_written_without_an_exponent(seconds: float, written: str) -> None:
    assert time_text(seconds) == written == limit_text("cpu_time", seconds)


WRONG_FOR_BOTH = [True, False, None, -1, -0.5, math.nan, math.inf, -math.inf, "", " ", "MiB", "s", "64", "-1 s", "-1 MiB",
                  "1e3 s", "1e3 B", "1_000 B", "0x10 B", "1,5 s", ".5 s", "5. s", "1 s 2 s", "1 parsec", "٣ s", "٣ B",
                  "64 MB", "64 mib", "64 KB", "1 S", "1 hours", b"1 s", [1], {"s": 1}, 10**400, -(10**400), 10**5000,
                  "9" * 5000 + " s", "9" * 5000 + " B", "9" * 40 + " d", "9" * 40 + " TiB", "1 s\x00", "1\ns\n1"]


@pytest.mark.parametrize("parse", [parse_size, parse_time])
@pytest.mark.parametrize("written", WRONG_FOR_BOTH, ids=lambda value: type(value).__name__)
def test_a_wrong_value_is_a_config_error_with_name_value_and_remedy(parse: object, written: object) -> None:
    with pytest.raises(ConfigError) as caught:
        parse("limits.it", written)  # type: ignore[operator]
    text = str(caught.value)
    assert text.startswith("limits.it is ")
    assert "write " in text
    assert len(text) < 300
    if isinstance(written, str) and len(written) < 60:
        assert repr(written) in text


@pytest.mark.parametrize("written", [0, 0.0, "0 s"])
def test_no_time_is_no_timeout(written: object) -> None:
    with pytest.raises(ConfigError, match="above 0"):
        parse_time("timeout", written)


@pytest.mark.parametrize("written", [1.0, 1.5, 1e9])
def test_a_size_that_is_a_float_is_refused_and_not_cut(written: float) -> None:
    with pytest.raises(ConfigError, match="whole"):
        parse_size("limits.memory", written)


def test_beyond_the_limit_the_limit_is_named() -> None:
    with pytest.raises(ConfigError, match="1024 TiB"):
        parse_size("limits.memory", SIZE_MAX + 1)
    with pytest.raises(ConfigError, match="ten years"):
        parse_time("timeout", "3651 d")


@given(st.integers(0, 1023), st.sampled_from(sorted(UNITS)))
def test_whole_numbers_are_exact_in_every_unit(count: int, unit: str) -> None:
    assert parse_size("it", f"{count} {unit}") == count * UNITS[unit]


@given(st.one_of(st.text(max_size=80), st.integers(), st.floats(), st.binary(max_size=8)))
def test_nothing_leads_to_another_error(written: object) -> None:
    for parse in (parse_size, parse_time):
        try:
            assert parse("it", written) >= 0
        except ConfigError as error:
            assert str(error).startswith("it is ")


@pytest.mark.parametrize("name", ["request", "response"])
def test_a_limit_of_messages_may_be_what_its_error_offers(name: str) -> None:
    for size in (64, "64 B", 1 << 31, "2 GiB"):
        assert getattr(Limits(**{name: size}), name) in (64, 1 << 31)
    for wrong in (63, (1 << 31) + 1, 0):
        with pytest.raises(ConfigError, match=rf"limits.{name} is {wrong}; write a size from 64 B to 2 GiB"):
            Limits(**{name: wrong})
