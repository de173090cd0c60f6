"""Reads thousands of invalid configurations, files and updates: none may be accepted or raise a traceback.

    python tests/reliability/flood.py count=10000 seed=0 [json=FILE] [table=FILE]

Every case is invalid by construction. It counts as refused if its reader raises `FedReIDError` or `RejectedUpdate`
with a message of one line.
"""

from __future__ import annotations

import os
import random
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

from reliability.bad_files import FILES
from reliability.bad_messages import UPDATES
from reliability.bad_words import WORDS
from reliability.reported import reported

from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.messages import RejectedUpdate

Maker = Callable[[random.Random, Path], tuple[str, Callable[[], Any]]]
KINDS: dict[str, list[Maker]] = {"configurations": WORDS, "files": FILES, "updates": UPDATES}


def judge(action: Callable[[], Any]) -> tuple[str, str]:
    """Returns `refused`, `accepted` or `traceback`, and details about the last two."""
    try:
        taken = action()
    except (FedReIDError, RejectedUpdate) as error:
        text = str(error)
        if not text.strip() or len(text.splitlines()) != 1:
            return "traceback", f"a message of {len(text.splitlines())} lines: {text!r}"
        return "refused", ""
    except Exception:
        return "traceback", traceback.format_exc()
    return "accepted", repr(taken)[:300]


def flood(count: int, seed: int, folder: Path) -> dict[str, Any]:
    """Reads `count` cases of all kinds and makers in turn; returns the outcomes of each maker and the failures."""
    outcomes: Counter[tuple[str, str, str]] = Counter()
    wrong: list[dict[str, Any]] = []
    for number in range(count):
        kind = list(KINDS)[number % len(KINDS)]
        maker = KINDS[kind][number // len(KINDS) % len(KINDS[kind])]
        description, action = maker(random.Random(f"{seed}/{number}"), folder)
        outcome, detail = judge(action)
        outcomes[kind, maker.__name__, outcome] += 1
        if outcome != "refused":
            wrong.append({"maker": maker.__name__, "case": description, "outcome": outcome, "detail": detail})
    rows = sorted({(kind, maker) for kind, maker, _ in outcomes})
    counts = [
        {
            "kind": kind,
            "maker": maker,
            **{name: outcomes[kind, maker, name] for name in ("refused", "accepted", "traceback")},
        }
        for kind, maker in rows
    ]
    return {"counts": counts, "wrong": wrong}


def table(report: dict[str, Any]) -> str:
    """Returns the outcomes as a Markdown table."""
    names = ("refused", "accepted", "traceback")
    lines = ["| kind | what is wrong | " + " | ".join(names) + " |", "|---|---|" + "---:|" * len(names)]
    for row in report["counts"]:
        what = row["maker"].replace("_", " ")
        lines.append(f"| {row['kind']} | {what} | " + " | ".join(str(row[name]) for name in names) + " |")
    sums = [sum(row[name] for row in report["counts"]) for name in names]
    return "\n".join([*lines, "| sum | | " + " | ".join(map(str, sums)) + " |"])


if __name__ == "__main__":
    report = reported(flood, table)
    for case in report["wrong"][:30]:
        print(f"\n{case['outcome']}: {case['maker']}: {case['case']}\n{case['detail']}")
    sys.exit(1 if report["wrong"] else 0)
