"""Clients that join, leave and return: jobs, the ledger, means and the state of algorithms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from federation.server.test_loop import FakeEngine, Recorder, make_loop

from fedreid_pl.callbacks.backbone_sync import BackboneSync
from fedreid_pl.callbacks.clustering import Clustering
from fedreid_pl.callbacks.differential_privacy import DifferentialPrivacy
from fedreid_pl.callbacks.scaffold import Scaffold
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.engine import Member
from fedreid_pl.federation.messages import ClientFailure, ClientJob, ClientUpdate
from fedreid_pl.federation.server.checkpoint import Checkpoints
from fedreid_pl.federation.server.checkpoint_content import problem_of
from fedreid_pl.federation.server.members import Members
from fedreid_pl.reporting.html.sections.members import rounds_text
from fedreid_pl.reporting.run_folder import build_summary

SIZES = {"a": 10, "b": 30, "c": 60, "d": 5}
BY_ROUND = {1: "ab", 2: "abc", 3: "ac", 4: "ac", 5: "dabc"}


class Changing(FakeEngine):
    """An engine with the clients of `BY_ROUND`; b returns in round 5 with 40 images."""

    def __init__(self) -> None:
        super().__init__(dict(SIZES))
        self.round = 0

    def members(self) -> dict[str, Member]:
        self.round += 1
        if self.round == 5:
            self.sizes = {**SIZES, "b": 40}
        return {name: Member(self.sizes[name], (name,)) for name in BY_ROUND[self.round]}


def run(folder: Path, engine: Changing, *words: str, watcher: Any = None, **more: Any) -> Any:
    first = {name: SIZES[name] for name in BY_ROUND[engine.round + 1]}
    loop = make_loop(folder, "rounds=5", *words, engine=engine, sizes=first, observers=[watcher or Recorder()], **more)
    state, _ = loop.checkpoints.latest()
    if state is not None:
        loop.load_state_dict(state)
    return loop


class Noting(FederationCallback):
    def __init__(self) -> None:
        self.seen: list[tuple[int, dict[str, int]]] = []

    def on_members_change(self, federation: Any, changes: Any) -> None:
        self.seen.append((federation.round, dict(changes)))


def test_a_round_has_the_current_members(tmp_path: Path) -> None:
    engine, noting = Changing(), Noting()
    loop = run(tmp_path, engine, callbacks={"sync": BackboneSync(), "noting": noting})
    loop.run()
    asked = {round: [job.client for job in engine.jobs if job.round == round] for round in BY_ROUND}
    assert asked == {1: ["a", "b"], 2: ["a", "b", "c"], 3: ["a", "c"], 4: ["a", "c"], 5: ["d", "a", "b", "c"]}
    assert noting.seen == [(2, {"c": 60}), (3, {"b": 0}), (5, {"b": 40, "d": 5})]
    jobs = {(job.round, job.client): job for job in engine.jobs}
    assert jobs[2, "c"].config["starts_from"] == 0, "a new client has no earlier turn"
    assert jobs[5, "b"].config["starts_from"] == 2, "its last turn before it left"
    assert torch.equal(jobs[2, "c"].backbone["w"], jobs[2, "a"].backbone["w"]), "a new client receives the same model"
    weights = {r.name: r.value for r in loop.context.history.of_round(5) if r.metric == "weight"}
    assert weights == pytest.approx({"a": 10 / 115, "b": 40 / 115, "c": 60 / 115, "d": 5 / 115})


def test_the_ledger_records_membership_by_round(tmp_path: Path) -> None:
    loop = run(tmp_path, Changing())
    loop.run()
    members = build_summary(loop.context)["members"]
    assert members["a"] == [{"first": 1, "last": None, "images": 10}]
    assert members["b"] == [{"first": 1, "last": 2, "images": 30}, {"first": 5, "last": None, "images": 40}]
    assert members["c"] == [{"first": 2, "last": None, "images": 60}]
    changes = [(r.round, r.name, r.value) for r in loop.context.history.records if r.section == "members"]
    assert changes == [(2, "c", 60), (3, "b", 0), (5, "d", 5), (5, "b", 40)]


def test_the_mean_is_over_the_final_members(tmp_path: Path) -> None:
    BY_ROUND[5] = "ac"
    try:
        loop = run(tmp_path, Changing())
        loop.run()
    finally:
        BY_ROUND[5] = "dabc"
    history = loop.context.history
    series = history.mean_series("global", "rank1")
    one, other = (history.series("global", name, "rank1") for name in "ac")
    assert series == {round: (one[round] + other[round]) / 2 for round in (2, 3, 4, 5)}
    assert "b" in history.names("global"), "its earlier scores are kept"
    assert loop.best_round() in series


def test_a_resumed_run_continues_with_its_members(tmp_path: Path) -> None:
    straight = run(tmp_path / "straight", Changing())
    straight.run()
    engine = Changing()
    loop = run(tmp_path / "stopped", engine)
    loop.context.rounds = 3
    loop.run()
    again_engine = Changing()
    again_engine.round = 3
    again = run(tmp_path / "stopped", again_engine)
    assert again.context.round == 3
    again.run()
    assert again.context.history.records == straight.context.history.records
    assert again.context.ledger.members.summary() == straight.context.ledger.members.summary()


def test_a_resumed_run_may_have_other_members(tmp_path: Path) -> None:
    engine, noting = Changing(), Noting()
    loop = run(tmp_path, engine)
    loop.context.rounds = 1
    loop.run()
    later = FakeEngine({"b": 30, "x": 7})
    again = make_loop(
        tmp_path, "rounds=2", engine=later, sizes=later.sizes, callbacks={"sync": BackboneSync(), "noting": noting}
    )
    state, _ = again.checkpoints.latest()
    again.load_state_dict(state)  # type: ignore[arg-type]
    again.run()
    assert noting.seen == [(2, {"a": 0, "x": 7})]
    assert again.context.ledger.members.present() == {"b": 30, "x": 7}


def test_a_checkpoint_without_a_ledger_counts_its_clients_as_members_from_the_start(tmp_path: Path) -> None:
    loop = make_loop(tmp_path, "rounds=1")
    loop.run()
    state = loop.state_dict()
    del state["members"]
    again = make_loop(tmp_path / "again", "rounds=2")
    again.load_state_dict(state)
    again.run()
    assert again.context.ledger.members.spans("a") == [(1, None, 10)]
    assert not [r for r in again.context.history.records if r.section == "members"]


def test_too_few_members_stop_the_run_at_the_saved_round(tmp_path: Path) -> None:
    engine = Changing()
    with pytest.raises(FedReIDError, match=r"round 3: 2 clients left, but min_clients=3\. The last saved round is 2"):
        loop = run(tmp_path, engine, callbacks={"sync": BackboneSync()})
        loop.context.config.min_clients = 2
        loop.context.round = 0
        for round in (1, 2, 3):
            loop.context.round = round
            loop.context.config.min_clients = 3 if round == 3 else 2
            loop.run_round()
    assert Checkpoints(tmp_path / "checkpoints").rounds()[-1] == 2
    assert {job.round for job in engine.jobs} == {1, 2}, "no client trains for a round that cannot finish"


class Controls(Changing):
    """Returns the change that SCAFFOLD's client would send if every client's c_k+ is a different number."""

    own: dict[str, torch.Tensor]

    def fit(self, jobs: Iterable[ClientJob]) -> Iterator[ClientUpdate | ClientFailure]:
        for job in jobs:
            update = self.train(job)
            new = {name: torch.full_like(value, ord(job.client) * job.round) for name, value in job.extras.items()}
            before = self.__dict__.setdefault("kept", {})
            change = {
                name: value - before.get((job.client, name), torch.zeros_like(value)) for name, value in new.items()
            }
            before.update({(job.client, name): value for name, value in new.items()})
            yield ClientUpdate(job.round, job.client, update.backbone, update.num_samples, update.metrics, change)


def test_scaffolds_c_is_the_mean_over_all_clients_that_were_ever_members(tmp_path: Path) -> None:
    engine, scaffold = Controls(), Scaffold()
    loop = run(tmp_path, engine, callbacks={"sync": BackboneSync(), "scaffold": scaffold})
    loop.run()
    kept = [value for (client, name), value in engine.__dict__["kept"].items() if name == "scaffold.w"]
    assert len(kept) == 4
    torch.testing.assert_close(scaffold.state_dict()["control"]["w"], torch.stack(kept).mean(0))


class Server:
    """Returns a context with models of clusters."""

    def __init__(self, clients: str, assignment: dict[str, str]) -> None:
        self.clients, self.assignment = dict.fromkeys(clients, 1), assignment
        self.models = {"cluster-a": {}, "cluster-c": {}}

    def model_of(self, client: str) -> str:
        return self.assignment.get(client, "global")


def test_a_new_client_starts_with_the_model_of_the_largest_cluster() -> None:
    server: Any = Server("abcde", {"a": "cluster-a", "b": "cluster-c", "c": "cluster-c", "d": "cluster-gone"})
    Clustering().on_members_change(server, {"e": 1})
    assert server.assignment == {
        "a": "cluster-a",
        **dict.fromkeys("bcde", "cluster-c"),
    }


def test_more_clients_than_the_privacy_guarantee_covers_are_refused() -> None:
    private = DifferentialPrivacy(noise_multiplier=1.0, clip=1.0, delta=0.3)
    federation: Any = Server("abc", {})
    private.on_members_change(federation, {})
    federation.clients = dict.fromkeys("abcd", 1)
    with pytest.raises(FedReIDError, match="there are now 4 clients"):
        private.on_members_change(federation, {"d": 1})


def test_the_sampling_rate_of_epsilon_does_not_change() -> None:
    federation: Any = Server("abcd", {})
    federation.config = type("Config", (), {"clients_per_round": 2})
    private = DifferentialPrivacy(selection="poisson", clip=1.0, delta=1e-3)
    private.on_federation_start(federation)
    state = private.state_dict()
    federation.clients = dict.fromkeys("abcdefgh", 1)
    again = DifferentialPrivacy(selection="poisson", clip=1.0, delta=1e-3)
    again.on_federation_start(federation)
    again.load_state_dict(state)
    assert again.state_dict()["rate"] == 0.5


@pytest.mark.parametrize("events", [[], [[1]], [[1, -1]], [["1", 2]], [[1, 2, 3]], 7])
def test_an_invalid_ledger_is_refused(events: Any) -> None:
    assert problem_of({"round": 1, "members": {"a": events}}) == "'members' is not valid"
    assert problem_of({"round": 1, "members": {"a": [[1, 10], [4, 0]]}}) is None


def test_spans_and_ranges() -> None:
    members = Members()
    for round, clients in {1: {"a": 1}, 2: {}, 3: {"a": 1}, 4: {"a": 2}}.items():
        members.note(round, clients)
    assert members.spans("a") == [(1, 1, 1), (3, 3, 1), (4, None, 2)] and members.spans("b") == []
    assert [rounds_text(rounds) for rounds in ([], [3], [4, 1, 2])] == ["-", "round 3", "rounds 1 to 2, 4"]
