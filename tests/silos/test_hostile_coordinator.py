"""A silo with a hostile coordinator: the silo refuses every invalid job and experiment and sends no data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import support
import torch
import yaml
from hostile.jobs import JOBS
from silos.parties import make_parties, make_service
from silos.signing import SESSION, Coordinator

from fedreid_pl.config import compose
from fedreid_pl.engines.silos.payload import Opened, Payload
from fedreid_pl.engines.silos.service import SiloService
from fedreid_pl.engines.silos.shared import experiment_digest, shared_text
from fedreid_pl.federation.messages import ClientJob

SILO = "mini-viper"
Parties = tuple[Coordinator, SiloService]


@pytest.fixture(scope="module")
def parties(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    """A coordinator and a silo that has answered rounds 1 and 2."""
    home = tmp_path_factory.mktemp("hostile")
    federation, silos = make_parties(home, [SILO, "other"])
    coordinator, service = Coordinator(federation, silos[SILO], home), make_service(silos[SILO], tiny_root)
    assert kind(coordinator, service, coordinator.experiment()) == "joined"
    for round in (1, 2):
        assert kind(coordinator, service, coordinator.payload("fit", round, coordinator.initial)) == "update"
    yield coordinator, service


def kind(coordinator: Coordinator, service: SiloService, payload: Payload) -> str:
    answer = service.answer(payload)
    return "ignored" if answer is None else coordinator.opened(answer).header.kind


def folders(service: SiloService) -> list[str]:
    return sorted(path.name for path in (service.folder.path / "sessions").iterdir() if path.is_dir())


def kept(service: SiloService) -> dict[Path, bytes]:
    """Returns the saved client states: heads and the callbacks' entries."""
    return {path: path.read_bytes() for path in (service.folder.path / "sessions").rglob("*.pt")}


def nothing_left(opened: Opened) -> None:
    """Asserts that the answer contains only the kind of the refusal."""
    assert opened.header.kind in ("failure", "refused") and not opened.backbone and not opened.extras
    assert set(opened.header.values) <= {"reason", "final"}
    assert str(opened.header.values["reason"]).replace("policy.", "").isidentifier(), (
        "the answer contains no error text"
    )


def signed(coordinator: Coordinator, job: ClientJob) -> Payload:
    """Signs a job as the coordinator, without checking its content."""
    address = {"session": job.session, "attempt": job.attempt, "values": dict(job.config), "extras": job.extras}
    return coordinator.payload(job.kind, job.round, job.backbone, **address)


UNSIGNABLE = ("no round", "round below zero", "no attempt", "another session", "a path as a session")
"""Jobs with an invalid header or an unknown session; tested below and in `hostile.payloads`."""


@pytest.mark.parametrize("name", [name for name in JOBS if name not in UNSIGNABLE])
def test_a_hostile_job_is_refused_and_no_data_are_sent(name: str, parties: Parties) -> None:
    coordinator, service = parties
    values = {"starts_from": 2, "keeps": "", "evaluate": False, "inspect": False}
    honest = ClientJob("fit", SESSION, 3, 1, SILO, config=values).exchanging(dict(coordinator.initial))  # type: ignore[arg-type]
    before = kept(service)
    job = JOBS[name](JOBS[name](honest) if name == "older round" else honest)  # applied twice: round 1
    answer = service.answer(signed(coordinator, job))
    if answer is not None:
        nothing_left(coordinator.opened(answer))
        assert coordinator.opened(answer).header.values["reason"] == "RejectedJob"
    else:
        assert name == "older round"
    assert kept(service) == before


def test_jobs_of_unknown_sessions_leave_no_folder_behind(parties: Parties) -> None:
    coordinator, service = parties
    before = folders(service)
    for number in range(20):
        answer = service.answer(coordinator.payload("fit", 3, coordinator.initial, session=f"{number:016x}"))
        assert answer is not None
        nothing_left(coordinator.opened(answer))
    assert folders(service) == before


