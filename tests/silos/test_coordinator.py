"""The coordinator's engine with silos that are late, refuse a job or send invalid answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from silos.parties import make_parties

from fedreid_pl.config import compose
from fedreid_pl.engines.silos.coordinator import SilosEngine
from fedreid_pl.engines.silos.federation_folder import FederationFolder
from fedreid_pl.engines.silos.keys import SigningKey
from fedreid_pl.engines.silos.loopback import Loopback
from fedreid_pl.engines.silos.payload import Header, Opened, Payload, open_payload, write_payload
from fedreid_pl.engines.silos.shared import shared_text
from fedreid_pl.engines.silos.silo_folder import SiloFolder
from fedreid_pl.engines.silos.status import status_rows
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.messages import ClientFailure, ClientJob, ClientUpdate

SESSION = "0123456789abcdef"
MODEL = {"w": torch.arange(6.0).reshape(2, 3)}
Change = Callable[[Header], Header]


class Party:
    """Silos a and b: b is honest, and the test sets the answers of a."""

    def __init__(self, home: Path, deadline: float | None = None) -> None:
        self.home = home
        self.federation, self.silos = make_parties(home, ["a", "b"])
        self.key: dict[str, SigningKey] = {name: silo.key for name, silo in self.silos.items()}
        self.change: Change = lambda header: header
        self.silent = False
        self.said: list[str] = []
        answers = {name: self.answering(name) for name in self.silos}
        text = shared_text(compose(["exp=fedpav", "min_clients=2"]))
        transport = Loopback(answers, home / "copies")
        place = (self.federation, transport, SESSION, text, home / "payloads")
        self.engine = SilosEngine(*place, deadline=deadline, say=self.said.append)

    def answering(self, name: str) -> Callable[[Payload], Payload | None]:
        def answer(sent: Payload) -> Payload | None:
            opened = open_payload(sent, self.federation.key.public)
            if name == "a" and self.silent:
                return None
            header = replace(reply(name, opened), answers=sent.envelope.digest)
            if name == "a":
                header = self.change(header)
            return write_payload(self.home / f"{name}.out", header, self.key[name], opened.backbone)

        return answer

    def round(self, number: int = 1) -> dict[str, ClientUpdate | ClientFailure]:
        jobs = [ClientJob("fit", SESSION, number, 1, name, MODEL, tuple(MODEL)) for name in self.silos]
        return {outcome.client: outcome for outcome in self.engine.fit(jobs)}


def reply(name: str, opened: Opened) -> Header:
    if opened.header.kind == "experiment":
        told = {"client": name, "images": 9, "tests": name, "synthetic": True, "version": "1", "torch": "2"}
        return replace(opened.header, kind="joined", sender=name, addressee="coordinator", values=told)
    values = {"num_samples": 9, "metric:train/loss": 0.5}
    return replace(opened.header, kind="update", sender=name, addressee="coordinator", values=values)


def joined(home: Path, deadline: float | None = None) -> Party:
    party = Party(home, deadline)
    found = party.engine.join(MODEL, 1)
    assert list(found) == ["a", "b"] and found["a"].images == 9
    return party


def test_answers_of_honest_silos_are_accepted(tmp_path: Path) -> None:
    party = joined(tmp_path)
    outcomes = party.round()
    for outcome in outcomes.values():
        assert isinstance(outcome, ClientUpdate)
        assert torch.equal(outcome.backbone["w"], MODEL["w"]) and outcome.metrics == {"train/loss": 0.5}
    line, rows = status_rows(party.federation)
    assert SESSION in line and [row[0] for row in rows] == ["a", "b"]
    party.engine.close()
    assert not list((tmp_path / "payloads").iterdir())


def with_values(**values: Any) -> Change:
    return lambda header: replace(header, values={**header.values, **values})


@pytest.mark.parametrize(
    "change",
    [
        lambda header: replace(header, sender="b"),
        lambda header: replace(header, addressee="b"),
        lambda header: replace(header, session="f" * 16),
        lambda header: replace(header, federation="f" * 16),
        lambda header: replace(header, experiment="f" * 64),
        lambda header: replace(header, kind="joined"),
        lambda header: replace(header, kind="fit"),
        with_values(num_samples="many"),
        with_values(**{"metric:train/loss": "low"}),
    ],
)
def test_an_invalid_answer_is_a_failure_of_its_silo_only(change: Change, tmp_path: Path) -> None:
    party = joined(tmp_path)
    party.change = change
    outcomes = party.round()
    assert isinstance(outcomes["a"], ClientFailure) and not outcomes["a"].final
    assert isinstance(outcomes["b"], ClientUpdate)
    party.change = lambda header: header
    assert isinstance(party.round(2)["a"], ClientUpdate), "the silo can take part in the next round"


def test_no_silo_answers_for_another(tmp_path: Path) -> None:
    party = joined(tmp_path)
    party.key["a"] = party.key["b"]
    outcome = party.round()["a"]
    assert isinstance(outcome, ClientFailure) and party.engine.traffic["a"].refused == 1
    assert "silo a: refused its answer: the signature does not match the sender's key" in party.said[-1]


def test_an_answer_to_an_earlier_job_is_dropped(tmp_path: Path) -> None:
    party = joined(tmp_path, deadline=0.3)
    party.change = lambda header: replace(header, answers="0" * 64)
    outcome = party.round()["a"]
    assert isinstance(outcome, ClientFailure) and outcome.reason == "the silo did not answer in time"


def test_a_late_silo_is_left_out_and_comes_back(tmp_path: Path) -> None:
    party = joined(tmp_path, deadline=0.3)
    party.silent = True
    outcomes = party.round()
    assert isinstance(outcomes["b"], ClientUpdate)
    assert outcomes["a"] == ClientFailure(1, "a", "the silo did not answer in time", final=True)
    party.silent = False
    assert isinstance(party.round(2)["a"], ClientUpdate)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda header: replace(header, kind="refused", values={"reason": "policy.callbacks"}), "policy .*callbacks"),
        (
            lambda header: replace(header, kind="refused", values={"reason": "policy.minimum_silos"}),
            "set min_clients=2 or more",
        ),
        (
            lambda header: replace(header, kind="refused", values={"reason": "FedReIDError"}),
            "the silo's log contains the reason",
        ),
        (lambda header: replace(header, kind="update"), "its answer is not valid"),
        (with_values(client="b"), "joined as client b"),
        (with_values(client="../b"), "joined as client"),
        (with_values(images=1), "joined with 1 images"),
        (with_values(images=True), "its registration is not valid"),
        (with_values(tests="b"), "which is not valid"),
        (with_values(version="1\n\x1b[2J"), None),
    ],
)
def test_a_silos_registration_is_checked(change: Change, named: str | None, tmp_path: Path) -> None:
    party = Party(tmp_path)
    party.change = change
    if named is None:
        assert party.engine.join(MODEL, 1)["a"].version.isprintable()
        return
    with pytest.raises(FedReIDError, match=f"silo a: .*{named}"):
        party.engine.join(MODEL, 1)


def test_the_error_names_a_silo_that_did_not_join(tmp_path: Path) -> None:
    party = Party(tmp_path, deadline=0.3)
    party.silent = True
    with pytest.raises(FedReIDError, match=r"silo a: has not joined within engine\.deadline=0\.3 s"):
        party.engine.join(MODEL, 1)


def left(header: Header) -> Header:
    return replace(header, kind="left", values={})


def test_a_run_starts_without_a_silo_that_left_and_the_silo_can_come_back(tmp_path: Path) -> None:
    party = Party(tmp_path, deadline=20)
    party.change = left
    assert list(party.engine.join(MODEL, 1)) == ["b"]
    assert "silo a has left" in party.said
    party.change = lambda header: header
    assert list(party.engine.members()) == ["a", "b"]


def test_a_silo_that_left_can_join_before_the_run_starts(tmp_path: Path) -> None:
    party = Party(tmp_path, deadline=20)
    kinds, honest = iter(["left", "joined"]), party.engine.transport.silos["b"]  # type: ignore[attr-defined]
    answers: list[str] = []

    def change(header: Header) -> Header:
        answers.append(next(kinds, "joined"))
        return left(header) if answers[-1] == "left" else header

    party.change = change
    waits = {"b": lambda sent: honest(sent) if "joined" in answers else party.engine._invite("b")}
    party.engine.transport.silos.update(waits)  # type: ignore[attr-defined]
    assert list(party.engine.join(MODEL, 1)) == ["a", "b"]


def test_a_silo_that_is_added_while_the_coordinator_waits_is_invited(tmp_path: Path) -> None:
    party = Party(tmp_path, deadline=20)
    new = SiloFolder.new(tmp_path / "c", "c")
    party.key["c"] = new.key
    party.engine.transport.silos["c"] = party.answering("c")  # type: ignore[attr-defined]

    def change(header: Header) -> Header:
        FederationFolder(party.federation.path).add([new.card])
        return header

    party.change = change
    assert list(party.engine.join(MODEL, 1)) == ["a", "b", "c"]
