"""The worker of the sequential engine refuses every hostile job before it changes any state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import support
from hostile.jobs import JOBS

from fedreid_pl.clients import build_worker
from fedreid_pl.config import compose
from fedreid_pl.federation.client.worker import ClientWorker
from fedreid_pl.federation.messages import ClientJob, RejectedJob

CLIENT, SESSION = "mini-viper", "0123456789abcdef"


@pytest.fixture(scope="module")
def worker(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClientWorker]:
    """Returns a worker whose client has trained in round 1."""
    folder = tmp_path_factory.mktemp("hostile")
    config = compose(["exp=fedpav", *support.quick(tiny_root, folder), "trainer.accelerator=cpu"])
    made = build_worker(config, folder, SESSION)
    made.fit(honest(made, 1))
    yield made


def honest(worker: ClientWorker, round: int) -> ClientJob:
    """Returns the job of an honest server."""
    config = {"starts_from": round - 1, "keeps": "", "evaluate": False, "inspect": False}
    return ClientJob("fit", SESSION, round, 1, CLIENT, config=config).exchanging(dict(worker.initial))  # type: ignore[arg-type]


def kept(worker: ClientWorker) -> dict[str, bytes]:
    place = Path(worker.store.place(CLIENT))
    return {path.name: path.read_bytes() for path in place.iterdir()}


@pytest.mark.parametrize("name", JOBS)
def test_a_hostile_job_is_refused_and_changes_nothing(name: str, worker: ClientWorker) -> None:
    before = kept(worker)
    job = JOBS[name](honest(worker, 2))
    if name == "older round":  # another job of the answered round
        job = JOBS[name](honest(worker, 1))
    with pytest.raises(RejectedJob) as refusal:
        worker.do(job)
    text = str(refusal.value)
    assert text.isprintable() and len(text) < 500, "one printable line"
    assert kept(worker) == before


def test_the_job_before_its_alteration_is_accepted(worker: ClientWorker) -> None:
    update = worker.do(honest(worker, 2))
    assert update.round == 2 and set(update.backbone) == set(worker.initial)
