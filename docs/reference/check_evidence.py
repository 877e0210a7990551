"""Checks a folder that `merchant-usage explain --evidence` wrote, without its code: `check_evidence.py FOLDER`.

Adds usage.csv up anew, hashes it, follows the chain of seals, and compares that with all else. Exit code 0: nothing
differs; 1: something does. Seals are over all merchants, so that evidence of some of them is added up, and not hashed.
"""

import csv
import datetime as dt
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from hashlib import sha256
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any


def text(value: object) -> bytes:
    return b"%d:%s," % (len(raw := str(value).encode()), raw)


def root_of(level: bytes | bytearray) -> str:
    while len(level) > 32:
        pairs = (level[start : start + 64] for start in range(0, len(level), 64))
        level = b"".join(sha256(b"\x01" + pair).digest() if len(pair) == 64 else pair for pair in pairs)
    return (level or sha256(b"").digest()).hex()


def rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file, strict=True)


def chain_of(seal: dict[str, Any]) -> str:
    names = ("seal_number", "usage_date", "version", "sealed_at", "run_id", "counters", "total", "root", "reason")
    row = b"".join(text(seal[name]) for name in names)
    return sha256(bytes.fromhex(seal["previous"]) + text("usage_seal 1") + row).hexdigest()


class Sums:
    def __init__(self, path: Path) -> None:
        self.dates = defaultdict[str, list[int]](lambda: [0, 0, 0])  # merchants, counters, total
        self.merchants = defaultdict[str, list[int]](lambda: [0, 0])  # counters, total
        self.leaves, self.in_order, last = defaultdict[str, bytearray](bytearray), True, (b"", "", b"")
        for (who, date), group in groupby(rows(path), key=lambda row: (row["merchant_id"], row["date"])):
            leaf = b"\x00" + text(who)
            self.dates[date][0] += 1
            for row in group:
                metric, value = row["metric_type"], int(row["metric_value"])
                self.in_order &= last < (last := (who.encode(), date, metric.encode()))
                leaf += text(metric) + f"{value} {int(row['carried'])};".encode()
                for sums in (self.dates[date], self.merchants[who]):
                    sums[-2:] = sums[-2] + 1, sums[-1] + value
            self.leaves[date] += sha256(leaf).digest()


def check_day(day: dict[str, str], sums: Sums, seal: dict[str, Any] | None, *, whole: bool) -> Iterator[str]:
    date, found = day["date"], sums.dates[day["date"]]
    print(f"{date}: {day['state']}" + (f": {day['why']}" if day["why"] else ""))
    if [int(day[name]) for name in ("merchants", "counters", "total")] != found:
        yield f"{date}: days.csv has {day['total']} in {day['counters']}, usage.csv {found[2]} in {found[1]} counters"
    if day["state"] == "proven":
        if not seal or [day["seal_version"], day["seal_root"]] != [str(seal["version"]), seal["root"]]:
            yield f"{date}: days.csv does not name the newest seal of seals.jsonl"
        elif whole and [root_of(sums.leaves[date]), *found[1:]] != [seal["root"], seal["counters"], int(seal["total"])]:
            yield f"{date}: usage.csv is not what was sealed as version {seal['version']}"


def check(folder: Path) -> Iterator[str]:
    totals = json.loads((folder / "totals.json").read_text(encoding="utf-8"))
    seals = [json.loads(line) for line in (folder / "seals.jsonl").read_text(encoding="utf-8").splitlines()]
    sums, days, newest = Sums(folder / "usage.csv"), [*rows(folder / "days.csv")], {s["usage_date"]: s for s in seals}
    for day in days:
        yield from check_day(day, sums, newest.get(day["date"]), whole=totals["merchant_ids"] is None)
    first, last = (dt.date.fromisoformat(totals[name]) for name in ("from_date", "to_date"))
    dates = [str(first + dt.timedelta(days=day)) for day in range((last - first).days + 1)]
    index = {row["merchant_id"]: row for row in rows(folder / "merchants/index.csv")}
    pages = {who: [int(row["counters"]), int(row["total"])] for who, row in index.items() if row["counters"] != "0"}
    missing = [{"date": day["date"], "why": day["why"]} for day in days if day["state"] != "proven"]
    found = [sum(each[of] for each in sums.merchants.values()) for of in (0, 1)]
    summed = [missing, len(days) - len(missing), len(days), len(index), found[0], str(found[1])]
    names = ("not_proven", "proven", "dates", "merchants", "counters", "total")
    holds = {
        "seals.jsonl: a seal is not what its chain is over": all(chain_of(seal) == seal["chain"] for seal in seals),
        "seals.jsonl: the chain has a gap": all(a["chain"] == b["previous"] for a, b in pairwise(seals)),
        "usage.csv: a counter stands twice, or out of order": sums.in_order,
        "usage.csv has other dates than days.csv": sums.dates.keys() <= {day["date"] for day in days},
        f"days.csv does not have the dates {first} to {last}, each once": [day["date"] for day in days] == dates,
        "merchants/index.csv is not what usage.csv adds up to": pages == sums.merchants,
        f"totals.json is not what is there: {summed[1:]}": [totals[name] for name in names] == summed,
    }
    yield from (problem for problem, does in holds.items() if not does)


if __name__ == "__main__":
    problems = [*check(Path(sys.argv[1]))]
    print("\n".join(problems) or "Nothing differs.")
    sys.exit(1 if problems else 0)
