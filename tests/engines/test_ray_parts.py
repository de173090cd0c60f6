"""The parts of engine=ray that run without Ray: packing, order of jobs, refused settings, leftover processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import support
import torch

from fedreid_pl.cli import main
from fedreid_pl.config import compose, fingerprint, lineage
from fedreid_pl.engines.ray import leftovers
from fedreid_pl.engines.ray.cluster import check
from fedreid_pl.engines.ray.schedule import Pass, Schedule
from fedreid_pl.engines.ray.signals import held_signals
from fedreid_pl.engines.ray.slot import SlotStore, Unseen
from fedreid_pl.engines.ray.states import DriverStates
from fedreid_pl.engines.ray.wire import pack, unpack
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.client.store import ClientStore, LostState
from fedreid_pl.federation.raw import from_raw, to_raw

STATE = {
    "conv": torch.randn(4, 3, 5, 2).to(memory_format=torch.channels_last),
    "half": torch.randn(7).bfloat16(),
    "count": torch.tensor(3),
    "none": torch.empty(0, 4),
    "turned": torch.randn(3, 5).t(),
    "wide": torch.tensor([1.0, 2.0]).expand(3, 2),
}


@pytest.mark.parametrize("name", STATE)
def test_a_packed_tensor_is_restored_with_its_strides(name: str) -> None:
    value = STATE[name]
    back = from_raw(*to_raw(value))
    assert torch.equal(back, value) and back.dtype == value.dtype
    if name != "wide":  # "wide" is expanded
        assert back.stride() == value.stride()


def test_unpacking_without_a_copy_uses_the_sent_memory() -> None:
    packed = pack(STATE)
    packed[0][2].setflags(write=False)  # read-only, as from Ray
    shared, own = unpack(packed, copy=False), unpack(packed, copy=True)
    support.assert_equal(own, STATE)
    assert shared["conv"].data_ptr() == packed[0][2].ctypes.data
    assert own["conv"].data_ptr() != shared["conv"].data_ptr()
    own["conv"].zero_()
    support.assert_equal(unpack(packed, copy=False), STATE)


def schedule(timeout: float | None = None) -> Schedule:
    sizes = {"a": 10, "b": 40, "c": 20, "d": 20}
    return Schedule(lambda job: sizes[job.client], timeout)


def test_jobs_are_ordered_by_images_and_then_by_measured_seconds() -> None:
    jobs = [support.fit_job(1, client) for client in "abcd"]
    order = schedule()
    assert order.order(jobs) == [1, 2, 3, 0]
    order.note(jobs[0], 9.0)
    order.note(jobs[1], 5.0)
    # a took 9 s and b took 5 s; c and d are estimated from 14 s for 50 images
    assert order.order(jobs) == [0, 2, 3, 1]
    assert order.expected(jobs[2]) == pytest.approx(20 * 14 / 50)
    assert order.expected(support.evaluate_job(1, "a")) == pytest.approx(10 * 14 / 50), "another kind of job"


def test_the_limit_of_a_job_follows_the_time_limit_or_the_expected_time() -> None:
    job = support.fit_job(1, "a")
    assert schedule(100.0).limit(job) == pytest.approx(140.0)
    order = schedule()
    assert order.limit(job) is None, "no measurement yet"
    order.note(job, 1.0)
    assert order.limit(job) == 300.0
    order.note(job, 60.0)
    assert order.limit(job) == 1200.0


def test_the_lower_bound_of_a_pass() -> None:
    even = Pass({"a": 3.0, "b": 3.0, "c": 2.0}, 5.0, 2)
    assert even.bound == 4.0 and even.most == pytest.approx(8 / 3) and even.longest == "a"
    assert Pass({"a": 7.0, "b": 1.0}, 7.5, 2).bound == 7.0


def test_a_slot_reads_or_receives_the_state_and_writes_no_file(tmp_path: Path) -> None:
    files = ClientStore(tmp_path)
    for number in (1, 2, 4):
        files.save("a", number, {"head": torch.tensor([float(number)])})
    slot = SlotStore(tmp_path, lambda text: None)
    slot.begin("a", 2, None)
    found = slot.load("a", 3)
    assert found is not None and found["head"] == 2.0 and slot.newest("a") == 2
    slot.begin("a", None, None)
    assert slot.load("a", 9) is None and slot.newest("a") is None, "the slot reads only the file that the driver names"

    from fedreid_pl.federation.storage import decode, encode

    slot.begin("a", 3, encode({"head": torch.tensor([7.0])}))
    found = slot.load("a", 4)
    assert found is not None and found["head"] == 7.0

    def refuse(state: object) -> None:
        raise ValueError("its head does not fit")

    with pytest.raises(LostState, match=r"client a.*head does not fit"):
        slot.load("a", 4, refuse)
    slot.save("a", 5, {"head": torch.tensor([5.0])})
    slot.drop("a", 0, [])
    assert slot.saved is not None and decode(slot.saved)["head"] == 5.0
    assert [path.name for path in sorted((tmp_path / "a").iterdir())] == [f"round-0000{n}.pt" for n in (1, 2, 4)]


def test_a_file_that_another_machine_cannot_read_is_reported_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedreid_pl.engines.ray.slot.PATIENCE", 0.0)
    with pytest.raises(Unseen):
        SlotStore(tmp_path, lambda text: None).begin("a", 2, None)


def test_the_driver_names_the_clients_last_state_and_drops_lost_ones(tmp_path: Path) -> None:
    files = ClientStore(tmp_path)
    for number in (1, 2, 3):
        files.save("a", number, {"turn": {"round": number}})
    asked: list[str] = []

    def drop_old(job: object) -> int:
        asked.append("drop")
        files.drop("a", 2, [])
        return 2

    states = SimpleNamespace(drop_old=drop_old, load=lambda job: files.load("a", drop_old(job) + 1))
    worker = SimpleNamespace(store=files, states=states)
    states = DriverStates(worker)  # type: ignore[arg-type]
    assert states.start_of(support.fit_job(3, "a"), sent=False) == (2, None)
    assert files.newest("a") == 2 and asked == ["drop"]
    round, state = states.start_of(support.fit_job(3, "a"), sent=True)
    assert round == 2 and isinstance(state, np.ndarray)
    states.keep(support.fit_job(3, "a"), state)
    assert files.load("a", 4) == {"turn": {"round": 2}} and files.newest("a") == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trainer.devices=2"], r"trainer\.devices=2.*one device"),
        (["engine.address=10.0.0.1"], r"engine\.address=10\.0\.0\.1: must be auto or HOST:PORT"),
        (["engine.address=ray://head:10001"], r"engine\.address=ray://head:10001: must be"),
    ],
)
def test_invalid_settings_are_refused_before_ray_starts(words: list[str], message: str) -> None:
    with pytest.raises(FedReIDError, match=message):
        check(compose(["engine=ray", *words]))


def test_several_processes_of_a_launcher_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "RANK": "0", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(FedReIDError, match="torchrun started 4 processes"):
        check(compose(["engine=ray"]))


def test_without_the_extra_one_line_shows_the_installation_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("fedreid_pl.engines.ray.cluster.find_spec", lambda name: None)
    assert main(["train", "engine=ray", f"output_dir={tmp_path / 'run'}"]) == 2
    assert capsys.readouterr().err.strip() == (
        "error: engine=ray: Ray is not installed; pip install 'fedreid-pl[ray]', or leave engine=ray out"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("word", ["engine.slots=2", "engine.address=auto", "engine.gpus_per_client=0.5"])
def test_a_setting_of_ray_without_ray_is_refused(word: str) -> None:
    with pytest.raises(FedReIDError, match=rf"{word}: has no effect with engine=sequential; add engine=ray"):
        compose([word])


def test_the_engine_does_not_change_lineage_or_fingerprint() -> None:
    plain = compose(["exp=fedpav"])
    words = ["engine.slots=3", "engine.address=auto", "engine.cpus_per_client=2", "engine.gpus_per_client=0.25"]
    other = compose(["exp=fedpav", "engine=ray", "engine.client_state=driver", *words])
    assert lineage(plain) == lineage(other) and fingerprint(plain) == fingerprint(other)


def test_a_signal_is_delayed_until_rays_code_returns() -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        with held_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
            assert came == []
        assert came == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_only_leftover_processes_of_a_killed_drivers_session_are_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    sessions = [tmp_path / "ray" / f"session_{name}" for name in ("left", "mine", "foreign")]
    processes = []
    for folder in sessions:
        folder.mkdir(parents=True)
        with open(folder / "agent.log", "w") as log:
            processes.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stdout=log))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    try:
        (sessions[0] / leftovers.MARK).write_text(json.dumps({"driver": gone.pid, "started": 1}))
        leftovers.mark_session(str(sessions[1]))
        assert leftovers.end_leftovers() == [processes[0].pid]
        assert processes[0].wait(10) == -signal.SIGKILL
        assert [process.poll() for process in processes[1:]] == [None, None]
        assert leftovers.end_leftovers() == [], "the mark is deleted"
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"driver": "x", "started": 1}', '{"driver": 1e999, "started": 1}'])
def test_an_invalid_mark_ends_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    folder = tmp_path / "ray" / "session_odd"
    folder.mkdir(parents=True)
    (folder / leftovers.MARK).write_text(text)
    assert leftovers.end_leftovers() == []
