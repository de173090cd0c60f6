"""A silo checks jobs as strictly as the server checks updates, and sends no more data than it should."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from silos.parties import OPEN, make_parties, make_service
from silos.signing import Coordinator
from torch import Tensor

from fedreid_pl.engines.silos.keys import SigningKey
from fedreid_pl.engines.silos.service import SiloService
from fedreid_pl.engines.silos.silo_folder import SiloFolder

NAME = "mini-viper"


@pytest.fixture(scope="module")
def parties(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Coordinator, SiloService]]:
    """Returns a coordinator and a silo that has joined its experiment and answered one round."""
    home = tmp_path_factory.mktemp("service")
    federation, silos = make_parties(home, [NAME, "other"])
    coordinator = Coordinator(federation, silos[NAME], home)
    service = make_service(silos[NAME], tiny_root)
    assert coordinator.opened(service.answer(coordinator.experiment())).header.kind == "joined"
    assert (
        coordinator.opened(service.answer(coordinator.payload("fit", 1, coordinator.initial))).header.kind == "update"
    )
    yield coordinator, service


def restart(service: SiloService, root: Path) -> None:
    """Loads the service again from its folder, in place."""
    vars(service).update(vars(make_service(SiloFolder(service.folder.path), root)))


def events(service: SiloService) -> list[dict[str, Any]]:
    return [json.loads(line) for line in service.audit.path.read_text().splitlines()]


def test_the_registration_contains_only_the_silos_own_counts_and_names(
    parties: tuple[Coordinator, SiloService], tiny_root: Path
) -> None:
    _, service = parties
    assert service.session is not None
    values = service.session.registration()
    assert values["client"] == values["tests"] == NAME and values["synthetic"] is True
    train = list((tiny_root / NAME / "bounding_box_train").iterdir())
    assert values["images"] == len(train)
    assert set(values) == {"client", "images", "tests", "synthetic", "version", "torch"}


def test_a_repeated_job_returns_the_same_bytes_also_after_a_restart(
    parties: tuple[Coordinator, SiloService], tiny_root: Path
) -> None:
    coordinator, service = parties
    job = coordinator.payload("fit", 2, coordinator.initial)
    first = service.answer(job)
    assert first is not None
    bits, turns = first.path.read_bytes(), len([event for event in events(service) if event["event"] == "update"])
    for _ in range(2):
        answer = service.answer(coordinator.payload("fit", 2, coordinator.initial))
        assert answer is not None and answer.path.read_bytes() == bits
        restart(service, tiny_root)
    assert len([event for event in events(service) if event["event"] == "update"]) == turns, "no turn is trained twice"


def test_a_silo_that_lost_its_answer_trains_the_same_bits_again(
    parties: tuple[Coordinator, SiloService], tiny_root: Path
) -> None:
    coordinator, service = parties
    first = service.answer(coordinator.payload("fit", 3, coordinator.initial))
    assert first is not None
    bits = first.path.read_bytes()
    first.path.unlink()  # a kill after the client's state was saved, before the answer was saved
    restart(service, tiny_root)
    answer = service.answer(coordinator.payload("fit", 3, coordinator.initial))
    assert answer is not None and answer.path.read_bytes() == bits
    assert events(service)[-2]["event"] == "resumed"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"key": SigningKey.new()}, "the signature does not match"),
        ({"addressee": "other"}, "another silo"),
        ({"sender": "other"}, "another silo"),
        ({"federation": "0" * 16}, "another silo, or from another federation"),
        ({"kind": "update"}, "a coordinator sends experiment"),
        ({"kind": "joined"}, "a coordinator sends experiment"),
        ({"round": 1}, "is out of date"),
        ({"round": 1, "kind": "evaluate"}, "is out of date"),
    ],
)
def test_foreign_and_outdated_payloads_are_ignored(
    changes: dict[str, Any], reason: str, parties: tuple[Coordinator, SiloService]
) -> None:
    coordinator, service = parties
    service.answer(coordinator.payload("fit", 4, coordinator.initial))
    kept = sorted(service.folder.path.rglob("clients/**/*.pt"))
    before = [path.read_bytes() for path in kept]
    round = changes.pop("round", 5) if "round" in changes else 5
    kind = changes.pop("kind") if "kind" in changes else "fit"
    assert service.answer(coordinator.payload(kind, round, coordinator.initial, **changes)) is None
    assert events(service)[-1]["event"] == "ignored" and reason in events(service)[-1]["reason"]
    assert [path.read_bytes() for path in kept] == before


def nan(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {**state, next(iter(state)): torch.full_like(next(iter(state.values())), float("nan"))}


def far(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value * 1000 if value.is_floating_point() else value for name, value in state.items()}


@pytest.mark.parametrize(
    ("change", "values", "reason"),
    [
        (nan, {}, "RejectedJob"),
        (far, {}, "RejectedJob"),
        (lambda state: dict(list(state.items())[1:]), {}, "RejectedJob"),
        (lambda state: {**state, "head.weight": torch.ones(3)}, {}, "RejectedJob"),
        (lambda state: {name: value.double() for name, value in state.items()}, {}, "RejectedJob"),
        (lambda state: {name: value[None] for name, value in state.items()}, {}, "RejectedJob"),
        (dict, {"run_this": "rm"}, "RejectedJob"),
        (dict, {"starts_from": 99}, "RejectedJob"),
        (dict, {"keeps": "../.."}, "RejectedJob"),
    ],
)
def test_the_answer_to_a_hostile_job_contains_only_the_kind_of_error(
    change: Any, values: dict[str, Any], reason: str, parties: tuple[Coordinator, SiloService]
) -> None:
    coordinator, service = parties
    job = coordinator.payload("fit", 6, change(coordinator.initial), values={"starts_from": 4, "keeps": "", **values})
    kept = {path: path.read_bytes() for path in service.folder.path.rglob("clients/**/*.pt")}
    opened = coordinator.opened(service.answer(job))
    assert opened.header.kind == "failure"
    assert opened.header.values == {"reason": reason, "final": True}
    assert kept == {path: path.read_bytes() for path in service.folder.path.rglob("clients/**/*.pt")}
    assert events(service)[-1]["words"], "the operator's log contains the reason"


def test_a_refused_job_does_not_affect_the_checks_of_the_next_one(parties: tuple[Coordinator, SiloService]) -> None:
    coordinator, service = parties
    for _ in range(2):
        opened = coordinator.opened(service.answer(coordinator.payload("fit", 6, far(coordinator.initial))))
        assert opened.header.values["reason"] == "RejectedJob"


def test_a_job_of_another_session_or_experiment_is_refused(parties: tuple[Coordinator, SiloService]) -> None:
    coordinator, service = parties
    for changes in ({"session": "f" * 16}, {"experiment": "0" * 64}):
        opened = coordinator.opened(service.answer(coordinator.payload("fit", 7, coordinator.initial, **changes)))
        assert opened.header.values["reason"] == "NotJoined"


def test_an_experiment_of_an_earlier_start_cannot_be_replayed(parties: tuple[Coordinator, SiloService]) -> None:
    coordinator, service = parties
    old, new = coordinator.experiment(3), coordinator.experiment(4)
    assert coordinator.opened(service.answer(new)).header.kind == "joined"
    assert service.answer(old) is None
    assert service.answer(coordinator.experiment(4, session="a" * 16)) is None, (
        "another experiment with the same launch number"
    )
    assert coordinator.opened(service.answer(coordinator.experiment(4))).header.kind == "joined", (
        "the same experiment may be repeated"
    )


def test_the_policy_decides_before_any_picture_is_read(tiny_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    shutil.copytree(tiny_root / NAME, root / NAME)
    federation, silos = make_parties(tmp_path, [NAME, "other"], policy="callbacks: [backbone_sync]\n")
    service = make_service(silos[NAME], root)
    shutil.rmtree(root)  # reading the data would now fail
    coordinator = Coordinator(federation, silos[NAME], tmp_path, "exp=fedpav_rw")
    answer = coordinator.opened(service.answer(coordinator.experiment()))
    assert answer.header.kind == "refused" and answer.header.values == {"reason": "policy.callbacks"}
    (silos[NAME].path / "policy.yaml").write_text(OPEN)
    answer = coordinator.opened(service.answer(coordinator.experiment()))
    assert answer.header.values == {"reason": "FedReIDError"}, "the silo now tries to read the data"
    assert [event["event"] for event in events(service)] == ["refused", "refused"]


def test_a_stricter_policy_applies_to_the_next_job(parties: tuple[Coordinator, SiloService]) -> None:
    coordinator, service = parties
    file = service.folder.path / "policy.yaml"
    for text, round in (("metrics: [nothing]\nminimum_silos: 1", 20), ("minimum_silos: 50", 21)):
        file.write_text(text)
        opened = coordinator.opened(service.answer(coordinator.payload("fit", round, coordinator.initial)))
        assert opened.header.values["reason"] == "PolicyRefusal" and not opened.backbone
    file.write_text(OPEN)
