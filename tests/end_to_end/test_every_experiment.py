"""Every shipped experiment gives the same bits over three rounds: interrupted and resumed, with clients in other
processes that answer in a random order, and in two processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import support
from end_to_end.remote_clients import ClientProcess, Interruption, RemoteEngine
from end_to_end.two_processes import in_two_processes, reports_of

from fedreid_pl import parts
from fedreid_pl.cli import main
from fedreid_pl.config import available
from fedreid_pl.engines import EngineParts
from fedreid_pl.federation.storage import read_state

pytestmark = pytest.mark.system

MORE = {
    "krum": ["callbacks.robust.byzantine=0"],
    "multi_krum": ["callbacks.robust.byzantine=0"],
    "fedpav_dp": ["callbacks.differential_privacy.noise=seed"],
}
"""Settings that an experiment needs to run with three clients, or to repeat with the same bits."""
ABLATIONS = ("fedpav_large", "fedpav_small", "fedpav_equal", "fedpav_images", "fedpav_rw_clipped")
"""Variants of other experiments, which tests/test_ablations.py tests."""
EXPERIMENTS = [exp for exp in available("exp") if exp not in ABLATIONS]


def words(exp: str, root: Path, folder: Path) -> list[str]:
    common = support.quick(root, folder, "rounds=3", "evaluate_every=2", "trainer.accelerator=cpu")
    return ["train", f"exp={exp}", *common, *MORE.get(exp, [])]


@pytest.fixture(scope="module")
def clients() -> Iterator[list[ClientProcess]]:
    processes = [ClientProcess(), ClientProcess()]
    yield processes
    for process in processes:
        process.close()


@pytest.mark.parametrize("exp", EXPERIMENTS)
def test_an_experiment_interrupted_resumed_and_with_remote_clients_gives_the_same_bits(
    exp: str, tiny_root: Path, tmp_path: Path, clients: list[ClientProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, remote, elsewhere = tmp_path / "straight", tmp_path / "remote", tmp_path / "elsewhere"
    assert main(words(exp, tiny_root, straight)) == 0
    engines: list[RemoteEngine] = []

    def engine(parts: EngineParts) -> RemoteEngine:
        stop = 6 if exp != "centralized" and not engines else None  # in the second round, after two of three clients
        engines.append(RemoteEngine(clients, parts, elsewhere, stop))
        return engines[-1]

    monkeypatch.setattr(parts, "build_engine", engine)
    if exp != "centralized":  # one client cannot be interrupted between two clients
        with pytest.raises(Interruption):
            main(words(exp, tiny_root, remote))
        assert not (remote / "checkpoints" / "round-00002.ckpt").exists()
    assert main(words(exp, tiny_root, remote)) == 0
    assert all(engine.closed == 1 for engine in engines), "also after an error"

    assert (straight / "metrics.csv").read_bytes() == (remote / "metrics.csv").read_bytes()
    one, other = (read_state(folder / "checkpoints" / "round-00003.ckpt") for folder in (straight, remote))
    one.pop("costs"), other.pop("costs")
    support.assert_equal(one, other)
    assert json.loads((straight / "inspection.json").read_text()) == json.loads(
        (remote / "inspection.json").read_text()
    )
    assert not (remote / "clients").exists(), "client states stay with the clients"
    kept = sorted((straight / "clients").rglob("*.pt"))
    assert [path.relative_to(straight) for path in kept] == sorted(
        path.relative_to(elsewhere) for path in (elsewhere / "clients").rglob("*.pt")
    )
    for path in kept:
        mine, theirs = read_state(path), read_state(elsewhere / path.relative_to(straight))
        assert mine.pop("turn")["round"] == theirs.pop("turn")["round"]
        support.assert_equal(mine, theirs)


def test_two_processes_agree_on_every_bit_of_every_experiment(tiny_root: Path, tmp_path: Path) -> None:
    experiments = {}
    for exp in EXPERIMENTS:
        more = ["trainer.devices=2", "trainer.strategy=ddp"]
        experiments[exp] = [*words(exp, tiny_root, tmp_path / exp)[1:], *more]
    in_two_processes(tmp_path, experiments, seconds=1200)
    ranks = reports_of(tmp_path)
    assert set(ranks[0]) == set(experiments)
    for exp in experiments:
        one, other = (rank[exp] for rank in ranks)
        assert one["rounds"] == other["rounds"] == 3
        assert one["digest"] == other["digest"], exp
        assert one["history"] == other["history"], exp
        assert one["written"] and not other["written"], exp
