"""Every shipped experiment for three rounds: interrupted and resumed, with clients in another process, and in two
processes; always the same bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import support
from end_to_end.remote_clients import ClientProcess, Interruption, RemoteEngine

from fedreid_pl import parts
from fedreid_pl.cli import main
from fedreid_pl.config import available
from fedreid_pl.federation.storage import read_state

MORE = {
    "krum": ["callbacks.robust.byzantine=0"],
    "multi_krum": ["callbacks.robust.byzantine=0"],
    "fedpav_dp": ["callbacks.differential_privacy.noise=seed"],
}
"""Words without which an experiment does not run with three clients, or not twice with the same bits."""
ABLATIONS = ("fedpav_large", "fedpav_small", "fedpav_equal", "fedpav_images", "fedpav_rw_clipped")
"""Settings of experiments that are here already; tests/test_ablations.py has them."""
EXPERIMENTS = [exp for exp in available("exp") if exp not in ABLATIONS]


def words(exp: str, root: Path, folder: Path) -> list[str]:
    common = support.quick(root, folder, "rounds=3", "evaluate_every=2", "trainer.accelerator=cpu")
    return ["train", f"exp={exp}", *common, *MORE.get(exp, [])]


@pytest.fixture(scope="module")
def clients() -> Iterator[ClientProcess]:
    process = ClientProcess()
    yield process
    process.close()


@pytest.mark.parametrize("exp", EXPERIMENTS)
def test_interrupted_resumed_and_with_clients_elsewhere_it_ends_with_the_same_bits(
    exp: str, tiny_root: Path, tmp_path: Path, clients: ClientProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, remote = tmp_path / "straight", tmp_path / "remote"
    assert main(words(exp, tiny_root, straight)) == 0
    stops = iter([5, None])  # in the second round, between two of the three clients (never, with one client)

    def engine(*unused: Any) -> RemoteEngine:
        return RemoteEngine(clients, remote / "config.yaml", tmp_path / "elsewhere", next(stops))

    monkeypatch.setattr(parts, "SequentialEngine", engine)
    if exp == "centralized":
        next(stops)
    else:
        with pytest.raises(Interruption):
            main(words(exp, tiny_root, remote))
        assert not (remote / "checkpoints" / "round-00002.ckpt").exists()
    assert main(words(exp, tiny_root, remote)) == 0

    assert (straight / "metrics.csv").read_bytes() == (remote / "metrics.csv").read_bytes()
    one, other = (read_state(folder / "checkpoints" / "round-00003.ckpt") for folder in (straight, remote))
    one.pop("costs"), other.pop("costs")
    support.assert_equal(one, other)
    assert not (remote / "clients").exists(), "what clients keep stays where the clients are"
    for path in (straight / "clients").rglob("*.pt"):
        there = tmp_path / "elsewhere" / path.relative_to(straight)
        support.assert_equal(read_state(path), read_state(there))


def test_two_processes_agree_on_every_bit_of_every_experiment(tiny_root: Path, tmp_path: Path) -> None:
    experiments = {}
    for exp in EXPERIMENTS:
        more = ["trainer.devices=2", "trainer.strategy=ddp"]
        experiments[exp] = [*words(exp, tiny_root, tmp_path / exp)[1:], *more]
    (tmp_path / "experiments.json").write_text(json.dumps(experiments))
    script = Path(__file__).with_name("ddp_probe.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(tmp_path / "experiments.json")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert set(ranks[0]) == set(experiments)
    for exp in experiments:
        one, other = (rank[exp] for rank in ranks)
        assert one["rounds"] == other["rounds"] == 3
        assert one["digest"] == other["digest"], exp
        assert one["history"] == other["history"], exp
        assert one["written"] and not other["written"], exp
