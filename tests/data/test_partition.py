"""Clients by camera and by identity: every image once, groups of nearly equal size; held-out first images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fedreid_pl.data.partition import by_camera, by_identity, without_first_images
from fedreid_pl.data.samples import TRAIN, SampleTable


def make_table(persons: int = 11, cameras: int = 4, images: int = 90) -> SampleTable:
    draws = np.random.RandomState(3)
    identities = np.concatenate([np.arange(persons), draws.randint(0, persons, images - persons)]) * 7
    where = np.concatenate([np.arange(cameras), draws.randint(0, cameras, images - cameras)]) + 1
    paths = tuple(f"{number:03d}.jpg" for number in range(images))
    return SampleTable("set", Path("/data"), paths, identities, where, np.full(images, TRAIN, dtype=np.uint8))


def test_by_camera_every_client_has_one_camera_and_all_of_its_images() -> None:
    table = make_table()
    clients = dict(by_camera(table))
    assert list(clients) == ["set-cam1", "set-cam2", "set-cam3", "set-cam4"]
    for name, part in clients.items():
        camera = int(name[-1])
        expected = [path for path, seen in zip(table.paths, table.cameras.tolist(), strict=True) if seen == camera]
        assert list(part.paths) == expected


@pytest.mark.parametrize("parts", [None, 2, 3, 11])
def test_by_identity_groups_are_disjoint_complete_and_of_equal_size(parts: int | None) -> None:
    table = make_table()
    groups = [part for _, part in by_identity(table, parts)]
    assert len(groups) == (parts or 4)
    assert sorted(path for part in groups for path in part.paths) == sorted(table.paths)
    persons = [set(part.identities.tolist()) for part in groups]
    assert sum(map(len, persons)) == len(set.union(*persons)) == 11
    assert max(map(len, persons)) - min(map(len, persons)) <= 1


def test_by_identity_depends_only_on_the_seed() -> None:
    table = make_table()
    drawn = [[part.paths for _, part in by_identity(table, 3, seed)] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_more_parts_than_identities_are_refused() -> None:
    with pytest.raises(ValueError, match="11 identities cannot be split over 12"):
        list(by_identity(make_table(), 12))


def test_the_first_image_of_every_identity_is_held_out_unless_it_is_the_only_one() -> None:
    table = make_table()
    alone = table.take([0, 1, 2, *range(11, 20)])
    left = without_first_images(alone)
    count, kept = Counter(alone.identities.tolist()), Counter(left.identities.tolist())
    assert kept == {person: max(number - 1, 1) for person, number in count.items()}
    seen: set[int] = set()
    expected = []
    for path, person in zip(alone.paths, alone.identities.tolist(), strict=True):
        if person in seen or count[person] == 1:
            expected.append(path)
        seen.add(person)
    assert list(left.paths) == expected
