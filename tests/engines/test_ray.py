"""engine=ray gives the bits of the sequential engine, with two slots of one thread on this machine."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import support
import torch
from end_to_end.test_every_experiment import EXPERIMENTS, MORE
from hostile.jobs import JOBS
from hostile.updates import UPDATES

from fedreid_pl.cli import main
from fedreid_pl.config import compose
from fedreid_pl.engines.ray.cluster import Cluster
from fedreid_pl.engines.ray.leftovers import marked_sessions, processes_of
from fedreid_pl.engines.ray.schedule import Schedule
from fedreid_pl.engines.sequential import SequentialEngine
from fedreid_pl.federation.messages import ClientFailure, ClientJob
from fedreid_pl.federation.storage import read_state
from fedreid_pl.reporting.run_folder import read_timings

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two processors"),
]


@pytest.fixture(scope="module")
def slots() -> Iterator[list[Any]]:
    """Starts one Ray instance for all tests of this module, because a start takes seconds; returns the idle slots."""
    cluster = Cluster(compose(["engine=ray", "engine.slots=2"]))
    cluster.wait()
    yield cluster.early
    cluster.close()


@pytest.fixture(autouse=True)
def _reused(slots: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes runs borrow and return the idle slots. Imports Ray only after `Cluster` has set Ray's variables."""
    from fedreid_pl.engines.ray.pool import SlotPool

    start = Cluster.start_slot
    take = lambda cluster: (cluster.early or slots or [start(cluster)]).pop()  # noqa: E731
    monkeypatch.setattr(Cluster, "start_slot", take)

    def close(pool: Any) -> None:
        slots.extend(slot.actor for slot in pool.slots.values())
        pool.slots = {}

    monkeypatch.setattr(Cluster, "end_early", lambda cluster: slots.extend(cluster.early))
    monkeypatch.setattr(SlotPool, "close", close)


def words(exp: str, root: Path, folder: Path, *more: str) -> list[str]:
    common = support.quick(root, folder, "rounds=3", "evaluate_every=2", "trainer.accelerator=cpu")
    return ["train", f"exp={exp}", *common, *more]


def assert_same_run(one: Path, other: Path) -> None:
    """Asserts that all numbers, models and states of two runs are equal to the last bit."""
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


STATE = {"scaffold": ["engine.client_state=driver"], "ditto": ["engine.client_state=folder"]}
"""Experiments with an explicit place of the clients' state; all others use the default."""


@pytest.mark.parametrize("exp", EXPERIMENTS)
def test_ray_gives_the_bits_of_the_sequential_engine(exp: str, tiny_root: Path, tmp_path: Path) -> None:
    more = MORE.get(exp, [])
    straight, parallel = tmp_path / "straight" / "run" / "it", tmp_path / "parallel" / "run" / "it"
    assert main(words(exp, tiny_root, straight, *more)) == 0
    assert main(words(exp, tiny_root, parallel, "engine=ray", "engine.slots=2", *STATE.get(exp, []), *more)) == 0
    assert_same_run(straight, parallel)


class Disturbance:
    """Sends one signal to a slot's process shortly after the slot received a job of a kind.

    Args:
        kind: the kind of job.
        number: number of earlier jobs of this kind.
        signal_: the signal.
    """

    def __init__(self, kind: str, number: int, signal_: int) -> None:
        self.kind, self.number, self.signal = kind, number, signal_
        self.struck: list[int] = []
        from fedreid_pl.engines.ray.engine import RayEngine

        self._send = RayEngine._send

    def __call__(self, engine: Any, slot: Any, job: ClientJob) -> Any:
        reference = self._send(engine, slot, job)
        self.number -= job.kind == self.kind
        if self.number < 0 and not self.struck and slot.facts is not None:
            self.struck.append(slot.facts.process)
            os.kill(slot.facts.process, self.signal)
        return reference


