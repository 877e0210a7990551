"""What is usual of a day, and what is not."""

from __future__ import annotations

import pytest

from merchant_usage.model.usual import compare, usual_of


@pytest.mark.parametrize(
    ("before", "usual"),
    [
        ([100, 100, 100, 100], 100),
        ([100, 900, 110, 90], 105),
        ([None, 3, 1, 2], 2),
        ([None, None, 3, 1], 2),
        ([None, None, None, 7], None),
        ([], None),
        ([2**62, 2**62 + 2, None, None], 2**62 + 1),
    ],
)
def test_usual_is_the_median_of_what_is_known(before: list[int | None], usual: int | None) -> None:
    assert usual_of(before) == usual


@pytest.mark.parametrize(
    ("value", "usual", "is_more", "words"),
    [
        (320, 100, True, "3.2 times the usual"),
        (200, 100, True, "2.0 times the usual"),
        (2_000_000, 100, True, "20,000 times the usual"),
        (50, 100, False, "0.5 times the usual"),
        (3, 100, False, "0.03 times the usual"),
        (1, 10**9, False, "less than 0.0001 times the usual"),
        (0, 1_000, False, "nothing, and 1,000 is usual"),
        (None, 1_000, False, "nothing, and 1,000 is usual"),
        (10, 0, True, "usually nothing"),
    ],
)
def test_a_day_beyond_the_bound_is_told(value: int | None, usual: int, *, is_more: bool, words: str) -> None:
    found = compare(value, usual)
    assert found is not None
    assert (found.is_more, found.words) == (is_more, words)
    assert found.share >= 0.5


@pytest.mark.parametrize(
    ("value", "usual"), [(199, 100), (51, 100), (100, 100), (9, 0), (1, 10), (0, 9), (500, None), (None, None)]
)
def test_a_day_within_it_or_by_chance_is_not(value: int | None, usual: int | None) -> None:
    assert compare(value, usual) is None
