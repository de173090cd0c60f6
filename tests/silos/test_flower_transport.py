"""Payloads over Flower nodes: authentication, repeated sending, and a run with equal bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import support
from silos.flower_nodes import Clock, Nodes, silo_node
from silos.parties import assert_same_run, coordinator_words, make_parties

from fedreid_pl.cli import main
from fedreid_pl.config import compose
from fedreid_pl.coordination import coordinate
from fedreid_pl.engines.silos.flower.introduction import introduce, question
from fedreid_pl.engines.silos.flower.parcel import Parcel, pack
from fedreid_pl.engines.silos.flower.post import INTRODUCE, PAYLOAD, Reply
from fedreid_pl.engines.silos.flower.transport import AGAIN, FlowerTransport
from fedreid_pl.engines.silos.keys import SigningKey
from fedreid_pl.engines.silos.payload import BadPayload, Header, Payload, open_payload, write_payload
from fedreid_pl.engines.silos.silo_folder import SiloFolder

SESSION = "0123456789abcdef"


class Place:
    """Silos a and b, each at a node that answers with a different payload; a job is posted for a."""

    def __init__(self, home: Path) -> None:
        self.home, self.said, self.clock = home, list[str](), Clock()
        self.federation, self.silos = make_parties(home, ["a", "b"])
        self.nodes = Nodes({11: self.honest("a"), 22: self.honest("b")})
        place = (self.federation, self.nodes, home / "arrived", self.said.append, self.clock, self.clock.sleep)
        self.transport = FlowerTransport(*place)
        self.job = self.written("job", self.federation.key, "coordinator", "a")
        self.transport.post("a", self.job, 2**20)

    def written(self, name: str, key: SigningKey, sender: str, addressee: str, answers: str = "") -> Payload:
        kind = "failure" if answers else "fit"
        header = Header(kind, sender, addressee, self.federation.number, "e" * 64, SESSION, 1, 1, answers)
        return write_payload(self.home / name, header, key)

    def answer_of(self, silo: str, to: str, key: SigningKey | None = None) -> Parcel:
        payload = self.written(f"{silo}.answer", key or self.silos[silo].key, silo, "coordinator", to)
        return pack(payload, answers=to)

    def honest(self, silo: str) -> Callable[[str, Parcel, int], Parcel]:
        def node(action: str, parcel: Parcel, number: int) -> Parcel:
            if action == INTRODUCE:
                return introduce(parcel, self.silos[silo], number)
            return self.answer_of(silo, str(parcel.note["digest"]))

        return node

    def answering(self, silo: str, *first: Parcel | Reply) -> Callable[[str, Parcel, int], Parcel | Reply]:
        """Returns a silo's node that answers with these parcels first."""
        honest, left = self.honest(silo), list(first)

        def node(action: str, parcel: Parcel, number: int) -> Parcel | Reply:
            return left.pop(0) if left and action == PAYLOAD else honest(action, parcel, number)

        return node

    def jobs(self) -> list[int]:
        """Returns the nodes that received payloads."""
        return [node for node, action, _ in self.nodes.sent if action == PAYLOAD]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_payload_is_sent_to_the_silos_node_and_its_answer_is_returned_once(place: Place) -> None:
    silo, answer = place.transport.next(5) or ("", place.job)
    assert silo == "a" and place.jobs() == [11] and place.clock.now < 5
    opened = open_payload(answer, place.silos["a"].card.signing_key)
    assert opened.header.answers == place.job.envelope.digest
    assert place.transport.next(5) is None and place.jobs() == [11]
    assert set(place.transport.seen()) == {"a", "b"} and max(place.transport.seen().values()) <= 3


def test_a_node_with_a_false_name_receives_no_payload(place: Place) -> None:
    def liar(action: str, parcel: Parcel, number: int) -> Parcel:
        answer = introduce(parcel, place.silos["b"], number)
        return Parcel({**answer.note, "silo": "a"})

    place.nodes.online = {22: liar}
    assert place.transport.next(5) is None
    assert place.jobs() == [] and "node 22 of Flower is not a silo" in place.said[0]


def test_an_introduction_is_good_for_one_question_and_one_node(place: Place) -> None:
    old = introduce(question(place.federation, 22), place.silos["a"], 22)
    place.nodes.online = {22: lambda action, parcel, number: old}
    assert place.transport.next(5) is None and place.jobs() == [], "the same node, but an earlier introduction"

    asked = question(place.federation, 22)
    with pytest.raises(BadPayload, match="not from this silo's coordinator"):
        introduce(asked, place.silos["a"], 11)  # node 22 forwarded the question that it received to the node of a
    foreign = Parcel({**asked.note, "signature": SigningKey.new().sign(b"x")})
    with pytest.raises(BadPayload):
        introduce(foreign, place.silos["a"], 22)