@pytest.mark.parametrize(
    ("kind", "number", "signal_"),
    [("fit", 4, signal.SIGKILL), ("evaluate", 3, signal.SIGKILL), ("fit", 6, signal.SIGSTOP)],
)
def test_a_killed_or_hanging_slot_does_not_change_the_result(
    kind: str,
    number: int,
    signal_: int,
    tiny_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    straight, parallel = tmp_path / "straight" / "run" / "it", tmp_path / "parallel" / "run" / "it"
    assert main(words("scaffold", tiny_root, straight)) == 0
    from fedreid_pl.engines.ray.engine import RayEngine

    disturbance = Disturbance(kind, number, signal_)
    monkeypatch.setattr(RayEngine, "_send", lambda engine, slot, job: disturbance(engine, slot, job))
    monkeypatch.setattr(Schedule, "limit", lambda schedule, job: 20.0)
    capfd.readouterr()
    assert main(words("scaffold", tiny_root, parallel, "engine=ray", "engine.slots=2")) == 0
    said = capfd.readouterr().err
    assert disturbance.struck and "another slot repeats this task" in said
    assert ("hangs" in said) == (signal_ == signal.SIGSTOP)
    assert_same_run(straight, parallel)


def test_the_report_shows_the_use_of_the_slots(tiny_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "exp" / "run"
    assert main(words("fedpav", tiny_root, folder, "rounds=2", "engine=ray", "engine.slots=2")) == 0
    page = (folder / "report.html").read_text()
    assert "Clients in parallel" in page and "slot" in page and "took longest in" in page
    timings = read_timings(folder)
    busy = [row.value for row in timings.records if row.metric == "busy_seconds"]  # only slots that were ready in time
    sums = [timings.series("system", "slots", f"{kind}_sum_seconds") for kind in ("fit", "evaluate")]
    assert sum(busy) == pytest.approx(sum(value for series in sums for value in series.values()))


def test_a_resume_with_another_number_of_threads_gives_a_warning(
    tiny_root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = words("fedpav", tiny_root, tmp_path / "a" / "b" / "run")
    assert main([*command, "rounds=1", "engine=ray", "engine.slots=2"]) == 0
    torch.set_num_threads(2)
    try:
        assert main([*command, "rounds=2"]) == 0
    finally:
        torch.set_num_threads(1)
    assert "warning: the run was computed with 1 thread per client, this process uses 2" in capfd.readouterr().err


def listening(process: int) -> list[str]:
    """Returns the addresses on which a process listens, from the system's socket tables."""
    inodes = set()
    for link in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(os.readlink(link).removeprefix("socket:[").removesuffix("]"))
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and rest[5] in inodes:
                words = bytes.fromhex(local.partition(":")[0])
                packed = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
                found.append(str(ipaddress.ip_address(packed)))
    return found


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs /proc")
def test_a_local_ray_opens_ports_only_on_the_loopback_address(slots: list[Any]) -> None:
    import ray

    ray.get([slot.ready.remote() for slot in slots])
    (session,) = [folder for folder, driver, _ in marked_sessions() if driver == os.getpid()]
    addresses = [address for process in processes_of(session) for address in listening(process)]
    assert len(addresses) >= 5, "Ray's own processes and its slots"
    assert set(addresses) <= {"127.0.0.1", "::ffff:127.0.0.1", "::ffff:7f00:1", "::1"}
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0" and len(os.environ["RAY_AUTH_TOKEN"]) == 64


def hostile(fit: Any, update: str | None, job: str | None) -> Any:
    """Returns `fit` of an engine whose last client sends a hostile update or receives a hostile job in round 2."""
    victim = support.TINY[2]

    def altered(engine: Any, jobs: Any) -> Iterator[Any]:
        asked = [JOBS[job](each) if job and each.client == victim and each.round == 2 else each for each in jobs]
        for outcome in fit(engine, asked):
            spoilt = update and outcome.client == victim and not isinstance(outcome, ClientFailure)
            yield from UPDATES[update](outcome) if spoilt else [outcome]  # type: ignore[index]

    return altered


@pytest.mark.parametrize(
    ("update", "job"),
    [
        ("one NaN", None),
        ("code in extras", None),
        (None, "the head by name"),
        (None, "code as a value"),
        (None, "shape"),
    ],
)
def test_hostile_messages_are_refused_as_by_the_sequential_engine(
    update: str | None, job: str | None, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedreid_pl.engines.ray.engine import RayEngine

    folders = tmp_path / "straight" / "run" / "it", tmp_path / "parallel" / "run" / "it"
    for engine in (SequentialEngine, RayEngine):
        monkeypatch.setattr(engine, "fit", hostile(engine.fit, update, job))
    common = ("client_retries=0", "min_clients=2")
    assert main(words("scaffold", tiny_root, folders[0], *common)) == 0
    assert main(words("scaffold", tiny_root, folders[1], *common, "engine=ray", "engine.slots=2")) == 0
    assert_same_run(*folders)
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in folders]
    wanted = 3 if update else 1
    assert [summary["rejected"] for summary in summaries] == [{support.TINY[2]: wanted}] * 2
