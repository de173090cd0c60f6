"""Generated invalid configurations, files and updates; `make soak` reads ten thousand with the same script."""

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
def test_invalid_input_is_neither_accepted_nor_a_traceback(tmp_path: Path) -> None:
    report = flood(660, 1, tmp_path)
    assert report["wrong"] == []
    assert sum(row["refused"] for row in report["counts"]) == 660
    makers = {(row["kind"], row["maker"]) for row in report["counts"]}
    assert makers == {(kind, maker.__name__) for kind, every in KINDS.items() for maker in every}
    assert table(report).splitlines()[-1] == "| sum | | 660 | 0 | 0 |"


def test_the_input_before_its_alteration_is_valid() -> None:
    for seed in range(100):
        job, update = pair(random.Random(seed))
        check_update(update, job, DECLARED, TESTS)


def test_the_judge_distinguishes_the_three_outcomes() -> None:
    def raising(error: Exception) -> None:
        raise error

    assert judge(lambda: raising(FedReIDError("x.jpg: is missing"))) == ("refused", "")
    assert judge(lambda: 3) == ("accepted", "3")
    assert judge(lambda: raising(KeyError("x")))[0] == "traceback"
    assert judge(lambda: raising(FedReIDError("")))[0] == "traceback"


def test_every_maker_repeats_its_cases_from_the_seed(tmp_path: Path) -> None:
    for makers in KINDS.values():
        for maker in makers:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                one, other = (maker(random.Random("7"), tmp_path)[0] for _ in range(2))
            assert one == other, "the seed reproduces the case"