def test_a_hostile_job_does_not_affect_the_honest_one(parties: Parties) -> None:
    coordinator, service = parties
    tensors = {"head.weight": torch.ones(3)}
    assert kind(coordinator, service, coordinator.payload("fit", 90, tensors, attempt=999)) == "failure"
    answer = service.answer(coordinator.payload("fit", 2, coordinator.initial))
    assert answer is not None and coordinator.opened(answer).header.round == 2, "the saved answer, byte for byte"


def test_an_evaluation_returns_numbers_and_no_tensor(parties: Parties) -> None:
    coordinator, service = parties
    values = {"tests": SILO, "inspect": True, "starts_from": 2}
    answer = service.answer(coordinator.payload("evaluate", 2, coordinator.initial, values=values))
    assert answer is not None
    opened = coordinator.opened(answer)
    assert opened.header.kind == "update" and not opened.backbone and not opened.extras
    assert all(type(value) in (int, float) for value in opened.header.values.values())


def test_a_round_beyond_the_experiments_last_is_refused(parties: Parties) -> None:
    coordinator, service = parties
    answer = service.answer(coordinator.payload("fit", 101, coordinator.initial))  # rounds=100
    assert answer is not None
    nothing_left(coordinator.opened(answer))


# experiments


def with_value(path: str, value: object) -> Callable[[str], str]:
    """Returns a function that sets one key of a configuration, such as `model/name`."""

    def change(text: str) -> str:
        content = yaml.safe_load(text)
        *sections, name = path.split("/")
        section = content
        for part in sections:
            section = section[part]
        section[name] = value
        return yaml.safe_dump(content)

    return change


EXPERIMENTS: dict[str, tuple[Callable[[str], str], str]] = {
    "an unknown key": (with_value("send_heads", True), "send_heads"),
    "an unknown key of a section": (with_value("trainer/script", "/bin/sh"), "script"),
    "an unknown callback": (with_value("callbacks/exfiltrate", {}), "exfiltrate"),
    "an unknown option": (with_value("callbacks/backbone_sync", {"heads": ["*"]}), "heads"),
    "an import path of a callback": (with_value("callbacks/os:system", {}), "os:system"),
    "the head by a pattern": (with_value("callbacks/backbone_sync", {"exchange": ["head.*"]}), "head"),
    "an import path": (with_value("model/name", "os:system"), "os:system"),
    "a network by path": (with_value("model/name", "../../../etc/passwd"), "model.name"),
    "a network of a hub": (with_value("model/name", "timm:hf-hub:someone/network"), "hf-hub"),
    "a network in a folder": (with_value("model/name", "timm:local-dir:/etc"), "local-dir"),
    "a name with a path": (with_value("name", "../../outside"), "name"),
    "a name with terminal control characters": (with_value("name", "\x1b[2J"), "name"),
    "a value of another type": (with_value("rounds", "many"), "rounds"),
    "a value beyond its bound": (with_value("batch_size", -4), "batch_size"),
    "an infinite number": (with_value("optim/lr_head", float("inf")), "lr_head"),
    "everybody's pictures": (with_value("data/scenario", "merged"), "data.scenario"),
    "one client by name": (with_value("data/clients", "5"), "data.clients"),
    "a tag": (lambda text: text + "more: !!python/object/apply:os.system ['true']\n", "experiment.yaml"),
    "an anchor": (lambda text: text + "more: &a [*a]\n", "experiment.yaml"),
    "a second document": (lambda text: text + "---\nname: x\n", "experiment.yaml"),
    "a key that comes twice": (lambda text: text + "rounds: 3\n", "rounds"),
    "a nested text": (lambda text: text + "more: " + "[" * 500 + "]" * 500 + "\n", "experiment.yaml"),
    "thousands of keys": (lambda text: text + "".join(f"k{n}: 1\n" for n in range(30_000)), "experiment.yaml"),
    "no configuration": (lambda text: "[]", "experiment.yaml"),
    "no text": (lambda text: "\ud800", "utf-8"),
}
"""Hostile changes of a configuration, each with a word that the operator's log must contain."""


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("place", ["a new session", "the session of the run"])
def test_a_hostile_experiment_is_refused_and_the_run_continues(name: str, place: str, parties: Parties) -> None:
    coordinator, service = parties
    before, states = folders(service), kept(service)
    change, named = EXPERIMENTS[name]
    text = change(coordinator.text)
    values = {"config": text, "silos": 3, "launch": 50}
    digest = hashlib.sha256(text.encode(errors="replace")).hexdigest()
    session = SESSION if place == "the session of the run" else "a" * 16
    payload = coordinator.experiment(values=values, session=session, experiment=digest)
    answer = service.answer(payload)
    assert answer is not None
    nothing_left(coordinator.opened(answer))
    said = json.loads(service.audit.path.read_text().splitlines()[-1])["reason"]
    assert named in said or (session == SESSION and "another configuration" in said), said
    assert folders(service) == before and kept(service) == states, "no new folder, no changed head"
    answer = service.answer(coordinator.payload("fit", 2, coordinator.initial))
    assert answer is not None and coordinator.opened(answer).header.kind == "update"


