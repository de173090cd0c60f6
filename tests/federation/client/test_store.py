"""The clients' saved states: the file that a turn reads, and the files that a resume may need."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedreid_pl.federation.client.store import ClientStore


class Names(ClientStore):
    """A store with names instead of files, to test many cases quickly."""

    def __init__(self, turns: dict[str, set[int]]) -> None:
        super().__init__(Path("unused"))
        self.turns = turns

    def _rounds(self, client: str) -> list[int]:
        return sorted(self.turns[client])

    def _path(self, client: str, round: int) -> Path:  # type: ignore[override]
        turns = self.turns[client]

        class File(type(Path())):  # type: ignore[misc]
            def unlink(self, missing_ok: bool = False) -> None:
                turns.discard(round)

        return File("unused")


def fill(store: ClientStore, client: str, *rounds: int) -> None:
    for round in rounds:
        store.save(client, round, {"head": {"weight": torch.full((2,), float(round))}})


def read(store: ClientStore, client: str, before: int) -> float | None:
    state = store.load(client, before)
    return None if state is None else float(state["head"]["weight"][0])


def test_a_turn_reads_the_last_one_before_it(tmp_path: Path) -> None:
    store = ClientStore(tmp_path)
    assert read(store, "a", 1) is None
    fill(store, "a", 2, 5, 11)
    fill(store, "b", 4)
    assert [read(store, "a", before) for before in (1, 2, 3, 5, 6, 11, 12, 999)] == [None, None, 2, 2, 5, 5, 11, 11]
    assert read(store, "b", 3) is None and read(store, "b", 5) == 4
    assert read(ClientStore(tmp_path), "a", 6) == 5
    fill(store, "a", 100_000)
    assert read(store, "a", 100_001) == 100_000, "rounds are sorted as numbers"


def test_foreign_files_are_not_changed(tmp_path: Path) -> None:
    store = ClientStore(tmp_path)
    fill(store, "a", 1)
    for name in ("notes.txt", ".round-00009.pt.12.tmp", "round-00009.pt.bak"):
        (tmp_path / "a" / name).write_text("x")
    (tmp_path / "stray.txt").write_text("x")
    assert read(store, "a", 10) == 1
    store.prune("a", [])
    store.forget(0)
    assert sorted(os.listdir(tmp_path / "a")) == [".round-00009.pt.12.tmp", "notes.txt", "round-00009.pt.bak"]


def test_forget_deletes_later_rounds(tmp_path: Path) -> None:
    store = ClientStore(tmp_path)
    ClientStore(tmp_path / "none").forget(3)
    fill(store, "a", 1, 3, 4)
    fill(store, "b", 2, 5)
    store.forget(3)
    assert [read(store, client, 99) for client in "ab"] == [3, 2]
    assert sorted(os.listdir(tmp_path / "a")) == ["round-00001.pt", "round-00003.pt"]


def test_other_processes_only_read(tmp_path: Path) -> None:
    first, second = ClientStore(tmp_path), ClientStore(tmp_path, writable=False)
    fill(first, "a", 1, 2)
    fill(second, "a", 3)
    second.prune("a", [])
    second.forget(0)
    assert sorted(os.listdir(tmp_path / "a")) == ["round-00001.pt", "round-00002.pt"]
    assert read(second, "a", 3) == 2


@settings(deadline=None, max_examples=300)
@given(st.sets(st.integers(1, 12), max_size=8), st.sets(st.integers(1, 12), max_size=4))
def test_prune_keeps_exactly_the_files_that_a_resume_reads(turns: set[int], checkpoints: set[int]) -> None:
    store = Names({"a": set(turns)})
    store.prune("a", checkpoints)
    read_later = set()
    for checkpoint in checkpoints:
        for following in range(checkpoint + 1, 15):  # the client's next turn after resuming there
            there = [turn for turn in turns if turn <= checkpoint and turn < following]
            read_later |= {sorted(there)[-1]} if there else set()
    assert store.turns["a"] == read_later


def test_prune_on_disk(tmp_path: Path) -> None:
    store = ClientStore(tmp_path)
    fill(store, "a", 1, 2, 3, 4, 5, 6)
    fill(store, "b", 1)
    store.prune("a", [2, 5, 6])
    assert sorted(os.listdir(tmp_path / "a")) == ["round-00002.pt", "round-00005.pt", "round-00006.pt"]
    assert os.listdir(tmp_path / "b") == ["round-00001.pt"]
