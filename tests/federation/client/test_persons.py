"""A client that comes back with more pictures or other persons: known persons keep their rows of the head."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import support
import torch
from federation.client.test_worker import build
from torch import Tensor

from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.client.persons import check_tests, known_rows, person_marks, with_persons
from fedreid_pl.federation.client.store import LostState
from fedreid_pl.federation.client.worker import ClientWorker

A = support.TINY[1]


@pytest.fixture
def root(tiny_root: Path, tmp_path: Path) -> Path:
    """A copy of the tiny data that a test may change."""
    shutil.copytree(tiny_root, tmp_path / "data")
    return tmp_path / "data"


def persons(root: Path) -> list[str]:
    """Numbers of the training persons of client A, in the order of the head's rows."""
    folder = root / A / "bounding_box_train"
    return sorted({path.name.split("_")[0] for path in folder.iterdir()}, key=int)


def pictures(root: Path, person: str) -> list[Path]:
    return sorted((root / A / "bounding_box_train").glob(f"{person}_*"))


def rename(root: Path, person: str, to: str) -> None:
    for path in pictures(root, person):
        path.rename(path.with_name(path.name.replace(person, to, 1)))


def add(root: Path, person: str, like: str) -> None:
    """A person who is new, with the pictures of another."""
    for path in pictures(root, like):
        shutil.copyfile(path, path.with_name(path.name.replace(like, person, 1)))


def fit(worker: ClientWorker, round: int) -> dict[str, dict[str, Tensor]]:
    worker.fit(support.fit_job(round, A, worker.initial))
    kept = worker.store.load(A, round + 1)
    assert kept is not None
    return kept


def started(worker: ClientWorker, round: int) -> dict[str, dict[str, Tensor]]:
    """What the client would start a round with."""
    return worker.kept(support.fit_job(round, A, worker.initial))


def test_known_persons_keep_their_rows_and_new_ones_begin_anew(root: Path, tmp_path: Path) -> None:
    before = fit(build(root, tmp_path / "kept"), 1)
    old = persons(root)
    new = f"{int(old[1]) + 1:0{len(old[1])}d}"  # between two that are there, if the number is free
    assert new not in old
    add(root, new, like=old[0])
    for path in pictures(root, old[-1]):
        path.unlink()  # a person who is gone
    worker = build(root, tmp_path / "kept")
    fresh = worker._new_head(A).state_dict()
    after = started(worker, 2)["head"]
    now = persons(root)
    assert new in now and old[-1] not in now
    for row, person in enumerate(now):
        source, place = (fresh, row) if person == new else (before["head"], old.index(person))
        for name in ("weight", "bias"):
            assert torch.equal(after[name][row], source[name][place]), person
    assert worker.check_persons(A) == 1
    kept = fit(worker, 2)
    assert kept["head"]["weight"].shape[0] == len(now) and len(kept["persons"]) == len(now)  # type: ignore[arg-type]


def test_more_pictures_of_the_same_persons_change_nothing(root: Path, tmp_path: Path) -> None:
    before = fit(build(root, tmp_path / "kept"), 1)
    person = persons(root)[0]
    shutil.copyfile(pictures(root, person)[-1], pictures(root, person)[-1].with_name(f"{person}_c1s1_999999_01.jpg"))
    worker = build(root, tmp_path / "kept")
    support.assert_equal(dict(started(worker, 2)["head"]), dict(before["head"]))
    assert worker.check_persons(A) == 0
    assert worker.datamodules[A].num_samples == len(list((root / A / "bounding_box_train").iterdir()))


def test_numbers_of_persons_do_not_matter() -> None:
    """Readers that number persons by the order of their names give other numbers when one is added."""
    from fedreid_pl.data.readers.listing import make_table

    rows = [(f"{name}/{number}.jpg", place, 0, 0) for place, name in enumerate("ace") for number in range(3)]
    marks = person_marks(make_table("x", Path(), rows))
    more = [(f"{name}/{number}.jpg", place, 0, 0) for place, name in enumerate("abcde") for number in range(3)]
    assert known_rows(marks, make_table("x", Path(), more)) == [0, None, 1, None, 2]
    assert known_rows(marks, make_table("x", Path("/elsewhere"), rows)) == [0, 1, 2]
    merged = [(path, min(person, 1), 0, 0) for path, person, _, _ in rows]  # c and e are one person after all
    assert known_rows(marks, make_table("x", Path(), merged)) == [0, 1]
    split = [(path, 2 * person + path.endswith("2.jpg"), 0, 0) for path, person, _, _ in rows[:3]]
    assert known_rows(marks, make_table("x", Path(), split)) == [0, None], "the row goes to the first alone"


@pytest.mark.parametrize("exp", ["ditto", "local"])
def test_other_heads_and_momentum_follow(exp: str, root: Path, tmp_path: Path) -> None:
    words = [] if exp == "ditto" else ["optimizer_state=keep"]
    worker = build(root, tmp_path / "kept", *words, exp=exp)
    sent = worker.initial if exp == "ditto" else {}
    worker.fit(support.fit_job(1, A, sent))
    before = worker.store.load(A, 2)
    old = persons(root)
    new = next(number for number in range(int(old[0]) + 1, 9999) if f"{number:04d}" not in old)
    add(root, f"{new:04d}", like=old[1])
    place = persons(root).index(f"{new:04d}")
    again = build(root, tmp_path / "kept", *words, exp=exp)
    job = support.fit_job(2, A, sent)
    after = again.kept(job)
    assert before is not None
    if exp == "ditto":
        own, mine = before["callbacks"]["ditto"]["head"]["weight"], after["callbacks"]["ditto"]["head"]["weight"]
        assert torch.equal(mine[:place], own[:place]) and torch.equal(mine[place + 1 :], own[place:])
    else:
        momentum = after["optimizer"]["momentum"]
        assert momentum and all(name.startswith("backbone.") for name in momentum)
        assert any(name.startswith("head.") for name in before["optimizer"]["momentum"])
    again.fit(job)


def test_a_picture_that_was_trained_on_is_never_tested_on(root: Path, tmp_path: Path) -> None:
    data = build(root, tmp_path).datamodules[A]
    marks = person_marks(data.client.train)
    with pytest.raises(FedReIDError, match=r"client mini-viper: \d+ pictures that were trained on are test pictures"):
        check_tests(marks, [data.tests[A].query, data.client.train], A)
    check_tests(marks, [data.tests[A].query, data.tests[A].gallery], A)


def test_what_else_is_kept_for_every_person_is_refused() -> None:
    head = {"weight": torch.zeros(3, 2), "bias": torch.zeros(3)}
    kept = {"head": head, "callbacks": {"prototypes": {"means": torch.ones(3, 2)}}}
    with pytest.raises(ValueError, match=r"callbacks\.prototypes keeps something for every person"):
        with_persons(kept, {"weight": torch.zeros(4, 2), "bias": torch.zeros(4)}, [0, 1, 2, None])
    other = {"head": head, "callbacks": {"scaffold": {"control": {"w": torch.ones(5, 2)}}}}
    moved = with_persons(other, {"weight": torch.ones(4, 2), "bias": torch.ones(4)}, [0, 1, 2, None])
    assert moved["head"]["bias"].tolist() == [0, 0, 0, 1] and moved["callbacks"] == other["callbacks"]


def test_marks_that_no_client_wrote_are_refused(root: Path, tmp_path: Path) -> None:
    worker = build(root, tmp_path / "kept")
    kept = fit(worker, 1)
    worker.store.save(A, 1, {**kept, "persons": torch.zeros(3)})
    with pytest.raises(LostState, match="no table of marks"):
        started(worker, 2)
