"""The round loop with an engine that trains nothing: hooks, selection, failures, evaluation, costs, resume."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedreid_pl.callbacks.backbone_sync import BackboneSync
from fedreid_pl.config import Config, compose
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.messages import ClientFailure, ClientJob, ClientUpdate, RejectedUpdate, State
from fedreid_pl.federation.server.attempts import Attempts
from fedreid_pl.federation.server.checkpoint import Checkpoints
from fedreid_pl.federation.server.context import RoundContext
from fedreid_pl.federation.server.loop import FederationLoop
from fedreid_pl.federation.server.observer import Observer
from fedreid_pl.federation.storage import read_state
from fedreid_pl.functional.randomness import generator

SIZES = {"a": 10, "b": 30, "c": 60}
STATE_BYTES = 6 * 4 + 3 * 4 + 8


def make_state() -> State:
    return {"w": torch.arange(6.0).view(2, 3), "mean": torch.zeros(3), "count": torch.tensor(0)}


class FakeEngine:
    """An engine that adds noise of (round, client) to the sent model; `wrong` maps (round, client) to other answers."""

    def __init__(self, sizes: Mapping[str, int] = SIZES) -> None:
        self.sizes = sizes
        self.jobs: list[ClientJob] = []
        self.evaluations: list[ClientJob] = []
        self.wrong: dict[tuple[int, str], Any] = {}
        self.backwards = False

    def fit(self, jobs: Iterable[ClientJob]) -> Iterator[ClientUpdate | ClientFailure]:
        outcomes: list[ClientUpdate | ClientFailure] = []
        for job in jobs:
            self.jobs.append(job)
            update = self.train(job)
            instead = self.wrong.get((job.round, job.client), lambda update: [update])
            outcomes += instead(update)
        yield from reversed(outcomes) if self.backwards else outcomes

    def train(self, job: ClientJob) -> ClientUpdate:
        draws = generator(job.round, job.client)
        backbone = {
            name: value + (1 if not value.is_floating_point() else torch.randn(value.shape, generator=draws))
            for name, value in job.backbone.items()
        }
        metrics = {"train/loss": float(torch.rand((), generator=draws)), "secret": 3.0}
        if job.config["evaluate"]:
            metrics[f"test/{job.client}/rank1"] = float(torch.rand((), generator=draws))
        return ClientUpdate(job.round, job.client, backbone, self.sizes[job.client], metrics)

    def evaluate(self, jobs: Iterable[ClientJob]) -> Iterator[ClientUpdate | ClientFailure]:
        for job in jobs:
            self.evaluations.append(job)
            if ("evaluate", job.client) in self.wrong:
                yield ClientFailure(job.round, job.client, "no memory")
                continue
            total = float(sum(value.double().sum() for value in job.backbone.values()))
            metrics = {
                f"test/{test}/rank1": 1 / (1 + abs(total) + len(test)) for test in job.config["tests"].split("/")
            }
            yield ClientUpdate(job.round, job.client, {}, self.sizes[job.client], metrics)

    def close(self) -> None:
        pass


class Recorder(FederationCallback, Observer):
    """Records every hook; an observer and a callback at the same time."""

    def __init__(self, log: list[tuple] | None = None, label: str = "") -> None:
        self.log = [] if log is None else log
        self.label = label
        self.counter = 0

    def _note(self, hook: str, *rest: Any) -> None:
        self.log.append((self.label + hook, *rest))

    def on_federation_start(self, federation: RoundContext) -> None:
        self._note("federation_start", federation.round)

    def on_round_start(self, federation: RoundContext) -> None:
        self._note("round_start", federation.round, *federation.selected)

    def on_distribute(self, federation: RoundContext, job: ClientJob) -> ClientJob:
        self._note("distribute", job.client)
        return job

    def on_update(self, federation: RoundContext, update: ClientUpdate) -> None:
        self._note("update", update.client)

    def on_aggregation_start(
        self, federation: RoundContext, updates: Sequence[ClientUpdate], weights: dict[str, float]
    ) -> None:
        self._note("aggregation_start", *(update.client for update in updates))

    def aggregate(
        self,
        federation: RoundContext,
        updates: Sequence[ClientUpdate],
        weights: Mapping[str, float],
        models: dict[str, State],
    ) -> dict[str, State]:
        self._note("aggregate", dict(weights))
        return models

    def on_aggregation_end(self, federation: RoundContext, updates: Sequence[ClientUpdate]) -> None:
        self._note("aggregation_end", len(updates))
        self.counter += len(updates)

    def on_round_end(self, federation: RoundContext, records: Any = None) -> None:
        self._note("round_end" if records is None else "observed", federation.round)

    def on_federation_end(self, federation: RoundContext) -> None:
        self._note("federation_end", federation.round)

    def on_warning(self, federation: RoundContext, text: str) -> None:
        self._note("warning", text)

    def on_start(self, federation: RoundContext) -> None:
        self._note("start", federation.round)

    def on_end(self, federation: RoundContext) -> None:
        self._note("end", federation.round)

    def state_dict(self) -> dict[str, Any]:
        return {"counter": self.counter, "tensor": torch.full((2,), float(self.counter))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.counter = state["counter"]
        assert torch.equal(state["tensor"], torch.full((2,), float(self.counter)))


def config_of(*words: str) -> Config:
    return compose(["exp=fedpav", "rounds=3", "evaluate_every=1", "seed=5", "client_retries=0", *words])


def make_loop(
    folder: Path,
    *words: str,
    engine: FakeEngine | None = None,
    callbacks: dict[str, FederationCallback] | None = None,
    tests: Mapping[str, Sequence[str]] | None = None,
    observers: Sequence[Observer] = (),
    sizes: Mapping[str, int] = SIZES,
) -> FederationLoop:
    tests = tests or {client: (client,) for client in sizes}
    return FederationLoop(
        RoundContext(config_of(*words), sizes, tests, make_state(), frozenset({"mean", "count"})),
        engine or FakeEngine(sizes),
        {"backbone_sync": BackboneSync()} if callbacks is None else callbacks,
        Checkpoints(folder / "checkpoints"),
        observers,
        attempts=Attempts(folder / "checkpoints"),
    )


def essence(loop: FederationLoop) -> tuple:
    """Returns all values that must be equal in two runs, without durations."""
    context = loop.context
    models = {name: {key: value.tolist() for key, value in state.items()} for name, state in context.models.items()}
    costs = context.costs
    return context.history.records, models, context.rejected, costs.bytes_up, costs.bytes_down, context.round


def test_hooks_come_in_order(tmp_path: Path) -> None:
    watcher = Recorder(label="watch.")
    first = Recorder(watcher.log)
    callbacks: dict[str, FederationCallback] = {"first": first, "backbone_sync": BackboneSync()}
    engine = FakeEngine()
    loop = make_loop(tmp_path, "rounds=2", engine=engine, callbacks=callbacks, observers=[watcher])
    assert watcher.log == [("federation_start", 0)]
    loop.run()
    a_round = [
        *(("distribute", client) for client in "abc"),
        *(("update", client) for client in "abc"),
        ("aggregation_start", "a", "b", "c"),
        ("aggregate", {"a": 0.1, "b": 0.3, "c": 0.6}),
        ("aggregation_end", 3),
    ]
    assert watcher.log[1:] == [
        ("watch.start", 0),
        *(("round_start", 1, "a", "b", "c"), *a_round, ("round_end", 1), ("watch.observed", 1)),
        *(("round_start", 2, "a", "b", "c"), *a_round, ("round_end", 2), ("watch.observed", 2)),
        ("federation_end", 2),
        ("watch.end", 2),
    ]


def test_the_model_is_the_average_of_the_updates_and_goes_to_the_next_round(tmp_path: Path) -> None:
    engine = FakeEngine()
    loop = make_loop(tmp_path, "rounds=2", engine=engine)
    loop.run()
    model = make_state()
    for round in (1, 2):
        sent = [job for job in engine.jobs if job.round == round]
        assert [job.client for job in sent] == ["a", "b", "c"]
        for job in sent:
            assert all(torch.allclose(job.backbone[name], model[name], atol=1e-5) for name in model)
        updates = [engine.train(job) for job in sent]
        model = {
            name: sum(size / 100 * update.backbone[name] for size, update in zip((10, 30, 60), updates, strict=True))
            for name in ("w", "mean")
        }
        model["count"] = torch.tensor(round)
    for name, value in model.items():
        torch.testing.assert_close(loop.context.models["global"][name], value, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(loop.context.initial_backbone[name], value) for name, value in make_state().items())


def test_the_order_of_arrival_changes_neither_model_nor_weights(tmp_path: Path) -> None:
    plain, engine = make_loop(tmp_path / "1"), FakeEngine()
    engine.backwards = True
    turned = make_loop(tmp_path / "2", engine=engine)
    plain.run()
    turned.run()
    for name, value in plain.context.models["global"].items():
        assert torch.equal(turned.context.models["global"][name], value)
    assert turned.context.weights == plain.context.weights and sorted(turned.context.history.records) == sorted(
        plain.context.history.records
    )


def test_only_the_drawn_clients_take_part(tmp_path: Path) -> None:
    sizes = dict.fromkeys("abcdefg", 10)
    engine = FakeEngine(sizes)
    loop = make_loop(tmp_path, "rounds=8", "clients_per_round=3", engine=engine, sizes=sizes)
    loop.run()
    teams = [tuple(job.client for job in engine.jobs if job.round == round) for round in range(1, 9)]
    assert all(len(set(team)) == 3 for team in teams) and len(set(teams)) > 1
    for round, team in enumerate(teams, 1):
        assert {r.name for r in loop.context.history.of_round(round) if r.metric == "weight"} == set(team)
    with pytest.raises(FedReIDError, match=r"clients_per_round=8: there are 7 clients"):
        make_loop(tmp_path, "clients_per_round=8", sizes=sizes)
    with pytest.raises(FedReIDError, match=r"min_clients=4: a round has 3 of 7 clients; choose at most 3"):
        make_loop(tmp_path, "clients_per_round=3", "min_clients=4", sizes=sizes)


def shifted(update: ClientUpdate, **changed: Any) -> list[Any]:
    return [replace(update, **changed)]


DEFECTS = {
    "failure": lambda update: [ClientFailure(update.round, update.client, "RuntimeError: out of memory")],
    "nan": lambda update: shifted(update, backbone={**update.backbone, "w": torch.full((2, 3), math.nan)}),
    "shape": lambda update: shifted(update, backbone={**update.backbone, "w": torch.zeros(3, 2)}),
    "name": lambda update: shifted(update, backbone={**update.backbone, "head": torch.zeros(3)}),
    "round": lambda update: shifted(update, round=update.round - 1),
    "samples": lambda update: shifted(update, num_samples=-1),
    "metric": lambda update: shifted(update, metrics={"train/loss": math.inf}),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_bad_update_is_skipped_reported_and_counted(tmp_path: Path, defect: str) -> None:
    engine, watcher = FakeEngine(), Recorder()
    engine.wrong[2, "b"] = DEFECTS[defect]
    loop = make_loop(tmp_path, engine=engine, observers=[watcher])
    loop.run()
    warnings = [row[1] for row in watcher.log if row[0] == "warning"]
    assert len(warnings) == 1 and warnings[0].startswith("round 2: client b is left out: ")
    assert loop.context.rejected == {"b": 1}
    weights = {r.name: r.value for r in loop.context.history.of_round(2) if r.metric == "weight"}
    assert weights == pytest.approx({"a": 10 / 70, "c": 60 / 70})
    assert not [r for r in loop.context.history.of_round(2) if r.name == "b" and r.section in ("train", "local")]
    sent = [job for job in engine.jobs if job.round == 2]
    kept = {job.client: engine.train(job).backbone["w"] for job in sent if job.client != "b"}
    third = next(job for job in engine.jobs if job.round == 3)
    torch.testing.assert_close(third.backbone["w"], (10 * kept["a"] + 60 * kept["c"]) / 70)
    assert all(torch.isfinite(value).all() for value in loop.context.models["global"].values())


def test_a_callback_may_refuse_an_update(tmp_path: Path) -> None:
    class Strict(FederationCallback):
        def on_update(self, federation: RoundContext, update: ClientUpdate) -> None:
            if update.client == "c":
                raise RejectedUpdate("moved too far")

    watcher = Recorder()
    loop = make_loop(tmp_path, callbacks={"sync": BackboneSync(), "strict": Strict()}, observers=[watcher])
    loop.run()
    assert loop.context.rejected == {"c": 3} and loop.context.weights == pytest.approx({"a": 0.25, "b": 0.75})
    assert ("warning", "round 1: client c is left out: moved too far") in watcher.log


def test_too_few_good_updates_stop_the_run_at_the_saved_round(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.wrong = {(2, client): DEFECTS["failure"] for client in "ac"}
    loop = make_loop(tmp_path, "min_clients=2", engine=engine)
    with pytest.raises(FedReIDError, match=r"round 2: 1 of 3 clients.*min_clients=2\. The last saved round is 1"):
        loop.run()
    state, problems = loop.checkpoints.latest()
    assert state is not None and state["round"] == 1 and problems == []


def test_unexpected_and_repeated_updates_are_refused(tmp_path: Path) -> None:
    engine, watcher = FakeEngine(), Recorder()
    engine.wrong[1, "a"] = lambda update: [update, replace(update, num_samples=10**9)]
    engine.wrong[1, "b"] = lambda update: [update, replace(update, client="stranger")]
    engine.wrong[1, "c"] = lambda update: []  # never answers
    loop = make_loop(tmp_path, "rounds=1", engine=engine, observers=[watcher])
    loop.run()
    assert loop.context.weights == {"a": 0.25, "b": 0.75} and loop.context.rejected == {"a": 1, "stranger": 1, "c": 1}
    assert ("warning", "round 1: client c is left out: the client did not answer") in watcher.log
    assert (
        sum("the answer belongs to no job, or is a repetition" in row[1] for row in watcher.log if row[0] == "warning")
        == 2
    )


def test_the_byte_counts_are_those_of_the_sent_messages(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.wrong[1, "b"] = DEFECTS["failure"]
    engine.wrong[2, "c"] = DEFECTS["nan"]
    loop = make_loop(tmp_path, engine=engine)
    loop.run()
    assert loop.context.costs.bytes_down == 3 * 3 * STATE_BYTES, "every job was sent"
    assert loop.context.costs.bytes_up == (3 * 3 - 1) * STATE_BYTES, "a bad update counts, a failure does not"
    assert loop.context.history.series("cost", "b", "bytes_down") == dict.fromkeys((1, 2, 3), STATE_BYTES)
    assert loop.context.history.series("cost", "b", "bytes_up") == dict.fromkeys((2, 3), STATE_BYTES)


def test_without_an_aggregator_nothing_is_exchanged(tmp_path: Path) -> None:
    engine = FakeEngine()
    loop = make_loop(tmp_path, engine=engine, callbacks={})
    loop.run()
    assert loop.context.models == {} and loop.context.weights == {} and engine.evaluations == []
    assert all(job.backbone == {} for job in engine.jobs) and len(engine.jobs) == 9
    assert loop.context.costs.bytes_up == loop.context.costs.bytes_down == 0
    series = loop.context.history.mean_series("local", "rank1")
    assert set(series) == {1, 2, 3} and loop.best_round() == max(series, key=lambda round: series[round])


def test_shared_test_sets_are_evaluated_once(tmp_path: Path) -> None:
    engine = FakeEngine()
    tests = {"a": ("x", "y"), "b": ("y", "z"), "c": ("z", "x")}
    loop = make_loop(tmp_path, "rounds=1", engine=engine, tests=tests)
    loop.evaluate_models()
    assert [(job.client, job.config["tests"]) for job in engine.evaluations] == [("a", "x/y"), ("b", "z")]
    assert sorted(r.name for r in loop.context.history.records) == ["x", "y", "z"]


def test_every_model_is_evaluated_on_its_members(tmp_path: Path) -> None:
    engine = FakeEngine()
    loop = make_loop(tmp_path, engine=engine)
    loop.context.models = {"one": {"w": torch.ones(1)}, "two": {"w": torch.ones(2)}}
    loop.context.assignment = {"a": "two", "b": "one", "c": "two"}
    loop.evaluate_models()
    assert [(job.client, job.nbytes) for job in engine.evaluations] == [("b", 4), ("a", 8), ("c", 8)]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("rounds=7", "evaluate_every=3"), [0, 3, 6, 7]),
        (("rounds=4", "evaluate_every=2"), [0, 2, 4]),
        (("rounds=2", "evaluate_every=10"), [0, 2]),
    ],
)
def test_rounds_of_evaluation(tmp_path: Path, words: tuple[str, ...], wanted: list[int]) -> None:
    engine = FakeEngine()
    loop = make_loop(tmp_path, *words, engine=engine)
    loop.run()
    assert sorted(loop.context.history.series("global", "a", "rank1")) == wanted
    assert sorted(loop.context.history.series("local", "a", "rank1")) == wanted[1:]
    assert {job.round for job in engine.jobs if job.config["evaluate"]} == set(wanted[1:])
    assert loop.best_round() in wanted[1:]


def test_a_failed_evaluation_only_gives_a_warning(tmp_path: Path) -> None:
    engine, watcher = FakeEngine(), Recorder()
    engine.wrong["evaluate", "b"] = True  # type: ignore[index]
    loop = make_loop(tmp_path, "rounds=1", engine=engine, observers=[watcher])
    loop.run()
    warnings = [row[1] for row in watcher.log if row[0] == "warning"]
    assert warnings[-1] == "round 1: client b could not evaluate the global model: no memory"
    assert loop.context.history.names("global") == ["a", "c"]


def test_a_shared_test_set_is_recorded_by_client_after_local_training(tmp_path: Path) -> None:
    tests = {"a": ("x",), "b": ("x",), "c": ("x", "deep/name")}

    class Shared(FakeEngine):
        def train(self, job: ClientJob) -> ClientUpdate:
            scores = {"deep/name": 0.25, "x": 0.5}
            metrics = {f"test/{test}/rank1": score for test, score in scores.items() if test in tests[job.client]}
            return replace(super().train(job), metrics=metrics)

    loop = make_loop(tmp_path, "rounds=1", engine=Shared(), callbacks={}, tests=tests)
    loop.run()
    names = [(r.name, r.metric, r.value) for r in loop.context.history.records if r.section == "local"]
    wanted = [("a", "rank1", 0.5), ("b", "rank1", 0.5), ("deep/name", "rank1", 0.25), ("x", "rank1", 0.5)]
    assert names == wanted


def test_changes_to_a_job_reach_the_client(tmp_path: Path) -> None:
    class Half(FederationCallback):
        def on_distribute(self, federation: RoundContext, job: ClientJob) -> ClientJob:
            small = {name: value for name, value in job.backbone.items() if name != "mean"}
            return replace(job.exchanging(small), config={**job.config, "mu": 0.1})

    engine = FakeEngine()
    loop = make_loop(tmp_path, "rounds=1", engine=engine, callbacks={"sync": BackboneSync(), "half": Half()})
    loop.run()
    assert all(set(job.backbone) == {"w", "count"} and job.config["mu"] == 0.1 for job in engine.jobs)
    assert loop.context.rejected == {} and loop.context.costs.bytes_down == 3 * (STATE_BYTES - 12)


def test_the_state_of_a_checkpoint_is_read_back_equal(tmp_path: Path) -> None:
    recorder = Recorder()
    callbacks: dict[str, FederationCallback] = {"sync": BackboneSync(), "recorder": recorder}
    loop = make_loop(tmp_path / "1", callbacks=callbacks)
    loop.run()
    loop.context.assignment = {"b": "global"}
    loop.checkpoints.save(9, loop.state_dict(), None)
    again_recorder = Recorder()
    again = make_loop(tmp_path / "2", callbacks={"sync": BackboneSync(), "recorder": again_recorder})
    again.load_state_dict(read_state(loop.checkpoints.path(9)))
    assert essence(again) == essence(loop) and again.context.assignment == {"b": "global"}
    assert again_recorder.counter == recorder.counter == 9
    assert again.context.models["global"]["count"].dtype == torch.int64
    before = {name: value for name, value in loop.context.costs.seconds.items() if name != "total"}
    assert {name: value for name, value in again.context.costs.seconds.items() if name != "total"} == before


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, stop: int) -> None:
    words = ("rounds=5", "evaluate_every=2", "clients_per_round=2")
    whole = make_loop(tmp_path / "whole", *words)
    whole.run()

    class Killed(FakeEngine):
        def train(self, job: ClientJob) -> ClientUpdate:
            if job.round == stop + 1 and any(done.round == stop + 1 for done in self.jobs[:-1]):
                raise KeyboardInterrupt
            return super().train(job)

    first = make_loop(tmp_path / "part", *words, engine=Killed())
    with pytest.raises(KeyboardInterrupt):
        first.run()
    second = make_loop(tmp_path / "part", *words)
    state, _ = second.checkpoints.latest()
    assert state is not None and state["round"] == stop
    second.load_state_dict(state)
    second.run()
    turns = whole.context.turns
    assert second.context.turns == turns and set(turns.values()) <= {1, 2, 3, 4, 5}
    assert essence(second) == essence(whole) and second.best_round() == whole.best_round()
    assert second.checkpoints.rounds() == whole.checkpoints.rounds()


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    loop = make_loop(tmp_path)
    loop.run()
    engine = FakeEngine()
    again = make_loop(tmp_path, engine=engine)
    state, _ = again.checkpoints.latest()
    assert state is not None
    again.load_state_dict(state)
    again.run()
    assert engine.jobs == [] and engine.evaluations == [] and essence(again) == essence(loop)
    assert again.context.weights == loop.context.weights, "the summary of a reopened run contains its weights"


def test_the_last_two_checkpoints_and_the_best_are_kept(tmp_path: Path) -> None:
    loop = make_loop(tmp_path, "rounds=6", "evaluate_every=1")
    loop.run()
    series = {round: value for round, value in loop.context.history.mean_series("global", "rank1").items() if round}
    best = max(series, key=lambda round: (series[round], round))
    assert loop.best_round() == best and loop.checkpoints.rounds() == sorted({best, 5, 6})


def test_warnings_reach_every_observer(tmp_path: Path) -> None:
    watchers = [Recorder(), Recorder()]
    loop = make_loop(tmp_path, observers=watchers)
    loop.context.round = 4
    loop.context.warn("something else was done")
    assert [watcher.log for watcher in watchers] == [[("warning", "round 4: something else was done")]] * 2
