"""The collection of updates: jobs, repeated jobs, accepted and refused answers."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import support
import torch
from federation.server.test_loop import DEFECTS, FakeEngine, Recorder, essence, make_loop

from fedreid_pl.callbacks.backbone_sync import BackboneSync
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.messages import ClientFailure, ClientJob, ClientUpdate, DeclaredTensor, RejectedUpdate
from fedreid_pl.federation.server.checks import check_scores, check_update
from fedreid_pl.federation.server.context import RoundContext


class Once(FakeEngine):
    """Clients that answer as in `wrong` only to the first job of a round."""

    def fit(self, jobs: Any) -> Any:
        yield from super().fit(jobs)
        self.wrong = {}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_valid_second_answer_replaces_an_invalid_first_one(tmp_path: Path, defect: str) -> None:
    calm, engine = make_loop(tmp_path / "1"), Once()
    calm.run()
    engine.wrong[1, "b"] = DEFECTS[defect]
    shaken = make_loop(tmp_path / "2", "client_retries=1", engine=engine)
    shaken.run()
    assert shaken.context.rejected == {"b": 1}
    assert [job.client for job in engine.jobs if job.round == 1] == ["a", "b", "c", "b"]
    assert shaken.context.weights == calm.context.weights
    for name, value in calm.context.models["global"].items():
        assert torch.equal(shaken.context.models["global"][name], value)
    assert shaken.context.costs.bytes_down > calm.context.costs.bytes_down, "the job was sent twice"


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_the_number_of_attempts(tmp_path: Path, retries: int) -> None:
    engine, watcher = FakeEngine(), Recorder()
    engine.wrong[2, "b"] = DEFECTS["nan"]
    loop = make_loop(tmp_path, f"client_retries={retries}", engine=engine, observers=[watcher])
    loop.run()
    assert sum((job.round, job.client) == (2, "b") for job in engine.jobs) == 1 + retries
    assert loop.context.rejected == {"b": 1 + retries}
    assert loop.context.rejections == {"b": {"tensor 'w' contains NaN or infinite values": [2] * (1 + retries)}}
    assert sum("gets the job again" in row[1] for row in watcher.log if row[0] == "warning") == retries


def test_the_job_is_not_repeated_after_a_final_failure(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.wrong[1, "b"] = lambda update: [ClientFailure(1, "b", "Diverged", "NaN", final=True)]
    loop = make_loop(tmp_path, "client_retries=5", engine=engine)
    loop.run()
    assert loop.context.rejected == {"b": 1}


def test_the_record_of_refused_updates_survives_a_resume(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.wrong = {(1, "b"): DEFECTS["nan"], (2, "a"): DEFECTS["failure"], (3, "b"): DEFECTS["nan"]}
    loop = make_loop(tmp_path, engine=engine)
    loop.run()
    again = make_loop(tmp_path)
    state, _ = again.checkpoints.latest()
    assert state is not None
    again.load_state_dict(state)
    assert (
        again.context.rejections
        == loop.context.rejections
        == {
            "b": {"tensor 'w' contains NaN or infinite values": [1, 3]},
            "a": {"RuntimeError: out of memory": [2]},
        }
    )
    assert essence(again) == essence(loop)


def test_an_answer_for_another_client_is_refused_and_the_silent_client_is_reported(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.wrong[1, "b"] = lambda update: [replace(update, client="a")]
    loop = make_loop(tmp_path, "rounds=1", engine=engine)
    loop.run()
    assert loop.context.rejections["b"] == {"the client did not answer": [1]}
    assert loop.context.rejections["a"] == {"the answer belongs to no job, or is a repetition": [1]}
    assert set(loop.context.weights) == {"a", "c"}


JOB = support.fit_job(3, "a", {"w": torch.zeros(2)}, {"evaluate": True})


def update_of(**changed: Any) -> ClientUpdate:
    fields: dict[str, Any] = {"round": 3, "client": "a", "backbone": {"w": torch.ones(2)}, "num_samples": 10}
    return ClientUpdate(**{"metrics": {}, **fields, **changed})


@pytest.mark.parametrize(
    ("metrics", "wanted"),
    [
        ({"train/accuracy": 1.5}, "'train/accuracy' is 1.5, expected a value from 0 to 1"),
        ({"train/accuracy": 1e300}, "'train/accuracy' is 1e.300, expected a value from 0 to 1"),
        ({"train/loss": -0.25}, "'train/loss' is -0.25, expected a value of at least 0"),
        ({"test/x/rank1": 1.01}, "'test/x/rank1' is 1.01"),
        ({"test/x/mAP": -1.0}, "'test/x/mAP' is -1.0"),
        ({"test/x/queries": -1.0}, "'test/x/queries' is -1.0, expected a value of at least 0"),
        ({"test/y/rank1": 0.5}, "test set 'y', which the job did not include"),
        ({"n" * 400: 1.0}, "has 400 characters, the maximum is 300"),
        ({str(number): 1.0 for number in range(20_000)}, "contains 20000 metrics"),
        ({"x": 10**9999}, "metric 'x' is a number with several thousand digits"),
    ],
)
def test_impossible_metrics_are_refused(metrics: dict, wanted: str) -> None:
    with pytest.raises(RejectedUpdate, match=wanted):
        check_update(update_of(metrics=metrics), JOB, 10, ("x",))
    asked = replace(JOB, config={"tests": "x"})
    with pytest.raises(RejectedUpdate, match=wanted):
        check_scores(update_of(metrics=metrics), asked)


def test_possible_metrics_pass() -> None:
    fine = {"train/accuracy": 1, "train/loss": 1e9, "test/x/rank1": 1 + 1e-9, "test/x/queries": 4000, "anything": -3}
    check_update(update_of(metrics=fine), JOB, 10, ("x",))
    check_update(update_of(metrics={**fine, "test/y/rank1": 0.0}), JOB)


@pytest.mark.parametrize("claimed", [11, 10**6, 0])
def test_no_more_images_than_at_registration(claimed: int) -> None:
    with pytest.raises(RejectedUpdate, match=f"reports {claimed} training images; it has registered 10"):
        check_update(update_of(num_samples=claimed), JOB, 10)


DECLARED = DeclaredTensor("prototypes", (None, 3), torch.float16, bound=2.0, most_rows=5)


class Prototypes(FederationCallback):
    """A callback that declares a few rows as the answer."""

    def declared_answers(self, federation: RoundContext, job: ClientJob) -> list[DeclaredTensor]:
        return [DECLARED]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (torch.ones(4, 3).half(), None),
        (torch.ones(0, 3).half(), None),
        (torch.ones(6, 3).half(), "has 6 rows, the maximum is 5"),
        (torch.ones(4, 2).half(), r"has shape \(4, 2\), expected \(any, 3\)"),
        (torch.ones(3).half(), r"has shape \(3,\)"),
        (torch.ones(4, 3), "has dtype torch.float32, expected torch.float16"),
        (torch.full((4, 3), -2.5).half(), "values with magnitude above 2"),
        (torch.full((4, 3), float("nan")).half(), "contains NaN"),
        (torch.ones(4, 3).half().to_sparse(), "is not a dense tensor"),
        (None, "tensor 'prototypes' is missing"),
    ],
)
def test_an_answer_is_checked_against_its_declaration(
    tmp_path: Path, rows: torch.Tensor | None, reason: str | None
) -> None:
    class Answering(FakeEngine):
        def train(self, job: ClientJob) -> ClientUpdate:
            extras = {} if rows is None else {"prototypes": rows}
            return replace(super().train(job), extras=extras)

    callbacks: dict[str, FederationCallback] = {"sync": BackboneSync(), "prototypes": Prototypes()}
    loop = make_loop(tmp_path, "rounds=1", "min_clients=1", engine=Answering(), callbacks=callbacks)
    if reason is None:
        loop.run()
        assert loop.context.rejected == {} and set(loop.context.weights) == set("abc")
        return
    with pytest.raises(FedReIDError, match="0 of 3 clients"):
        loop.run()
    found = loop.context.rejections["a"]
    assert len(found) == 1 and re.search(reason, next(iter(found)))


def test_jobs_contain_their_address_and_the_clients_last_round(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.wrong[2, "b"] = DEFECTS["failure"]
    engine.wrong[2, "c"] = DEFECTS["nan"]
    loop = make_loop(tmp_path, "client_retries=1", "rounds=3", engine=engine)
    loop.run()
    sent = {(job.round, job.client, job.attempt): job.config["starts_from"] for job in engine.jobs}
    assert sent == {
        **dict.fromkeys([(1, client, 1) for client in "abc"], 0),
        **dict.fromkeys([(2, client, 1) for client in "abc"], 1),
        **dict.fromkeys([(2, client, 2) for client in "bc"], 1),
        **{(3, "a", 2): 2, (3, "b", 2): 1, (3, "c", 2): 2},
    }, "b saved no state in round 2; c did, although its update was refused"
    assert {job.kind for job in engine.jobs} == {"fit"} and {job.kind for job in engine.evaluations} == {"evaluate"}
    assert {job.session for job in engine.jobs} == {loop.attempts.session}
    assert all(job.exchanged == tuple(job.backbone) for job in engine.jobs)
    assert [job.config["keeps"] for job in engine.jobs if job.client == "a"] == ["", "1", "1/2"]