@pytest.mark.parametrize(
    "words",
    [["callbacks.backbone_sync.exchange=[trunk.*]"], ["seed=7"], ["optim.lr_head=0.5"], ["exp=fedpav_rw"]],
)
def test_another_experiment_cannot_take_over_the_session_of_a_run(words: list[str], parties: Parties) -> None:
    """Another experiment could otherwise read the client state that the first one saved at the silo."""
    coordinator, service = parties
    config = compose([*support.quick(Path("unused"), coordinator.folder, "min_clients=2", "rounds=100"), *words])
    text = shared_text(config)
    values = {"config": text, "silos": 3, "launch": 60}
    answer = service.answer(coordinator.experiment(values=values, experiment=experiment_digest(text)))
    assert answer is not None
    nothing_left(coordinator.opened(answer))
    assert coordinator.opened(answer).header.values["reason"] == "RejectedJob"


def test_more_rounds_are_the_same_experiment(parties: Parties) -> None:
    coordinator, service = parties
    config = compose(support.quick(Path("unused"), coordinator.folder, "min_clients=2", "rounds=200"))
    text = shared_text(config)
    values = {"config": text, "silos": 2, "launch": 70}
    payload = coordinator.experiment(values=values, experiment=experiment_digest(text))
    assert kind(coordinator, service, payload) == "joined"
    answer = service.answer(coordinator.payload("fit", 2, coordinator.initial))  # sent before more rounds were set
    assert answer is not None, "the saved answer is sent again"


@pytest.mark.parametrize(
    "changes",
    [
        {"tensors": "other"},
        {"extras": {"head": torch.ones(2)}},
        {"experiment": "0" * 64},
        {"values": {"config": 7, "silos": 3, "launch": 80}},
        {"values": {"config": "x" * (2**20 + 1), "silos": 3, "launch": 80}},
        {"values": {"silos": 3, "launch": 80}},
    ],
)
def test_an_invalid_experiment_message_is_refused(changes: dict[str, Any], parties: Parties) -> None:
    coordinator, service = parties
    values = {"config": coordinator.text, "silos": 3, "launch": 80}
    if changes.pop("tensors", None):
        payload = coordinator.payload("experiment", 0, {"w": torch.ones(2)}, values=values, session="b" * 16)
    else:
        payload = coordinator.experiment(**{"values": values, "session": "b" * 16, **changes})
    answer = service.answer(payload)
    assert answer is not None
    nothing_left(coordinator.opened(answer))


def test_the_operators_log_contains_every_attack(parties: Parties) -> None:
    _, service = parties
    lines = [json.loads(text) for text in service.audit.path.read_text().splitlines()]
    events = {entry["event"] for entry in lines}
    assert {"joined", "update", "failed", "refused"} <= events
    assert all(str(entry.get("reason", "")).isprintable() for entry in lines)
