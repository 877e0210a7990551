"""The verdict on one key: every case there is, written out."""

from __future__ import annotations

import pytest

from merchant_usage.model.verdict import Verdict, judge

MATCH, GROWING, MISSING = Verdict.MATCH, Verdict.GROWING, Verdict.MISSING
BEHIND, REGRESSED, EXPIRED = Verdict.BEHIND, Verdict.REGRESSED, Verdict.EXPIRED


@pytest.mark.parametrize(
    ("stored", "read", "now", "on_settled", "on_live"),
    [
        pytest.param(None, None, None, MISSING, MISSING, id="found by the scan, never stored, gone"),
        pytest.param(None, None, 5, MISSING, GROWING, id="new in Redis since the scan"),
        pytest.param(None, None, 0, MISSING, GROWING, id="new in Redis, zero"),
        pytest.param(None, 5, 5, MISSING, MISSING, id="read, but not stored"),
        pytest.param(None, 5, None, MISSING, MISSING, id="read, not stored, gone now"),
        pytest.param(None, 0, None, MISSING, MISSING, id="zero read, not stored"),
        pytest.param(5, None, 5, MATCH, MATCH, id="equal"),
        pytest.param(5, 5, 5, MATCH, MATCH, id="equal all three"),
        pytest.param(0, 0, 0, MATCH, MATCH, id="zeros"),
        pytest.param(5, 4, 5, MATCH, MATCH, id="a parallel run stored more"),
        pytest.param(5, None, 6, BEHIND, GROWING, id="Redis has more"),
        pytest.param(5, 5, 6, BEHIND, GROWING, id="Redis has more than was read"),
        pytest.param(5, 6, 7, BEHIND, BEHIND, id="stored less than read"),
        pytest.param(5, 6, 5, BEHIND, BEHIND, id="stored less than read, Redis fell back"),
        pytest.param(5, 6, None, BEHIND, BEHIND, id="stored less than read, gone now"),
        pytest.param(5, 5, None, EXPIRED, EXPIRED, id="gone since it was read"),
        pytest.param(5, None, None, EXPIRED, EXPIRED, id="gone"),
        pytest.param(5, None, 4, REGRESSED, REGRESSED, id="Redis has less"),
        pytest.param(5, 4, 4, REGRESSED, REGRESSED, id="Redis has less, as read"),
        pytest.param(5, 5, 0, REGRESSED, REGRESSED, id="Redis restarted"),
    ],
)
@pytest.mark.parametrize("carried", [0, 1, 2**62], ids=["", "carried 1", "carried much"])
def test_judge(
    stored: int | None, read: int | None, now: int | None, on_settled: Verdict, on_live: Verdict, carried: int
) -> None:
    for settled, expected in ((True, on_settled), (False, on_live)):
        # What was carried stands in the row beyond the counter, and must not matter.
        in_row = None if stored is None else stored + carried
        at_least = None if read is None else read + carried
        assert judge(stored=in_row, carried=carried, read=at_least, now=now, settled=settled) is expected


@pytest.mark.parametrize(
    ("now", "kept", "verdict"),
    [
        pytest.param(3, 3, MATCH, id="stands where it was decided"),
        pytest.param(4, 3, MATCH, id="grew since"),
        pytest.param(2, 3, REGRESSED, id="fell again since"),
        pytest.param(3, None, REGRESSED, id="not decided"),
        pytest.param(6, 3, BEHIND, id="overtook the stored value"),
    ],
)
def test_decided_to_be_right(now: int, kept: int | None, verdict: Verdict) -> None:
    assert judge(stored=5, carried=0, read=None, now=now, settled=True, accepted_from=kept) is verdict


def test_only_these_fail() -> None:
    assert {verdict for verdict in Verdict if verdict.fails} == {MISSING, BEHIND}
