"""A client that returns with more images or other persons: known persons keep their rows of the head."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import support
import torch
from federation.client.test_worker import build
from torch import Tensor

from fedreid_pl.data.readers.listing import make_table
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.client.persons import known_rows, person_marks
from fedreid_pl.federation.client.store import LostState
from fedreid_pl.federation.client.worker import ClientWorker

A = support.TINY[1]


@pytest.fixture
def root(tiny_root: Path, tmp_path: Path) -> Path:
    """Returns a copy of the tiny data that a test may change."""
    shutil.copytree(tiny_root, tmp_path / "data")
    return tmp_path / "data"


def persons(root: Path) -> list[str]:
    """Returns the numbers of client A's training persons, in the order of the head's rows."""
    folder = root / A / "bounding_box_train"
    return sorted({path.name.split("_")[0] for path in folder.iterdir()}, key=int)


def pictures(root: Path, person: str) -> list[Path]:
    return sorted((root / A / "bounding_box_train").glob(f"{person}_*"))


def rename(root: Path, person: str, to: str) -> None:
    for path in pictures(root, person):
        path.rename(path.with_name(path.name.replace(person, to, 1)))


def add(root: Path, person: str, like: str) -> None:
    """Adds a new person with the images of another."""
    for path in pictures(root, like):
        shutil.copyfile(path, path.with_name(path.name.replace(like, person, 1)))


def fit(worker: ClientWorker, round: int) -> dict[str, dict[str, Tensor]]:
    worker.fit(support.fit_job(round, A, worker.initial))
    kept = worker.store.load(A, round + 1)
    assert kept is not None
    return kept


def started(worker: ClientWorker, round: int) -> dict[str, dict[str, Tensor]]:
    """Returns the client state at the start of a round."""
    return worker.states.load(support.fit_job(round, A, worker.initial))


def test_known_persons_keep_their_rows_and_new_persons_get_new_rows(root: Path, tmp_path: Path) -> None:
    before = fit(build(root, tmp_path / "kept"), 1)
    old = persons(root)
    new = f"{int(old[1]) + 1:0{len(old[1])}d}"  # between two existing numbers, if free
    assert new not in old
    add(root, new, like=old[0])
    for path in pictures(root, old[-1]):
        path.unlink()  # removes a person
    worker = build(root, tmp_path / "kept")
    fresh = worker.states.new_head(A).state_dict()
    after = started(worker, 2)["head"]
    now = persons(root)
    assert new in now and old[-1] not in now
    for row, person in enumerate(now):
        source, place = (fresh, row) if person == new else (before["head"], old.index(person))
        for name in ("weight", "bias"):
            assert torch.equal(after[name][row], source[name][place]), person
    assert worker.states.check_persons(A) == 1
    kept = fit(worker, 2)
    assert kept["head"]["weight"].shape[0] == len(now)
    assert int(kept["persons"][:, 1].max()) == len(now) - 1  # type: ignore[call-overload]


def test_more_images_of_the_same_persons_change_no_row(root: Path, tmp_path: Path) -> None:
    before = fit(build(root, tmp_path / "kept"), 1)
    person = persons(root)[0]
    shutil.copyfile(pictures(root, person)[-1], pictures(root, person)[-1].with_name(f"{person}_c1s1_999999_01.jpg"))
    worker = build(root, tmp_path / "kept")
    support.assert_equal(dict(started(worker, 2)["head"]), dict(before["head"]))
    assert worker.states.check_persons(A) == 0
    assert worker.datamodules[A].num_samples == len(list((root / A / "bounding_box_train").iterdir()))


def rows_of(marks: Tensor, rows: list[tuple[str, int, int, int]]) -> list[int | None]:
    return known_rows(marks, person_marks(make_table("x", Path(), rows)))


def test_numbers_of_persons_do_not_matter() -> None:
    """A reader that numbers persons in the order of their names changes the numbers when a person is added."""
    rows = [(f"{name}/{number}.jpg", place, 0, 0) for place, name in enumerate("ace") for number in range(3)]
    marks = person_marks(make_table("x", Path(), rows))
    more = [(f"{name}/{number}.jpg", place, 0, 0) for place, name in enumerate("abcde") for number in range(3)]
    assert rows_of(marks, more) == [0, None, 1, None, 2]
    assert known_rows(marks, person_marks(make_table("x", Path("/elsewhere"), rows))) == [0, 1, 2]
    other = person_marks(make_table("x", Path(), rows), "another client")
    assert known_rows(marks, other) == [None, None, None], "equal file names of two clients are different persons"
    merged = [(path, min(person, 1), 0, 0) for path, person, _, _ in rows]  # c and e are now one person
    assert rows_of(marks, merged) == [0, 1]
    split = [(path, int(path.endswith(("1.jpg", "2.jpg"))), 0, 0) for path, *_ in rows[:3]]
    assert rows_of(marks, split) == [None, 0], "the row goes to the person with most of its images"


def test_equal_file_names_in_folders_of_persons_are_different_pictures() -> None:
    """Datasets often number frames from 1 in every folder, at any depth."""
    rows = [(f"{name}/camera/day/{number}.jpg", place, 0, 0) for place, name in enumerate("ab") for number in range(2)]
    marks = person_marks(make_table("x", Path("/one"), rows))
    assert len(marks[:, 0].unique()) == 4
    assert rows_of(marks, [(path, 1 - place, 0, 0) for path, place, _, _ in rows]) == [1, 0]


@pytest.mark.parametrize("again", ["/home/new", "/mnt/deep/er"])
def test_merged_datasets_may_move(again: str) -> None:
    """The table of `data.scenario=merged` has absolute paths."""
    marks, moved = (
        person_marks(
            make_table("merged", Path("/"), [(f"{root}/{name}/1.jpg", place, 0, 0) for place, name in enumerate("ab")])
        )
        for root in ("/data", again)
    )
    assert torch.equal(marks, moved)


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
    after = again.states.load(job)
    assert before is not None
    if exp == "ditto":
        own, mine = before["callbacks"]["ditto"]["head"]["weight"], after["callbacks"]["ditto"]["head"]["weight"]
        assert torch.equal(mine[:place], own[:place]) and torch.equal(mine[place + 1 :], own[place:])
    else:
        momentum = after["optimizer"]["momentum"]
        assert momentum and all(name.startswith("backbone.") for name in momentum)
        assert any(name.startswith("head.") for name in before["optimizer"]["momentum"])
    again.fit(job)


@pytest.mark.parametrize(("exp", "part"), [("snr", "classifiers"), ("fedbabu", "drawn")])
def test_other_state_per_person_is_refused(exp: str, part: str, root: Path, tmp_path: Path) -> None:
    worker = build(root, tmp_path / "kept", exp=exp)
    fit(worker, 1)
    kept = worker.store.load(A, 2)
    assert kept is not None and part in kept["callbacks"][exp]
    for path in pictures(root, persons(root)[-1]):
        path.unlink()
    again = build(root, tmp_path / "kept", exp=exp)
    with pytest.raises(
        FedReIDError, match=rf"callbacks\.{exp}: the client's persons have changed, but the saved value {part}"
    ):
        again.states.check_persons(A)


@pytest.mark.parametrize(
    "marks", [torch.zeros(3), torch.zeros(3, 2), torch.tensor([[5, 10**6]]), torch.tensor([[5, -1]]), "x"]
)
def test_invalid_tables_of_persons_are_refused(marks: Any, root: Path, tmp_path: Path) -> None:
    worker = build(root, tmp_path / "kept")
    kept = fit(worker, 1)
    worker.store.save(A, 1, {**kept, "persons": marks})
    with pytest.raises(LostState, match="saved table of persons"):
        started(worker, 2)
