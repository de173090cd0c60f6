"""Every layout in miniature: its reader finds the dataset, with other files present and in any listing order."""

from __future__ import annotations

import functools
import os
import zlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

import layouts
import numpy as np
import pytest
import torch
from dataset_files import Shuffled, rows_of, shuffle_listings
from layouts import GALLERY, MINIATURES, QUERY, TRAIN, Miniature
from PIL import Image

from fedreid_pl.config import DataConfig
from fedreid_pl.data.decoding import decode, open_rgb
from fedreid_pl.data.layouts import ReadOptions, find_layouts, recognise_layout
from fedreid_pl.data.readers.csv_table import to_csv
from fedreid_pl.data.readers.cuhk03_mat import inside_mat
from fedreid_pl.data.samples import DISTRACTOR, JUNK
from fedreid_pl.data.scenarios import load_federated_data
from fedreid_pl.metrics.retrieval import ReIDRetrieval

Row = tuple[str, int, int, str]
CODES = {layouts.JUNK: JUNK, layouts.DISTRACTOR: DISTRACTOR}
EACH = pytest.mark.parametrize("name", MINIATURES)
DRAWS = [(split, seed) for split in range(4) for seed in (0, 1)]


@functools.cache
def miniature(name: str) -> Miniature:
    if name.endswith("official"):
        pytest.importorskip("scipy")
    return MINIATURES[name]()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("layouts")


@pytest.fixture
def root(name: str, home: Path) -> Path:
    """Writes one miniature and returns its folder."""
    return home / name if (home / name).exists() else layouts.write(miniature(name), home / name)


def options_for(mini: Miniature, **options) -> ReadOptions:
    return ReadOptions(**{"train_only": mini.splits == {TRAIN}, **options})


def read(name: str, root: Path, **options) -> list[Row]:
    mini = miniature(name)
    return rows_of(find_layouts()[mini.layout].read(root, name, options_for(mini, **options)))


class FoldersFirst(Shuffled):
    """A replacement of `os.scandir` that lists folders first, also those with image-like names."""

    def __enter__(self):
        return iter(sorted(self.entries.__enter__(), key=lambda entry: (entry.is_file(), entry.name)))


def assert_one_to_one(pairs: Iterable[tuple[Hashable, Hashable]]) -> None:
    """Asserts that two lists have equal entries at the same positions."""
    there, back = {}, {}
    for left, right in pairs:
        assert there.setdefault(left, right) == right and back.setdefault(right, left) == left, (left, right)


def check(mini: Miniature, rows: Sequence[Row], split: int) -> None:
    """Asserts that images, splits, persons and cameras are those of the miniature."""
    used = [(path, part) for path, _, _, part in rows]
    assert len(set(used)) == len(used)
    for sides in ((TRAIN,), (QUERY, GALLERY)) if mini.restarts else ((TRAIN, QUERY, GALLERY),):
        assert_one_to_one((mini.persons[path], person) for path, person, _, part in rows if part in sides)
    for path, person, _, _ in rows:
        assert person == CODES.get(mini.persons[path], person) and (person >= 0) == (mini.persons[path] not in CODES)
    if mini.protocol is None:
        camera_of = {(shot.path, shot.split): shot.camera for shot in mini.shots}
        assert set(used) == set(camera_of) and len(mini.shots) == len(camera_of)
        assert_one_to_one((camera_of[path, part], camera) for path, _, camera, part in rows)
        return
    trained = {mini.persons[path] for path, _, _, part in rows if part == TRAIN} & mini.protocol.persons
    assert len(trained) == mini.protocol.trained
    if split == 0 and mini.protocol.recorded is not None:
        assert trained == mini.protocol.recorded
    if mini.protocol.official:
        assert trained == mini.protocol.official[split]
    draws = mini.protocol.draws(frozenset(trained))
    assert len(rows) == sum(len(path) for path in chosen(draws, rows))


def chosen(draws: Sequence[layouts.Draw], rows: Sequence[Row]) -> list[frozenset[str]]:
    """Returns the drawn groups of images in the rows; asserts the protocol's number of groups per draw."""
    numbers = dict(zip(sorted({draw.camera for draw in draws}), sorted({row[2] for row in rows}), strict=True))
    place = {path: (camera, part) for path, _, camera, part in rows}
    found = []
    for draw in draws:
        wanted = (numbers[draw.camera], draw.split)
        own = [group for group in draw.groups if any(place.get(path) == wanted for path in group)]
        assert all(place.get(path) == wanted for group in own for path in group)
        assert len(own) == draw.take, (draw.person, draw.camera, draw.split)
        found += own
    return found


