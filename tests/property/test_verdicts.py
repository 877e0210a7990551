"""What must hold of the verdict on a key whatever the numbers: more evidence never makes a worse case look better."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from merchant_usage.model.verdict import Verdict, judge
from merchant_usage.source.counters import MAX_VALUE

# Small numbers meet each other; large ones overflow what is not careful.
numbers = st.one_of(st.integers(0, 5), st.integers(0, MAX_VALUE))
maybe = st.one_of(st.none(), numbers)


@given(stored=maybe, read=maybe, now=maybe)
def test_settled_is_never_milder_than_live(stored: int | None, read: int | None, now: int | None) -> None:
    live = judge(stored=stored, carried=0, read=read, now=now, settled=False)
    settled = judge(stored=stored, carried=0, read=read, now=now, settled=True)
    assert settled is live or (live is Verdict.GROWING and settled.fails)
    assert settled is not Verdict.GROWING


@given(stored=numbers, now=numbers, read=maybe)
def test_settled_dates_match_by_equality_only(stored: int, now: int, read: int | None) -> None:
    verdict = judge(stored=stored, carried=0, read=read, now=now, settled=True)
    if verdict is Verdict.MATCH:
        assert stored == now
    if stored != now:
        assert verdict in {Verdict.BEHIND, Verdict.REGRESSED}


@given(read=numbers, stored=numbers, now=numbers)
def test_live_dates_pass_exactly_between_the_two_readings(read: int, stored: int, now: int) -> None:
    verdict = judge(stored=stored, carried=0, read=read, now=now, settled=False)
    assert (verdict in {Verdict.MATCH, Verdict.GROWING}) == (read <= stored <= now)


@given(read=numbers, stored=numbers, now=numbers, growth=numbers, settled=st.booleans())
def test_growth_of_redis_alone_never_fails_a_live_date(
    read: int, stored: int, now: int, growth: int, settled: bool
) -> None:
    before = judge(stored=stored, carried=0, read=read, now=now, settled=settled)
    after = judge(stored=stored, carried=0, read=read, now=now + growth, settled=settled)
    if not settled and not before.fails:
        assert not after.fails
    if settled and growth and before is Verdict.MATCH:
        assert after is Verdict.BEHIND


@given(stored=numbers, lost=st.integers(1, MAX_VALUE), read=numbers, now=maybe, settled=st.booleans())
def test_lowering_what_is_stored_below_the_reading_always_fails(
    stored: int, lost: int, read: int, now: int | None, settled: bool
) -> None:
    assume(stored >= read and stored - lost < read)
    assert judge(stored=stored - lost, carried=0, read=read, now=now, settled=settled) is Verdict.BEHIND


@given(read=maybe, now=maybe, settled=st.booleans(), carried=numbers)
def test_no_row_fails_unless_the_key_is_younger_than_the_reading(
    read: int | None, now: int | None, settled: bool, carried: int
) -> None:
    verdict = judge(stored=None, carried=carried, read=read, now=now, settled=settled)
    young = read is None and now is not None and not settled
    assert verdict is (Verdict.GROWING if young else Verdict.MISSING)


@given(stored=numbers, carried=numbers, read=maybe, now=maybe, settled=st.booleans())
def test_what_is_carried_shifts_everything_alike(
    stored: int, carried: int, read: int | None, now: int | None, settled: bool
) -> None:
    at_least = None if read is None else read + carried
    assert judge(stored=stored + carried, carried=carried, read=at_least, now=now, settled=settled) is judge(
        stored=stored, carried=0, read=read, now=now, settled=settled
    )


@given(stored=numbers, now=numbers, accepted_from=maybe, settled=st.booleans())
def test_a_decision_excuses_only_what_stands_above_where_it_was_made(
    stored: int, now: int, accepted_from: int | None, settled: bool
) -> None:
    plain = judge(stored=stored, carried=0, read=None, now=now, settled=settled)
    decided = judge(stored=stored, carried=0, read=None, now=now, settled=settled, accepted_from=accepted_from)
    if plain is Verdict.REGRESSED and accepted_from is not None and now >= accepted_from:
        assert decided is Verdict.MATCH
    else:
        assert decided is plain
