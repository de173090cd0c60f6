"""Galleries: search, removal, expiry, concurrent processes, and killed writers."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sqlite3
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from fedreid_pl.errors import FedReIDError
from fedreid_pl.functional.nearest import nearest_rows
from fedreid_pl.retrieval.gallery import Gallery


def some(count: int, dim: int = 16, seed: int = 0) -> torch.Tensor:
    return normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def filled(path: Path | None = None, **options: str) -> tuple[Gallery, torch.Tensor]:
    """Returns a gallery of four persons with three rows each, of cameras a, b, c."""
    features = some(12)
    gallery = Gallery(path, **options)
    persons = [f"p{row // 3}" for row in range(12)]
    gallery.add(features, persons, ["a", "b", "c"] * 4, [f"s{row}" for row in range(12)])
    return gallery, features


def test_search_agrees_with_a_loop() -> None:
    gallery, features = filled()
    for number, query in enumerate(some(5, seed=3)):
        order = sorted(range(12), key=lambda row: -float(features[row] @ query))
        found = gallery.search(query[None], k=4)[0]
        assert [match.source for match in found] == [f"s{row}" for row in order[:4]], number
        assert found[0].score == pytest.approx(float(features[order[0]] @ query), abs=1e-6)
        away = gallery.search(query[None], k=12, camera="b")[0]
        assert [match.source for match in away] == [f"s{row}" for row in order if row % 3 != 1]


@pytest.mark.parametrize("pooling", ["best", "mean"])
def test_persons(pooling: str) -> None:
    gallery, features = filled()
    query = some(1, seed=4)
    scores = {f"p{person}": features[3 * person : 3 * person + 3] @ query[0] for person in range(4)}
    value = {person: float(part.max() if pooling == "best" else part.mean()) for person, part in scores.items()}
    found = gallery.search(query, k=3, group="person", pooling=pooling)[0]  # type: ignore[arg-type]
    assert [match.person for match in found] == sorted(value, key=lambda person: -value[person])[:3]
    assert found[0].score == pytest.approx(value[found[0].person], abs=1e-6) and found[0].rows == 3


def test_nearest_rows_with_many_equal_scores() -> None:
    gallery = torch.eye(4)[torch.arange(3000) % 4]
    scores, rows = nearest_rows(torch.eye(4)[:2], gallery, 7)
    assert rows.tolist() == [list(range(0, 28, 4)), list(range(1, 28, 4))] and bool((scores == 1).all())
    allowed = torch.arange(3000) >= 2990
    scores, rows = nearest_rows(torch.eye(4)[:1], gallery, 12, allowed)
    assert rows[0, :10].tolist() == [2992, 2996, 2990, 2991, 2993, 2994, 2995, 2997, 2998, 2999]
    assert rows[0, 10:].tolist() == [-1, -1] and scores[0, 10:].tolist() == [-torch.inf] * 2


def test_removed_rows_leave_no_trace_in_the_file(tmp_path: Path) -> None:
    gallery, features = filled(tmp_path / "g.db")
    assert (
        gallery.remove(person="p1") == 3 and gallery.remove(source="s0") == 1 and gallery.remove(person="nobody") == 0
    )
    assert len(gallery) == 8 and {match.person for match in gallery.search(features[3:4], k=12)[0]} == {
        "p0",
        "p2",
        "p3",
    }
    gallery.close()
    held = (tmp_path / "g.db").read_bytes()
    assert features[6].numpy().tobytes() in held and features[4].numpy().tobytes() not in held
    with pytest.raises(FedReIDError, match="give person="):
        Gallery.load(tmp_path / "g.db").remove()


def test_expired_rows_are_not_found(tmp_path: Path) -> None:
    gallery, _ = filled(tmp_path / "g.db")
    late = some(2, seed=9)
    now = datetime.now(timezone.utc)
    gallery.add(late[:1], ["old"], expires_at=now - timedelta(seconds=1))
    gallery.add(late[1:], ["new"], expires_at=now + timedelta(hours=1))
    assert {match.person for match in gallery.search(late, k=20)[1]} == {"p0", "p1", "p2", "p3", "new"}
    assert gallery.purge() == 1 and len(gallery) == 13
    assert gallery.purge(now + timedelta(hours=2)) == 1 and len(gallery) == 12


def test_save_and_load(tmp_path: Path) -> None:
    gallery, features = filled()
    gallery.save(tmp_path / "kept" / "g.db")
    again = Gallery.load(tmp_path / "kept" / "g.db")
    assert again.search(features, k=12) == gallery.search(features, k=12)
    assert again.persons() == {"p0": 3, "p1": 3, "p2": 3, "p3": 3}
    assert [item.name for item in (tmp_path / "kept").iterdir()] == ["g.db"]


def test_rows_of_another_model_are_refused(tmp_path: Path) -> None:
    header = {"model": {"sha256": "one"}, "preprocessing": {}, "flip": True, "dim": 16}
    gallery = Gallery(tmp_path / "g.db")
    gallery.add(some(2), ["a", "b"], header=header)
    other = {**header, "model": {"sha256": "two"}}
    with pytest.raises(FedReIDError, match="another model"):
        gallery.add(some(1), ["c"], header=other)
    with pytest.raises(FedReIDError, match="another flip"):
        gallery.search(some(1), header={**header, "flip": False})
    with pytest.raises(FedReIDError, match="queries have 8 values"):
        gallery.search(some(1, dim=8))
    with pytest.raises(FedReIDError, match="16 values, these have 8"):
        gallery.add(some(1, dim=8), ["c"])
    assert len(gallery) == 2 and gallery.header == header


@pytest.mark.parametrize(
    ("features", "persons", "words"),
    [
        (2 * some(2), ["a", "b"], "has the length 2, not 1"),
        (torch.full((1, 4), torch.nan), ["a"], "length nan"),
        (some(2), ["a"], "persons: 1 values for 2"),
        (some(2), "ab", "persons: 2 values for 2"),
        (torch.zeros(2, 3, dtype=torch.int64), ["a", "b"], "floating point"),
    ],
)
def test_invalid_rows_leave_the_gallery_unchanged(features: torch.Tensor, persons: list[str], words: str) -> None:
    gallery, _ = filled()
    with pytest.raises(FedReIDError, match=words):
        gallery.add(features, persons)
    assert len(gallery) == 12


@pytest.mark.parametrize("content", [b"no database", b"", None])
def test_other_files_are_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "g.db"
    if content is None:
        with sqlite3.connect(path) as database:
            database.execute("CREATE TABLE rows (x)")
    else:
        path.write_bytes(content)
    if content == b"":  # an empty file is an empty database
        assert len(Gallery(path)) == 0
        return
    with pytest.raises(FedReIDError, match="not a gallery"):
        Gallery(path)
    with pytest.raises(FedReIDError, match="no such gallery"):
        Gallery.load(tmp_path / "missing.db")


def test_every_search_is_logged(tmp_path: Path) -> None:
    gallery, features = filled(audit=str(tmp_path / "audit.jsonl"))
    gallery.search(features[:2], k=1)
    gallery.search(features[:1], k=2, camera="a")
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert lines[0]["found"] == [["p0"], ["p0"]] and lines[1]["camera"] == "a"


@pytest.mark.parametrize("name", ["faiss", "usearch"])
def test_approximate_indexes_find_nearly_all(name: str) -> None:
    pytest.importorskip("faiss" if name == "faiss" else "usearch.index")
    features, queries = some(2000, 32), some(50, 32, seed=1)
    exact, near = Gallery(), Gallery(index=name)
    for gallery in (exact, near):
        gallery.add(features, [str(row) for row in range(2000)], ["a", "b"] * 1000)
    for camera in (None, "a"):
        wanted, found = (
            [{match.person for match in matches} for matches in gallery.search(queries, 10, camera)]
            for gallery in (exact, near)
        )
        recall = sum(len(left & right) for left, right in zip(wanted, found, strict=True)) / 500
        assert recall > 0.95
    with pytest.raises(FedReIDError, match="did you mean 'exact'"):
        Gallery(index="exat").search(some(1))


def _add(path: Path, name: str, count: int) -> None:
    gallery = Gallery(path)
    for number in range(count):
        gallery.add(some(4, seed=number), [f"{name}{number}"] * 4)


@pytest.mark.system
def test_processes_add_while_another_searches(tmp_path: Path) -> None:
    path = tmp_path / "g.db"
    gallery = Gallery(path)
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_add, args=(path, name, 15)) for name in "xy"]
    for writer in writers:
        writer.start()
    sizes = []
    while any(writer.is_alive() for writer in writers):
        found = gallery.search(some(1), k=1000)[0]
        assert len(found) % 4 == 0  # only complete transactions
        sizes.append(len(found))
    for writer in writers:
        writer.join()
    assert len(gallery) == 120 and sizes == sorted(sizes) and len(gallery.persons()) == 30


@pytest.mark.system
def test_a_killed_writer_leaves_a_readable_gallery(tmp_path: Path) -> None:
    path = tmp_path / "g.db"
    gallery = Gallery(path)
    writer = multiprocessing.get_context("fork").Process(target=_add, args=(path, "x", 10_000))
    writer.start()
    while len(gallery) < 40:
        time.sleep(0.001)
    os.kill(writer.pid, signal.SIGKILL)  # type: ignore[arg-type]
    writer.join()
    gallery.close()
    again = Gallery.load(path)
    held = len(again)
    assert held >= 40 and held % 4 == 0
    assert again.add(some(1), ["after"]) == 1 and len(again) == held + 1


def test_searching_in_parts_gives_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, _ = filled()
    queries, ways = some(7, seed=2), ({}, {"group": "person", "pooling": "mean"}, {"rerank": True, "camera": "b"})
    whole = [gallery.search(queries, k=5, **way) for way in ways]  # type: ignore[arg-type]
    for name in ("functional.nearest", "retrieval.matching"):
        monkeypatch.setattr(f"fedreid_pl.{name}._CELLS", 24)
    monkeypatch.setattr("fedreid_pl.functional.nearest._LEAST", 1)
    for way, before in zip(ways, whole, strict=True):
        for left, right in zip(gallery.search(queries, k=5, **way), before, strict=True):  # type: ignore[arg-type]
            assert [match.source for match in left] == [match.source for match in right]
            assert [match.score for match in left] == pytest.approx([match.score for match in right], abs=1e-6)


def test_reranking_orders_by_the_definition() -> None:
    from fedreid_pl.functional.reranking import KReciprocal

    gallery, features = filled()
    queries = some(2, seed=5)
    distances = KReciprocal(queries, features).distances(torch.arange(2))
    for query, found in enumerate(gallery.search(queries, k=12, rerank=True)):
        assert [-match.score for match in found] == pytest.approx(sorted(distances[query].tolist()), abs=1e-6)