def splits_of(mini: Miniature) -> list[tuple[int, int]]:
    """Returns (split, seed) of all splits in which a miniature is read."""
    if mini.protocol is None:
        return DRAWS[:1]
    return [(split, seed) for split, seed in DRAWS if not mini.protocol.official or split < len(mini.protocol.official)]


def test_every_layout_has_a_miniature() -> None:
    made = {make().layout for name, make in MINIATURES.items() if not name.endswith("official")}
    apart = {"cuhk03_mat_labeled", "crops"}  # cuhk03_mat with other boxes; custom images, see test_crops.py
    assert made == set(find_layouts()) - apart


@EACH
def test_the_reader_agrees_with_the_miniature(name: str, root: Path) -> None:
    mini = miniature(name)
    for split, seed in splits_of(mini):
        rows = read(name, root, split=split, seed=seed)
        check(mini, rows, split)
        assert {part for *_, part in rows} == mini.splits
        assert rows == sorted(rows, key=lambda row: ((TRAIN, QUERY, GALLERY).index(row[3]), row[0]))


@EACH
def test_only_its_own_layout_recognises_a_miniature(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mini, scandir = miniature(name), os.scandir
    for seed in range(4):
        with monkeypatch.context() as patch:
            shuffle_listings(patch, seed)
            if seed == 0:
                patch.setattr(os, "scandir", lambda folder: FoldersFirst(scandir(folder), 0))
            assert [key for key, one in find_layouts().items() if one.recognise(root)] == [mini.layout]
    found = recognise_layout(root)
    assert found is not None
    assert rows_of(found.read(root, name, options_for(mini))) == read(name, root)


@EACH
def test_the_order_of_creation_and_of_listing_does_not_matter(
    name: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = read(name, root, seed=3)
    assert read(name, layouts.write(miniature(name), tmp_path / "copy", order=1), seed=3) == expected
    shuffle_listings(monkeypatch, 5)
    assert read(name, root, seed=3) == expected


@EACH
def test_training_images_only(name: str, root: Path) -> None:
    mini, rows = miniature(name), read(name, root, train_only=True)
    assert {part for *_, part in rows} == {TRAIN}
    assert_one_to_one((mini.persons[path], person) for path, person, _, _ in rows)
    expected = mini.public or {path for path, *_, part in read(name, root) if part == TRAIN}
    assert sorted(path for path, *_ in rows) == sorted(expected)


@EACH
def test_every_query_has_a_match_in_another_camera(name: str, root: Path) -> None:
    mini = miniature(name)
    for split, seed in splits_of(mini):
        rows = read(name, root, split=split, seed=seed)
        without = set()
        for path, _, camera, part in rows:
            same = [row for row in rows if row[3] == GALLERY and mini.persons[row[0]] == mini.persons[path]]
            if part == QUERY and all(row[2] == camera for row in same):
                without.add(path)
        assert without == mini.unmatched


@pytest.mark.parametrize("name", [name for name in MINIATURES if name not in layouts.MATLAB])  # a CSV table needs files
def test_a_csv_table_of_a_miniature_gives_the_same_dataset(name: str, root: Path, tmp_path: Path) -> None:
    mini = miniature(name)
    table = find_layouts()[mini.layout].read(root, name, options_for(mini, split=0, seed=2))
    for path in table.paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "samples.csv").write_text(to_csv(table), encoding="utf-8")
    again = find_layouts()["csv_table"].read(tmp_path, name, options_for(mini))
    assert rows_of(again) == rows_of(table)


@EACH
def test_layouts_declare_drawn_splits(name: str) -> None:
    mini = miniature(name)
    assert find_layouts()[mini.layout].drawn is (mini.protocol is not None)


@pytest.mark.parametrize("name", [name for name, make in layouts.SMALL.items() if name != "CUHK02"])
def test_splits_differ(name: str, root: Path) -> None:
    halves = set()
    for split, seed in splits_of(miniature(name)):
        rows = read(name, root, split=split, seed=seed)
        halves.add(frozenset(person for _, person, _, part in rows if part == TRAIN))
    assert len(halves) > 1


@EACH
def test_pictures_are_real_and_of_different_sizes(name: str, root: Path) -> None:
    sizes, kinds = set(), set()
    for path, *_ in read(name, root):
        assert decode(str(root / path), 8, 4).shape == (8, 4, 3)
        if inside_mat(path):
            sizes.add(open_rgb(str(root / path)).size)
            continue
        with Image.open(root / path) as image:
            sizes.add(image.size)
            kinds.add((os.path.splitext(path)[1].lower(), image.format))
    assert len(sizes) > 5
    assert {kind for ending, kind in kinds if ending == ".jpg"} <= {"JPEG"}


def test_a_png_file_may_contain_a_jpeg_image(home: Path) -> None:
    root = layouts.write(miniature("CUHK01"), home / "disguised")
    formats = {Image.open(root / path).format for path, *_ in read("CUHK01", root)}
    assert formats == {"PNG", "JPEG"}


@pytest.mark.parametrize("folder", ["", "cuhk03-np", "processed", "formatted", "own"])
def test_auto_recognises_every_folder(folder: str, home: Path) -> None:
    """Reads a root of all miniatures with `data.layout=auto` and compares every client and test set."""
    placed = {name.rpartition("/")[2]: name for name in MINIATURES if name.rpartition("/")[0] == folder}
    minis = {last: miniature(name) for last, name in placed.items() if not name.endswith("official")}
    minis = {last: mini for last, mini in minis.items() if mini.splits != {TRAIN}}
    root = home / "roots" / (folder or "original")
    for last, mini in minis.items():
        layouts.write(mini, root / last)
    (root / "notes").mkdir(parents=True)
    data = load_federated_data(DataConfig(name="folder", root=str(root), layout="auto"))
    found = {data.clients[client].train.root.name: client for client in data.clients}
    assert list(data.clients) == list(data.tests) and list(found) == sorted(minis)
    for last, mini in minis.items():
        test = data.tests[found[last]]
        check(mini, rows_of(data.clients[found[last]].train) + rows_of(test.query) + rows_of(test.gallery), 0)


def scores_by_loop(mini: Miniature, rows: Sequence[Row], feature: Callable[[Row], np.ndarray]) -> tuple[float, float]:
    """Computes Rank-1 and mAP query by query from the miniature's persons."""
    gallery = [row for row in rows if row[3] == GALLERY and mini.persons[row[0]] != layouts.JUNK]
    hits, precisions = [], []
    for query in (row for row in rows if row[3] == QUERY):
        person = mini.persons[query[0]]
        kept = [row for row in gallery if (mini.persons[row[0]], row[2]) != (person, query[2])]
        kept.sort(key=lambda row: -float(feature(query) @ feature(row)))
        right = [mini.persons[row[0]] == person for row in kept]
        if any(right):
            hits.append(right[0])
            places = [place for place, is_right in enumerate(right, start=1) if is_right]
            precisions.append(sum(count / place for count, place in enumerate(places, start=1)) / len(places))
    return sum(hits) / len(hits), sum(precisions) / len(precisions)


@pytest.mark.parametrize("name", ["Market-1501-v15.09.15", "underground_reid", "MSMT17_V2", "own/table"])
def test_the_metric_of_a_miniature_equals_a_loop_over_its_queries(name: str, root: Path) -> None:
    mini, table = miniature(name), find_layouts()[miniature(name).layout].read(root, name, ReadOptions())
    rows = rows_of(table)
    chance = np.random.default_rng(4)
    vectors = {(row[0], row[3]): chance.standard_normal(6) for row in rows}
    for key, vector in vectors.items():  # similar for images of one person, so that scores are above chance
        person = zlib.crc32(repr(mini.persons[key[0]]).encode())  # not `hash`, which differs between runs
        vector += 0.4 * np.random.default_rng(person).standard_normal(6)
        vector /= np.linalg.norm(vector)
    metric = ReIDRetrieval()
    for part in (QUERY, GALLERY):
        side = table.split(part)
        features = torch.tensor(np.stack([vectors[path, part] for path in side.paths]))
        columns = (torch.from_numpy(column) for column in (side.identities, side.cameras))
        metric.update(features, *columns, torch.arange(len(side)), query=part == QUERY)
    result = metric.compute()
    rank1, mean_precision = scores_by_loop(mini, rows, lambda row: vectors[row[0], row[3]])
    assert (result["rank1"], result["mAP"]) == pytest.approx((rank1, mean_precision), abs=1e-6)
    assert 0 < mean_precision < 1
