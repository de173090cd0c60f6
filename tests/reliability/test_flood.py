"""Generated bad configurations, files and updates; `make soak` feeds ten thousand with the same script."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import pytest
from reliability.bad_messages import DECLARED, TESTS, pair
from reliability.flood import KINDS, flood, judge, table

from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.server.checks import check_update


@pytest.mark.system
@pytest.mark.filterwarnings("ignore")
def test_nothing_bad_is_taken_and_nothing_ends_in_a_traceback(tmp_path: Path) -> None:
    report = flood(660, 1, tmp_path)
    assert report["wrong"] == []
    assert sum(row["refused"] for row in report["counts"]) == 660
    makers = {(row["kind"], row["maker"]) for row in report["counts"]}
    assert makers == {(kind, maker.__name__) for kind, every in KINDS.items() for maker in every}
    assert table(report).splitlines()[-1] == "| sum | | 660 | 0 | 0 |"


def test_what_the_defects_are_made_from_is_good() -> None:
    for seed in range(100):
        job, update = pair(random.Random(seed))
        check_update(update, job, DECLARED, TESTS)


def test_the_judge_tells_the_three_apart() -> None:
    def raising(error: Exception) -> None:
        raise error

    assert judge(lambda: raising(FedReIDError("x.jpg: is missing"))) == ("refused", "")
    assert judge(lambda: 3) == ("taken", "3")
    assert judge(lambda: raising(KeyError("x")))[0] == "traceback"
    assert judge(lambda: raising(FedReIDError("")))[0] == "traceback"


def test_every_maker_makes_bad_things_from_its_seed(tmp_path: Path) -> None:
    for makers in KINDS.values():
        for maker in makers:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                one, other = (maker(random.Random("7"), tmp_path)[0] for _ in range(2))
            assert one == other, "a case can be made again"
