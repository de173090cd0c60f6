"""Parties that join a run, leave it, are revoked and rejoin, over the loopback transport."""

from __future__ import annotations

import csv
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import support
import torch
from silos.parties import OPEN, coordinator_words, make_parties, make_service
from silos.signing import Coordinator
from torch import Tensor

from fedreid_pl.config import compose
from fedreid_pl.coordination import coordinate
from fedreid_pl.engines.silos.federation_folder import FederationFolder
from fedreid_pl.engines.silos.leaving import Leaver
from fedreid_pl.engines.silos.loopback import Loopback
from fedreid_pl.engines.silos.payload import Payload
from fedreid_pl.engines.silos.service import SiloService
from fedreid_pl.engines.silos.silo_folder import SiloFolder
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.server.loop import FederationLoop
from fedreid_pl.federation.storage import read_state

A, B, C = support.TINY
Answer = Callable[[Payload], Payload | None]


class Stopped(Exception):
    """Simulates a kill of the coordinator."""


class Street(Loopback):
    """A loopback transport that silos may join at any time; messages for an absent silo wait."""

    def next(self, timeout: float) -> tuple[str, Payload] | None:
        away = {silo: payload for silo, payload in self._ready.items() if silo not in self.silos}
        self._ready = {silo: payload for silo, payload in self._ready.items() if silo in self.silos}
        try:
            return super().next(timeout)
        finally:
            self._ready |= away


