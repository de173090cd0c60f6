"""Validation persons: every person is on exactly one side, and every query has a match."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import TINY

from fedreid_pl.config import DataConfig
from fedreid_pl.data.samples import TRAIN, SampleTable
from fedreid_pl.data.scenarios import load_federated_data
from fedreid_pl.data.validation import hold_out_identities
from fedreid_pl.errors import FedReIDError


def make_table(*sights: tuple[int, int]) -> SampleTable:
    """Returns a table with one image per (person, camera)."""
    columns = np.array(sights, dtype=np.int64).reshape(-1, 2)
    paths = tuple(f"{number:03d}.jpg" for number in range(len(sights)))
    return SampleTable(
        "set", Path("/data"), paths, columns[:, 0], columns[:, 1], np.full(len(sights), TRAIN, dtype=np.uint8)
    )


def many(persons: int = 20) -> SampleTable:
    """Returns persons 0, 10, 20, ... of one to three cameras, with one to three images each, in random order."""
    sights = [
        (10 * person, camera)
        for person in range(persons)
        for camera in range(1 + person % 3)
        for _ in range(1 + (person + camera) % 3)
    ]
    return make_table(*(sights[place] for place in np.random.RandomState(1).permutation(len(sights))))


@pytest.mark.parametrize(("share", "wanted"), [(0.01, 2), (0.1, 2), (0.26, 5), (0.5, 10)])
@pytest.mark.parametrize("seed", range(4))
def test_every_image_is_in_training_or_in_the_gallery(share: float, wanted: int, seed: int) -> None:
    table = many()
    rest, test = hold_out_identities("client", table, share, seed)
    if test is None:  # no drawn person is in two cameras
        assert rest is table and wanted == 2
        return
    assert test.name == "val:client"
    assert sorted(rest.paths + test.gallery.paths) == sorted(table.paths)
    trained, held_out = set(rest.identities.tolist()), set(test.gallery.identities.tolist())
    assert not trained & held_out and len(held_out) == wanted and len(trained | held_out) == 20
    assert list(rest.paths) == sorted(rest.paths) and list(test.gallery.paths) == sorted(test.gallery.paths)
    seen = {}
    for person, camera in zip(test.gallery.identities.tolist(), test.gallery.cameras.tolist(), strict=True):
        seen.setdefault(person, set()).add(camera)
    queries = list(zip(test.query.identities.tolist(), test.query.cameras.tolist(), strict=True))
    assert sorted(queries) == sorted((p, c) for p, cameras in seen.items() if len(cameras) > 1 for c in cameras)
    lookup = {path: (i, c) for path, i, c in zip(table.paths, table.identities, table.cameras, strict=True)}
    assert [lookup[path] for path in test.query.paths] == queries and set(test.query.paths) <= set(test.gallery.paths)


def test_the_draw_depends_only_on_seed_and_name() -> None:
    def drawn(name: str, seed: int) -> tuple[str, ...]:
        _, test = hold_out_identities(name, many(), 0.5, seed)
        assert test is not None
        return test.query.paths + test.gallery.paths

    assert drawn("a", 0) == drawn("a", 0)
    assert len({drawn("a", 0), drawn("b", 0), drawn("a", 1)}) == 3
    chosen = {
        path
        for seed in range(40)
        for path in hold_out_identities("a", make_table(*[(p, c) for p in range(4) for c in (0, 1, 1)]), 0.5, seed)[
            1
        ].query.paths  # type: ignore[union-attr]
    }
    assert len(chosen) == 12, "every image can become a query"


@pytest.mark.parametrize(
    "sights",
    [
        [(person, camera) for person in range(3) for camera in range(2)],  # two training persons, two test persons
        [(person, 0) for person in range(9)],
        [(person, person) for person in range(9)],  # several cameras, but one per person
    ],
)
def test_without_a_validation_set_all_images_are_for_training(sights: list[tuple[int, int]]) -> None:
    table = make_table(*sights)
    assert hold_out_identities("client", table, 0.5, 0) == (table, None)


# in a federation


def load(root: Path, **options):
    return load_federated_data(DataConfig(**{"name": "tiny", "root": str(root), "datasets": list(TINY), **options}))


def files(data) -> dict[str, tuple[str, ...]]:
    """Returns all files of the validation sets by name."""
    return {name: (*test.query.files(), *test.gallery.files()) for name, test in data.tests.items() if "val:" in name}


def test_clients_have_separate_sets_unless_they_are_too_small(tiny_root: Path) -> None:
    whole, data = load(tiny_root), load(tiny_root, val_ids=0.25)
    *validated, small = TINY
    assert list(data.tests) == [*TINY, *(f"val:{name}" for name in validated)] and data.unvalidated == (small,)
    for name in validated:
        client, before = data.clients[name], whole.clients[name].train
        assert client.tests == (name, f"val:{name}")
        held_out = data.tests[f"val:{name}"].gallery
        assert held_out.num_identities() == max(2, round(0.25 * before.num_identities()))
        assert sorted(client.train.paths + held_out.paths) == sorted(before.paths)
        assert data.tests[name].query.paths == whole.tests[name].query.paths
    assert data.clients[small].train.paths == whole.clients[small].train.paths
    assert data.clients[small].tests == (small,)
    assert data.digests == whole.digests, "the digests of the read data are equal"


def test_some_clients_of_a_federation_may_have_no_validation_persons(tiny_root: Path) -> None:
    config = DataConfig(name="tiny", root=str(tiny_root), datasets=[TINY[2]], val_ids=0.25)
    with pytest.raises(FedReIDError, match="no client has enough training persons"):
        load_federated_data(config)
    data = load_federated_data(config, complete=False)
    assert data.unvalidated == (TINY[2],) and list(data.tests) == [TINY[2]]


def test_centralized_training_has_the_clients_validation_persons(tiny_root: Path) -> None:
    apart, data = load(tiny_root, val_ids=0.25), load(tiny_root, val_ids=0.25, scenario="merged")
    assert files(data) == files(apart) and len(files(data)) == 2 and data.unvalidated == TINY[2:]
    (client,) = data.clients.values()
    assert client.tests == (*TINY, *(f"val:{name}" for name in TINY[:2]))
    assert client.train.files() == [file for other in apart.clients.values() for file in other.train.files()]


def test_clients_by_identity_have_separate_sets(tiny_root: Path) -> None:
    options = {"scenario": "by_identity", "parts": 2, "datasets": [TINY[0]]}
    data, whole = load(tiny_root, val_ids=0.3, **options), load(tiny_root, **options)
    for name, client in data.clients.items():
        assert client.tests == (TINY[0], f"val:{name}")
        held_out = data.tests[f"val:{name}"].gallery
        assert sorted(client.train.paths + held_out.paths) == sorted(whole.clients[name].train.paths)
    assert len(data.clients) == 2 and len(data.tests) == 3


def test_validation_is_refused_for_clients_by_camera(tiny_root: Path) -> None:
    with pytest.raises(FedReIDError, match=r"data.val_ids=0.2: no client .* data.val_ids=0 "):
        load(tiny_root, val_ids=0.2, scenario="by_camera")
