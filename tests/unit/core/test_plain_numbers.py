"""Numbers that people and strangers write: what is read is what stands there."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.plain_numbers import LONGEST, decimal, is_count, whole, written

MOST = 10**LONGEST - 1

FOREIGN = (
    "2_0",
    " 2",
    "2 ",
    "+2",
    "2\n",
    "",
    "-",
    "٣",
    "\uff12",
    "²",
    "0x2",
    "1e3",
    "inf",
    "nan",
    "1,5",
)
"""Some of what `int`, `float` or `isdigit` take for a number."""


@given(st.integers(-MOST, MOST))
def test_a_number_in_digits_is_read(number):
    assert whole(str(number)) == number
    assert decimal(str(number)) == float(number)
    assert is_count(str(number)) == (number >= 0)


@given(st.decimals(-(10**9), 10**9, allow_nan=False, places=3))
def test_a_number_with_a_point_is_read(number):
    assert decimal(f"{number:f}") == float(number)


@pytest.mark.parametrize(("text", "number"), [(".5", 0.5), ("5.", 5.0), ("0.50", 0.5)])
def test_a_point_may_stand_at_an_end(text, number):
    assert decimal(text) == number


@pytest.mark.parametrize("text", FOREIGN)
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match=r"digits alone, such as 20$"):
        whole(text)
    with pytest.raises(ValueError, match="one point at most"):
        decimal(text)
    assert not is_count(text)


@given(st.text())
def test_no_text_is_read_as_another_number(text):
    try:
        read = whole(text)
    except ValueError:
        return
    assert int(text) == read
    assert text.lstrip("-").lstrip("0") == str(abs(read)).lstrip("0")


def test_a_number_of_any_length_is_no_traceback():
    assert not is_count("9" * 5000)
    with pytest.raises(ValueError, match="digits"):
        whole("9" * 5000)
    assert math.isfinite(decimal("9" * LONGEST))


@given(
    st.from_regex(r"[0-9]{1,9}(\.[0-9]{0,19})?", fullmatch=True).filter(str.isascii)
    | st.sampled_from(["0.00001", "0.0000000000000000001", "999999999.9999999999999999999"])
)
def test_what_was_read_is_written_so_that_it_is_read_again(text):
    number = decimal(text)
    assert decimal(written(number)) == number