def test_an_answer_that_another_silo_pushed_is_dropped_and_the_job_sent_again(place: Place) -> None:
    digest = place.job.envelope.digest
    forged = place.answer_of("a", digest, place.silos["b"].key)
    other = place.answer_of("b", digest)
    place.nodes.online[11] = place.answering("a", forged, other)
    assert place.transport.next(AGAIN - 5) is None
    assert place.jobs() == [11] and "the signature does not match the silo's key" in place.said[-1]
    found = place.transport.next(3 * AGAIN)
    assert found is not None and found[0] == "a" and place.jobs() == [11, 11, 11]
    open_payload(found[1], place.silos["a"].card.signing_key)
    assert len([line for line in place.said if "no answer" in line]) == 1, "the message is logged once"


@pytest.mark.parametrize(
    ("spoilt", "named"),
    [
        (lambda place: place.answer_of("a", "b" * 64), "belongs to another payload"),
        (lambda place: Reply(None, "error 4\x1b[2J"), "error 4?"),
        (lambda place: Parcel({"failed": "OutOfMemoryError"}), "OutOfMemoryError"),
        (lambda place: Parcel({}), "is not valid"),
        (lambda place: Parcel({"digest": "x"}), "envelope"),
    ],
)
def test_an_invalid_answer_is_logged_and_the_job_is_sent_again(
    spoilt: Callable[[Place], Parcel | Reply], named: str, place: Place
) -> None:
    place.nodes.online[11] = place.answering("a", spoilt(place))
    assert place.transport.next(5) is None and named in place.said[-1]
    assert place.transport.next(AGAIN) is not None


def test_an_answer_beyond_the_bound_is_dropped_before_it_is_written(place: Place) -> None:
    place.transport.post("a", place.job, 100)
    assert place.transport.next(5) is None and "at most 100 are accepted" in place.said[-1]
    assert list((place.home / "arrived").iterdir()) == []


def test_a_silo_that_comes_back_at_another_node_is_sent_the_job_again(place: Place) -> None:
    silent = place.nodes.online.pop(11)
    place.nodes.online[33] = lambda action, parcel, number: (  # type: ignore[assignment]
        introduce(parcel, place.silos["a"], number) if action == INTRODUCE else Reply(None, "lost")
    )
    assert place.transport.next(5) is None and place.jobs() == [33]
    del place.nodes.online[33]
    assert place.transport.next(AGAIN) is None, "no node is online"
    place.nodes.online[44] = silent
    assert (place.transport.next(5) or ("",))[0] == "a" and place.jobs() == [33, 44]


def test_a_withdrawn_payload_is_not_answered(place: Place) -> None:
    place.transport.withdraw("a")
    assert place.transport.next(5) is None and place.jobs() == []


def test_a_revoked_silo_is_a_stranger(place: Place) -> None:
    place.federation.revoke("a")
    assert place.transport.next(5) is None and place.jobs() == []


def events(silo: SiloFolder) -> list[str]:
    return [json.loads(line)["event"] for line in (silo.path / "audit.jsonl").read_text().splitlines()]


def test_a_silo_ignores_jobs_that_are_forged_or_for_another_silo(tiny_root: Path, tmp_path: Path) -> None:
    names = list(support.TINY[:2])
    federation, silos = make_parties(tmp_path, names)
    header = Header("fit", "coordinator", names[0], federation.number, "e" * 64, SESSION, 1, 1)
    node = silo_node(silos[names[0]].path, tiny_root)
    well = write_payload(tmp_path / "well", header, federation.key)
    forged = write_payload(tmp_path / "forged", header, silos[names[1]].key)
    redirected = write_payload(tmp_path / "other", replace(header, addressee=names[1]), federation.key)
    for payload in (forged, redirected):
        assert node(PAYLOAD, pack(payload), 1) == Parcel({"failed": "Ignored"})
    answer = node(PAYLOAD, pack(well), 1)
    assert isinstance(answer, Parcel) and answer.note["answers"] == well.envelope.digest
    assert events(silos[names[0]]) == ["ignored", "ignored", "failed"]  # last: an experiment never joined


def test_error_texts_stay_at_the_silo(tiny_root: Path, tmp_path: Path) -> None:
    said: list[str] = []
    answer = silo_node(tmp_path / "secret-place", tiny_root, said)(PAYLOAD, Parcel({}), 1)
    assert answer == Parcel({"failed": "FedReIDError"}) and "secret-place" in said[0]


def test_a_run_over_flower_gives_the_bits_of_the_sequential_engine(tiny_root: Path, tmp_path: Path) -> None:
    names = support.TINY[1:]
    common = ("exp=fedpav_rw", "rounds=2", "evaluate_every=2", "min_clients=2")
    straight, apart = tmp_path / "straight", tmp_path / "apart"
    words = [*common, f"data.datasets=[{','.join(names)}]", "trainer.accelerator=cpu"]
    assert main(["train", *support.quick(tiny_root, straight, *words)]) == 0

    federation, silos = make_parties(tmp_path / "parties", names)
    nodes = Nodes({7 + index: silo_node(silo.path, tiny_root) for index, silo in enumerate(silos.values())})
    config, clock = compose(coordinator_words(tiny_root, apart, federation, *common)), Clock()
    place = (nodes, tmp_path / "arrived", lambda line: None, clock, clock.sleep)
    coordinate(config, apart, lambda found: FlowerTransport(found, *place))
    assert_same_run(straight, apart)
    assert list((tmp_path / "arrived").iterdir()) == [], "used answers are deleted"
