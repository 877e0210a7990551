"""Through real servers: any id that PostgreSQL can hold arrives unchanged; any history ends in the highest value."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from merchant_usage.source.counters import MAX_VALUE
from tests.support import YESTERDAY, Usage, key, raw

# Control characters, COPY's own, text that changes when normalised, and letters of one to four bytes.
odd = st.sampled_from([*"\\\t\n\r\b\v\f\x01\x7f\"':,;%*{}|N. ", "\\N", "\\.", "\\\\n", "e\u0301", "é", "\u2028", "🎉"])
letters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
ids = st.lists(st.one_of(odd, st.text(letters, max_size=8)), min_size=1, max_size=8).map("".join).filter(bool)
metrics = ids.map(lambda text: text.replace(":", "")).filter(bool)


@given(st.dictionaries(st.tuples(ids, metrics), st.integers(0, MAX_VALUE), min_size=1, max_size=30))
@settings(max_examples=30)
@example({("\\.", "\\."): 1, ("\\N", "\\N"): 2, ("a\tb\nc\rd\\", "\t"): 3, (" ", " "): 4, ("e\u0301", "é"): 5})
@example({("\x7f" * 1024, "🎉" * 64): 0, ("\U0010ffff" * 256, "x" * 256): MAX_VALUE})
def test_any_id_arrives_unchanged(usage: Usage, values: dict[tuple[str, str], int]) -> None:
    usage.client.flushall()
    usage.conn.execute("TRUNCATE merchant_usage, usage_dead_letter")
    counters = {key(merchant, YESTERDAY, metric): value for (merchant, metric), value in values.items()}
    usage.write(counters)
    proof = usage.aggregate()
    assert usage.rows() == counters
    assert usage.letters() == []
    (report,) = proof.reports
    assert (report.verdict, report.redis_total, report.postgres_total) == (
        "verified",
        sum(values.values()),
        sum(values.values()),
    )
    # And again from Redis to the row that is there: nothing is new, nothing is raised.
    before = usage.row_versions()
    usage.aggregate()
    assert usage.row_versions() == before


# A counter's history: it grows, falls back, vanishes, breaks. A run in between each step.
steps = st.lists(
    st.one_of(st.integers(0, 20), st.sampled_from(["gone", b"-1", b"1_000", b"9" * 30])), min_size=1, max_size=6
)


@given(st.lists(steps, min_size=1, max_size=4))
@settings(max_examples=25)
def test_any_history_ends_in_the_highest_value_seen(usage: Usage, histories: list[list[int | str | bytes]]) -> None:
    usage.client.flushall()
    usage.conn.execute("TRUNCATE merchant_usage, usage_dead_letter")
    highest: dict[str, int] = {}
    for turn in range(max(map(len, histories))):
        for number, history in enumerate(histories):
            merchant, step = f"m{number}", history[min(turn, len(history) - 1)]
            if step == "gone":
                usage.client.delete(raw(key(merchant)))
                continue
            usage.write({key(merchant): step})
            if isinstance(step, int):
                highest[merchant] = max(step, highest.get(merchant, 0))
        usage.aggregate()
        assert usage.rows() == {key(merchant): value for merchant, value in highest.items()}
