"""A stream that several readers take side by side: each gets all of it, and what all have read is let go."""

from __future__ import annotations

import weakref
from itertools import count, islice

from merchant_usage.model.pages import branches


class Item:
    """Something that can be seen to be gone."""


def test_each_gets_everything_in_order_however_far_apart_they_are() -> None:
    ahead, behind, last = branches(iter("pages"), 3)
    assert list(islice(ahead, 4)) == list("page")
    assert list(behind) == list("pages")
    assert list(ahead) == ["s"]
    assert list(last) == list("pages")


def test_the_stream_goes_no_further_than_the_first_of_them() -> None:
    numbers = count()
    one, _ = branches(numbers, 2)
    assert list(islice(one, 3)) == [0, 1, 2]
    assert next(numbers) == 3


def test_what_all_have_read_is_let_go() -> None:
    made: weakref.WeakSet[Item] = weakref.WeakSet()

    def make() -> Item:
        item = Item()
        made.add(item)
        return item

    one, other = branches((make() for _ in range(50)), 2)
    for _ in range(20):
        next(one)
        next(other)
    # What a reader took last may still be in its hands.
    assert len(made) <= 2
