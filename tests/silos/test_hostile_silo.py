"""A hostile silo that signs arbitrary content: refused; the run gives the same bits as a run without that silo."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import support
import torch
from hostile.payloads import MAKERS, altered
from hostile.updates import UPDATES, Spoil
from silos.parties import coordinator_words, make_parties, make_service, run_loopback
from silos.rounds import Rounds

from fedreid_pl.cli import main
from fedreid_pl.engines.silos.payload import Payload, open_payload, write_payload
from fedreid_pl.engines.silos.service import SiloService
from fedreid_pl.federation.messages import ClientFailure
from fedreid_pl.federation.storage import read_state

HOSTILE, HONEST = support.TINY[2], support.TINY[:2]
IMPOSSIBLE_FOR_A_SILO = ("another's name", "stale round", "round to come", "silence")
"""A key fixes the silo's name and a job the round, so a silo cannot alter them; test_coordinator.py tests silence."""


def spoiled(service: SiloService, spoil: Spoil) -> Callable[[Payload], Payload | None]:
    """A silo service that alters its client's updates."""

    def answer(sent: Payload) -> Payload | None:
        session = service.session
        if session is not None and "do" not in vars(session):
            honest = session.do

            def do(job: Any, policy: Any) -> Any:
                found = spoil(honest(job, policy))[0] if job.kind == "fit" else honest(job, policy)
                if isinstance(found, ClientFailure):
                    raise RuntimeError("no update")
                return found

            vars(session)["do"] = do
        return service.answer(sent)

    return answer


@pytest.fixture(scope="module")
def without(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Returns the models after two rounds of a federation without the hostile silo."""
    folder = tmp_path_factory.mktemp("without")
    words = support.quick(tiny_root, folder, "trainer.accelerator=cpu", f"data.datasets=[{','.join(HONEST)}]")
    assert main(["train", "exp=fedpav", *words]) == 0
    return read_state(folder / "checkpoints" / "round-00002.ckpt")["models"]


REFUSED_UNREAD = {"complex numbers": "BadPayload"}
"""Maps an attack to the reason of its refusal, for updates that are refused before a tensor is read."""
QUICK = ("NaN", "further tensor", "code in extras", "absurd count", "a metric that is no text")


@pytest.mark.parametrize(
    "defect",
    [
        pytest.param(
            name,
            marks=[] if name in QUICK else [pytest.mark.system],
        )
        for name in UPDATES
        if name not in IMPOSSIBLE_FOR_A_SILO
    ],
)
def test_the_run_equals_one_without_the_hostile_silo(
    defect: str, tiny_root: Path, tmp_path: Path, without: dict[str, Any]
) -> None:
    federation, silos = make_parties(tmp_path / "parties", support.TINY)
    services = {name: make_service(silo, tiny_root) for name, silo in silos.items()}
    answers = {name: service.answer for name, service in services.items()}
    answers[HOSTILE] = spoiled(services[HOSTILE], UPDATES[defect])
    words = coordinator_words(tiny_root, tmp_path / "run", federation, "exp=fedpav", "min_clients=2")
    loop = run_loopback([*words, "client_retries=0"], tmp_path / "run", answers)
    assert loop.context.rejected == {HOSTILE: 2}, loop.context.rejections
    if defect in REFUSED_UNREAD:
        assert loop.context.rejections == {HOSTILE: {REFUSED_UNREAD[defect]: [1, 2]}}
    support.assert_equal(loop.context.models, without)


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> Rounds:
    return Rounds(tmp_path_factory.mktemp("rounds"))


def test_an_honest_answer_is_averaged(rounds: Rounds) -> None:
    found = rounds.average(rounds.honest_answer("c"))
    assert found.clients == ("a", "b", "c")
    assert found.model["norm.weight"].tolist() == [2.0] * 3, "the mean of 1, 2 and 3"


def test_a_replayed_answer_of_another_round_is_not_averaged(rounds: Rounds, monkeypatch: pytest.MonkeyPatch) -> None:
    old = rounds.replayed("c", session="f" * 16)
    monkeypatch.setattr(rounds.engine, "deadline", 0.5)  # the round drops the replayed answer and waits
    assert rounds.average(old).clients == ("a", "b")
    monkeypatch.undo()
    assert rounds.average(rounds.honest_answer("c")).clients == ("a", "b", "c"), "the next answer is accepted"


def test_the_answer_of_another_silo_is_refused(rounds: Rounds) -> None:
    stolen = rounds.honest_answer("b")
    assert rounds.average(stolen).clients == ("a", "b")
    assert "the signature does not match the sender's key" in rounds.said[-1]


def test_a_tensor_of_complex_numbers_is_refused_before_it_is_read(rounds: Rounds) -> None:
    honest = rounds.honest_answer("c")
    opened = open_payload(honest, rounds.silos["c"].key.public)
    first, *others = opened.backbone.items()
    backbone = {first[0]: first[1].to(torch.complex64), **dict(others)}
    payload = write_payload(rounds.home / "complex", opened.header, rounds.silos["c"].key, backbone)
    without = rounds.average()
    found = rounds.average(payload)
    assert "has a data type that no network uses" in rounds.said[-1]
    assert found.clients == ("a", "b")
    support.assert_equal(found.model, without.model)


@pytest.mark.parametrize("name", MAKERS)
def test_altered_answers_are_refused_and_change_no_bit(name: str, rounds: Rounds, tmp_path: Path) -> None:
    honest, without = rounds.honest_answer("c"), rounds.average()
    for number in range(8):
        _, payload = altered(honest, tmp_path / "x", MAKERS[name], random.Random(number), rounds.silos["c"].key)
        found = rounds.average(payload)
        assert found.clients == ("a", "b")
        support.assert_equal(found.model, without.model)
