"""engine=ray against the sequential engine, bit by bit, with two slots of one thread on this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import support

from fedreid_pl.cli import main
from fedreid_pl.config import compose
from fedreid_pl.engines.ray.cluster import Cluster
from fedreid_pl.engines.ray.pool import SlotPool
from fedreid_pl.federation.storage import read_state

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two processors"),
]


@pytest.fixture(scope="module")
def slots() -> Iterator[list[Any]]:
    """A Ray that all tests of this module share, and its idle slots: to start one takes seconds."""
    cluster = Cluster(compose(["engine=ray", "engine.slots=2"]))
    cluster.wait()
    yield cluster.early
    cluster.close()


@pytest.fixture(autouse=True)
def _reused(slots: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs take the idle slots and give them back."""
    monkeypatch.setattr(Cluster, "start_slot", lambda cluster: (cluster.early or slots).pop())

    def close(pool: SlotPool) -> None:
        slots.extend(slot.actor for slot in pool.slots.values())
        pool.slots = {}

    monkeypatch.setattr(Cluster, "end_early", lambda cluster: slots.extend(cluster.early))
    monkeypatch.setattr(SlotPool, "close", close)


def words(exp: str, root: Path, folder: Path, *more: str) -> list[str]:
    common = support.quick(root, folder, "rounds=3", "evaluate_every=2", "trainer.accelerator=cpu")
    return ["train", f"exp={exp}", *common, *more]


def assert_same_run(one: Path, other: Path) -> None:
    """Every number, model and state of two runs is equal to the last bit."""
    assert (one / "metrics.csv").read_bytes() == (other / "metrics.csv").read_bytes()
    names = [sorted(path.relative_to(folder) for path in folder.rglob("round-*")) for folder in (one, other)]
    assert names[0] == names[1] and len(names[0]) > 3
    for name in names[0]:
        states = [read_state(folder / name) for folder in (one, other)]
        for state in states:
            state.pop("costs", None), state.pop("turn", None)
        support.assert_equal(*states, str(name))
    assert json.loads((one / "inspection.json").read_text()) == json.loads((other / "inspection.json").read_text())
    summaries = [support.without_times(json.loads((folder / "summary.json").read_text())) for folder in (one, other)]
    assert summaries[0] == summaries[1]


@pytest.mark.parametrize(
    ("exp", "more"),
    [
        ("fedpav_rw", []),
        ("scaffold", ["engine.client_state=driver"]),
        ("ditto", ["engine.client_state=folder"]),
        ("fedpav_kd_rw", []),
        ("centralized", []),
    ],
)
def test_the_bits_are_those_of_the_sequential_engine(
    exp: str, more: list[str], tiny_root: Path, tmp_path: Path
) -> None:
    straight, parallel = tmp_path / "straight" / "run" / "it", tmp_path / "parallel" / "run" / "it"
    assert main(words(exp, tiny_root, straight)) == 0
    assert main(words(exp, tiny_root, parallel, "engine=ray", "engine.slots=2", *more)) == 0
    assert_same_run(straight, parallel)
