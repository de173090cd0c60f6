"""Property tests: any input gives a correct result or one error line."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import support
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedreid_pl.data.layouts import ReadOptions, find_layouts, recognise_layout
from fedreid_pl.data.samples import DISTRACTOR, JUNK, SPLITS
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.messages import ClientUpdate, RejectedUpdate
from fedreid_pl.federation.server.checks import check_update
from fedreid_pl.functional.aggregation import normalize_weights, weighted_average
from fedreid_pl.metrics.retrieval import ReIDRetrieval

FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)
COUNTS = st.integers(-5, 10**18)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.lists(FLOATS, min_size=3, max_size=3), COUNTS), min_size=1, max_size=5))
def test_accepted_updates_give_their_weighted_mean(clients: list[tuple[list[float], int]]) -> None:
    """The accepted updates give their weighted mean in float64, which lies between their extremes."""
    job = support.fit_job(1, "c", {"w": torch.zeros(3)})
    accepted: list[tuple[str, dict[str, torch.Tensor], int]] = []
    for number, (values, count) in enumerate(clients):
        update = ClientUpdate(1, "c", {"w": torch.tensor(values)}, count, {})
        try:
            check_update(update, job, declared=10**9)
        except RejectedUpdate:
            assert not all(map(math.isfinite, values)) or not 1 <= count <= 10**9, "only invalid updates are refused"
            continue
        assert all(map(math.isfinite, values)) and 1 <= count <= 10**9
        accepted.append((str(number), update.backbone, count))
    if not accepted:
        return
    weights = normalize_weights({name: count for name, _, count in accepted})
    assert weights is not None
    average = weighted_average(((name, state) for name, state, _ in accepted), weights)["w"].double().numpy()
    rows = np.array([state["w"].double().numpy() for _, state, _ in accepted])  # [clients, 3]
    shares = np.array([count for _, _, count in accepted], dtype=np.float64)
    scale = np.abs(rows).max() + 1e-30
    np.testing.assert_allclose(average / scale, shares @ rows / shares.sum() / scale, atol=1e-5)
    assert (average <= rows.max(0) + 1e-5 * scale).all() and (average >= rows.min(0) - 1e-5 * scale).all()


KNOWN = """bounding_box_train bounding_box_test query gallery train_all train test cam_a cam_b campus probe multi_shot
single_shot images archive MSMT17_V1 P1 cam1 0001 c 0 0001_c1s1_000001_00.jpg 0002_c2.png -1_c1s1_000401_03.jpg
0001_000.bmp person_0001.png samples.csv list_train.txt list_query.txt splits.json meta.json cuhk-03.mat a.txt"""
ANY_NAME = st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=("Cs",))
NAMES = st.one_of(st.sampled_from(KNOWN.split()), st.text(ANY_NAME, min_size=1, max_size=12))
CONTENTS = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=40).map(str.encode),
    st.sampled_from(
        [b"path,identity,camera,split\na.jpg,1,1,train\n", b"[]", b"{}", b"0001/x.jpg 0\n", b"[{}]", b"null"]
    ),
)
TREES = st.recursive(CONTENTS, lambda inner: st.dictionaries(NAMES, inner, max_size=5), max_leaves=12)


def plant(tree: object, place: Path) -> None:
    """Creates the tree's folders and files; skips names that the file system refuses."""
    if isinstance(tree, bytes):
        place.write_bytes(tree)
        return
    place.mkdir()
    for name, inner in tree.items():  # type: ignore[attr-defined]
        if name not in (".", "..") and len(name.encode()) < 200 and not (place / name).exists():
            plant(inner, place / name)


@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(NAMES, TREES, max_size=5), st.booleans())
def test_any_folder_is_a_dataset_or_gives_one_error_line(
    tmp_path_factory: pytest.TempPathFactory, tree: dict, train_only: bool
) -> None:
    root = tmp_path_factory.mktemp("tree") / "dataset"
    plant(tree, root)
    recognise_layout(root)
    for key, layout in find_layouts().items():
        try:
            table = layout.read(root, "dataset", ReadOptions(train_only=train_only))
        except FedReIDError as error:
            assert str(error).strip() and len(str(error).splitlines()) == 1
            continue
        assert len(table.paths) == len(table.identities) == len(table.cameras) == len(table.splits) > 0, key
        assert table.identities.min() >= min(JUNK, DISTRACTOR) and set(table.splits) <= set(SPLITS.values())
        assert all(Path(file).is_file() or ".mat" in file for file in table.files()), "every row has an image"
    shutil.rmtree(root)


@settings(deadline=None, max_examples=80)
@given(
    st.integers(1, 6),
    st.integers(1, 12),
    st.integers(0, 2**31),
    st.sampled_from([0.0, math.nan, math.inf, -math.inf]),
)
def test_the_metric_is_in_its_range_or_raises_an_error(queries: int, gallery: int, seed: int, odd: float) -> None:
    draws = torch.Generator().manual_seed(seed)

    def part(count: int, least: int) -> tuple[torch.Tensor, ...]:
        features = torch.nn.functional.normalize(torch.randn(count, 8, generator=draws), dim=1)
        identities = torch.randint(least, 4, (count,), generator=draws)
        return features, identities, torch.randint(0, 3, (count,), generator=draws), torch.arange(count)

    metric = ReIDRetrieval()
    features, *rest = part(queries, 0)
    if odd:
        features[0, 0] = odd
    try:
        metric.update(features, *rest, query=True)
        metric.update(*part(gallery, -2), query=False)
        scores = {name: float(value) for name, value in metric.compute().items()}
    except ValueError as error:
        assert odd or "no query has a match" in str(error), "the only other error is a query without a match"
        return
    assert not odd, "features with NaN or infinity cannot be ranked"
    assert 1 <= scores.pop("queries") <= queries
    assert all(0 <= value <= 1 for value in scores.values())
    assert scores["rank1"] <= scores["rank5"] <= scores["rank10"]