class Town:
    """A federation of A and B, and a party C that is not a member yet; `events` maps rounds to actions before them."""

    def __init__(self, root: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.home, self.run = root, home, home / "run"
        self.federation, self.silos = make_parties(home / "parties", [A, B])
        self.events: dict[int, Callable[[], None]] = {}
        self.present: dict[str, Answer] = {}
        for name in (A, B):
            self.open(name)
        run_round = FederationLoop.run_round

        def told(loop: FederationLoop) -> None:
            self.events.pop(loop.context.round, lambda: None)()
            run_round(loop)

        monkeypatch.setattr(FederationLoop, "run_round", told)

    def open(self, name: str, root: Path | None = None) -> SiloService:
        service = make_service(self.silos[name], root or self.root)
        self.present[name] = service.answer
        return service

    def add(self, name: str) -> None:
        """Makes C a member and starts its service."""
        silo = self.silos[name] = SiloFolder.new(self.home / "parties" / name, name)
        FederationFolder(self.federation.path).add([silo.card])
        invitation = self.federation.path / "invitations" / f"{name}.json"
        (silo.path / "invitation.json").write_bytes(invitation.read_bytes())
        (silo.path / "policy.yaml").write_text(OPEN)
        self.open(name)

    def revoke(self, name: str) -> None:
        FederationFolder(self.federation.path).revoke(name)

    def leave(self, name: str) -> None:
        """Stops the silo's service and runs `silo leave`, as its operator would."""
        leaver = Leaver(self.silos[name], lambda line: None)

        def answer(sent: Payload) -> Payload | None:
            del self.present[name]
            return leaver.answer(sent)

        self.present[name] = answer

    def train(self, *words: str, exp: str = "fedpav_rw") -> FederationLoop:
        common = (f"exp={exp}", "min_clients=1", "evaluate_every=2", "client_retries=0", *words)

        def street(federation: FederationFolder) -> Street:
            made = Street({}, self.home / "copies")
            made.silos, made._draws = self.present, random.Random(0)  # type: ignore[assignment]
            return made

        return coordinate(compose(coordinator_words(self.root, self.run, self.federation, *common)), self.run, street)

    def kept(self, name: str, round: int) -> dict[str, Any]:
        """Returns the state that a silo saved after its turn in a round."""
        (path,) = self.silos[name].path.glob(f"sessions/*/clients/{name}/round-{round:05d}.pt")
        return read_state(path)

    def metrics(self, section: str, metric: str) -> dict[str, dict[int, float]]:
        """Reads metrics.csv as numbers by name and by round."""
        found: dict[str, dict[int, float]] = {}
        for row in csv.DictReader((self.run / "metrics.csv").open()):
            if (row["section"], row["metric"]) == (section, metric):
                found.setdefault(row["name"], {})[int(row["round"])] = float(row["value"])
        return found


@pytest.fixture
def town(tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Town:
    return Town(tiny_root, tmp_path, monkeypatch)


def span(first: int, last: int | None, images: int) -> dict[str, int | None]:
    return {"first": first, "last": last, "images": images}


def images(root: Path, name: str) -> int:
    return len(list((root / name / "bounding_box_train").iterdir()))


def copied(root: Path, to: Path) -> Path:
    shutil.copytree(root, to)
    return to


def more(root: Path, name: str) -> Path:
    """Adds two images of a new person, with the first free number, and one more image of the last person."""
    folder = root / name / "bounding_box_train"
    known = {int(path.name.split("_")[0]) for path in (root / name).rglob("*.jpg")}
    new = next(number for number in range(1, 9999) if number not in known)
    last = sorted(folder.iterdir())[-1]
    for number in (1, 2):
        (folder / f"{new:04d}_c{number}s1_00000{number}_01.jpg").write_bytes(last.read_bytes() + bytes([number]))
    last.with_name(f"{last.name.split('_')[0]}_c1s1_999999_01.jpg").write_bytes(last.read_bytes() + b"more")
    return root


def photographs(root: Path, name: str) -> Path:
    """Changes the bytes of one image, so that the data no longer count as synthetic."""
    path = sorted((root / name / "bounding_box_train").iterdir())[0]
    path.write_bytes(path.read_bytes() + b"own")
    return root


def test_parties_join_leave_are_revoked_and_rejoin(town: Town, tmp_path: Path) -> None:
    own = photographs(copied(town.root, tmp_path / "own"), B)
    town.open(B, own)
    other = more(copied(own, tmp_path / "more"), B)
    before, after = (images(root, B) for root in (own, other))
    assert after == before + 3
    town.events = {
        2: lambda: town.add(C),
        3: lambda: town.leave(B),
        4: lambda: town.revoke(C),
        6: lambda: town.open(B, other),
    }
    loop = town.train("rounds=6")

    took_part = {name: sorted(series) for name, series in town.metrics("weights", "weight").items()}
    assert took_part == {A: [1, 2, 3, 4, 5, 6], B: [1, 2, 6], C: [2, 3]}
    for number in range(1, 7):
        weights = [series[number] for series in town.metrics("weights", "weight").values() if number in series]
        assert sum(weights) == pytest.approx(1), f"round {number}: the weights of the participants add up to 1"
    summary = json.loads((town.run / "summary.json").read_text())
    assert summary["members"] == {
        A: [span(1, None, images(town.root, A))],
        B: [span(1, 3, before), span(6, None, after)],
        C: [span(2, 3, images(town.root, C))],
    }
    assert summary["rejections"] == {B: {"the silo has left": [3]}}
    assert town.metrics("members", "images") == {C: {2: images(town.root, C), 4: 0}, B: {4: 0, 6: after}}
    assert list(loop.context.clients) == [A, B]
    report = (town.run / "report.html").read_text()
    assert "Participation of the clients" in report
    assert "rounds 1 to 3" in report and "round 6 (still a member)" in report
    scores = town.metrics("global", "rank1")
    assert {name: sorted(series) for name, series in scores.items()} == {A: [0, 2, 4, 6], B: [0, 2, 6], C: [2]}
    assert summary["global"]["mean"]["rank1"]["last"] == pytest.approx((scores[A][6] + scores[B][6]) / 2)


@pytest.mark.system
def test_a_silo_that_rejoins_has_its_state_and_other_silos_are_unchanged(town: Town, tmp_path: Path) -> None:
    """SCAFFOLD saves a control variate at every client; the records of server and clients agree."""
    town.events = {2: lambda: town.leave(B), 4: lambda: (town.open(B), town.add(C))}  # type: ignore[dict-item]
    loop = town.train("rounds=4", exp="scaffold")
    controls = [town.kept(name, 4)["callbacks"]["scaffold"]["control"] for name in (A, B, C)]
    mean = {name: torch.stack([own[name] for own in controls]).double().mean(0) for name in controls[0]}
    ours = loop.callbacks["scaffold"].state_dict()["control"]
    assert ours.keys() == mean.keys() and any(value.abs().max() > 0 for value in mean.values())
    for name, value in ours.items():
        torch.testing.assert_close(value.double(), mean[name], rtol=1e-4, atol=1e-6)


def test_photographs_cannot_join_a_synthetic_run(
    town: Town, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = photographs(copied(town.root, tmp_path / "own"), C)
    town.events = {2: lambda: (town.add(C), town.open(C, other))}  # type: ignore[dict-item]
    loop = town.train("rounds=2")
    assert list(loop.context.clients) == [A, B]
    assert f"silo {C}: has photographs, and all data of this run are synthetic so far" in capsys.readouterr().err


def test_the_round_does_not_wait_for_a_silo_that_is_revoked_within_it(town: Town) -> None:
    def silent(sent: Payload) -> Payload | None:
        town.revoke(B)
        return None

    town.events = {2: lambda: town.present.update({B: silent})}
    town.train("rounds=3")
    assert {name: sorted(series) for name, series in town.metrics("weights", "weight").items()} == {
        A: [1, 2, 3],
        B: [1],
    }
    summary = json.loads((town.run / "summary.json").read_text())
    assert summary["rejections"] == {B: {"the silo was revoked": [2]}} and summary["members"][B][0]["last"] == 2


def test_too_few_silos_stop_the_run_which_can_be_resumed(town: Town) -> None:
    town.events = {2: lambda: town.leave(B)}
    with pytest.raises(FedReIDError, match=r"round 2: 1 of 2 clients sent a valid update, but min_clients=2"):
        town.train("rounds=3", "min_clients=2")
    town.open(B)
    loop = town.train("rounds=3", "min_clients=2")
    assert loop.context.round == 3
    assert {name: sorted(series) for name, series in town.metrics("weights", "weight").items()} == {
        A: [1, 2, 3],
        B: [1, 2, 3],
    }


def stop() -> None:
    raise Stopped


def test_a_run_is_resumed_with_another_list_of_silos(town: Town) -> None:
    """One silo joins and one leaves while no coordinator runs."""
    town.events = {3: stop}
    with pytest.raises(Stopped):
        town.train("rounds=4")
    town.revoke(A)
    town.add(C)
    loop = town.train("rounds=4")
    took_part = {name: sorted(series) for name, series in town.metrics("weights", "weight").items()}
    assert took_part == {A: [1, 2], B: [1, 2, 3, 4], C: [3, 4]}
    assert json.loads((town.run / "summary.json").read_text())["members"] == {
        A: [span(1, 2, images(town.root, A))],
        B: [span(1, None, images(town.root, B))],
        C: [span(3, None, images(town.root, C))],
    }
    assert list(loop.context.clients) == [B, C]


@pytest.mark.system
def test_a_restart_after_a_change_of_members_changes_no_bit(
    town: Town, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of clients, on which sums depend, is the federation's and not the order of joining."""
    town.events = {2: lambda: town.add(C), 3: stop}
    with pytest.raises(Stopped):
        town.train("rounds=3")
    town.train("rounds=3")
    straight = Town(tiny_root, tmp_path / "straight", monkeypatch)
    straight.events = {2: lambda: straight.add(C)}
    straight.train("rounds=3")
    assert (town.run / "metrics.csv").read_bytes() == (straight.run / "metrics.csv").read_bytes()
    models = [read_state(place.run / "checkpoints" / "round-00003.ckpt")["models"] for place in (town, straight)]
    support.assert_equal(*models)


@pytest.mark.system
def test_the_run_does_not_wait_for_a_silo_that_has_left(town: Town) -> None:
    town.events = {2: lambda: town.leave(B), 4: stop}
    with pytest.raises(Stopped):
        town.train("rounds=4")
    town.train("rounds=4")
    assert json.loads((town.run / "summary.json").read_text())["members"][B] == [span(1, 2, images(town.root, B))]


# a silo that rejoins


class Returning:
    """A silo that has trained one round; the test then changes its images."""

    def __init__(self, root: Path, home: Path, *words: str) -> None:
        self.root = copied(root, home / "pictures")
        federation, silos = make_parties(home, [A, "other"])
        self.silo, self.coordinator = silos[A], Coordinator(federation, silos[A], home, *words)
        self.lines: list[str] = []
        self.service = make_service(self.silo, self.root, self.lines.append)
        assert self.send(self.coordinator.experiment()).header.kind == "joined"
        assert self.fit(1).header.kind == "update"
        self.folder = self.root / A / "bounding_box_train"

    def send(self, payload: Payload) -> Any:
        return self.coordinator.opened(self.service.answer(payload))

    def fit(self, round: int) -> Any:
        return self.send(self.coordinator.payload("fit", round, self.coordinator.initial))

    def come_back(self) -> None:
        self.service = make_service(self.silo, self.root, self.lines.append)

    def persons(self) -> list[str]:
        return sorted({path.name.split("_")[0] for path in self.folder.iterdir()}, key=int)

    def head(self, round: int) -> dict[str, Tensor]:
        """Returns the head at the start of a round's job."""
        assert self.service.session is not None
        worker = self.service.session.worker
        return worker.states.load(support.fit_job(round, A, worker.initial))["head"]


@pytest.fixture
def returning(tiny_root: Path, tmp_path: Path) -> Returning:
    return Returning(tiny_root, tmp_path)


def test_a_silo_rejoins_with_more_images_and_persons(returning: Returning) -> None:
    (kept,) = returning.silo.path.glob(f"sessions/*/clients/{A}/round-00001.pt")
    before, old = read_state(kept)["head"], returning.persons()
    count = len(list(returning.folder.iterdir()))
    more(returning.root, A)
    gone = [path for path in returning.folder.iterdir() if path.name.startswith(old[0])]
    for path in gone:
        path.unlink()
    count -= len(gone)
    returning.come_back()
    failure = returning.fit(2)
    assert (failure.header.kind, failure.header.values["reason"]) == ("failure", "DataChanged")
    joined = returning.send(returning.coordinator.experiment())
    assert joined.header.kind == "joined" and joined.header.values["images"] == count + 3
    assert "1 new person since round 1" in "\n".join(returning.lines)
    head, now = returning.head(2), returning.persons()
    assert now[:-1] == old[1:] and now[-1] not in old, "the first person is gone, the last is new"
    for name, value in head.items():
        assert torch.equal(value[:-1], before[name][1:]), "known persons keep their bits"
    assert float(before["bias"].abs().max()) > 0 and float(head["bias"][-1]) == 0, "a new row has a bias of zero"
    assert not torch.equal(head["weight"][-1], before["weight"][0])
    assert returning.fit(2).header.values["num_samples"] == count + 3


def test_a_training_image_cannot_become_a_test_image(returning: Returning) -> None:
    """The image has another name, another folder and another person."""
    picture = sorted(returning.folder.iterdir())[0]
    query = sorted((returning.root / A / "query").iterdir())[0]
    picture.replace(query)
    returning.come_back()
    answer = returning.send(returning.coordinator.experiment())
    assert answer.header.kind == "refused" and answer.header.values == {"reason": "FedReIDError"}
    line = returning.lines[-1]
    assert f"this run was trained on 1 picture that the test sets contain now, such as {query}; make" in line
    assert "\n" not in line


def test_a_training_image_of_an_early_round_cannot_become_a_test_image(returning: Returning) -> None:
    picture = sorted(returning.folder.iterdir())[0]
    content = picture.read_bytes()
    picture.unlink()
    returning.come_back()
    assert returning.send(returning.coordinator.experiment()).header.kind == "joined"
    assert returning.fit(2).header.kind == "update"
    sorted((returning.root / A / "query").iterdir())[0].write_bytes(content)
    returning.come_back()
    assert returning.send(returning.coordinator.experiment()).header.kind == "refused"


def test_a_silo_with_none_of_its_former_persons_is_refused(returning: Returning) -> None:
    for number, path in enumerate(sorted(returning.folder.iterdir())):
        path.rename(path.with_name(f"{int(path.name.split('_')[0]) + 5000}_c{1 + number % 2}s1_{number:06d}_01.jpg"))
    returning.come_back()
    answer = returning.send(returning.coordinator.experiment())
    assert answer.header.values == {"reason": "LostState"}
    assert "none of its persons is among the training pictures" in returning.lines[-1]


def test_an_algorithm_without_a_mapping_of_persons_refuses_changed_persons(tiny_root: Path, tmp_path: Path) -> None:
    returning = Returning(tiny_root, tmp_path, "exp=fedbabu")
    more(returning.root, A)
    returning.come_back()
    assert returning.send(returning.coordinator.experiment()).header.values == {"reason": "FedReIDError"}
    assert "callbacks.fedbabu: the client's persons have changed, but the saved value drawn" in returning.lines[-1]
