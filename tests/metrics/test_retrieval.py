"""The metric gives the bits of the plain function, for any split of the samples into batches and processes."""

from __future__ import annotations

import json
import os
import pickle
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch.nn.functional import normalize

from fedreid_pl.data.samples import DISTRACTOR, JUNK
from fedreid_pl.functional.randomness import generator
from fedreid_pl.functional.ranking import retrieval_results, summarize
from fedreid_pl.functional.single_shot import single_shot_cmc
from fedreid_pl.metrics.retrieval import ReIDRetrieval

QUERIES, GALLERY = 23, 101


def table(size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    identities = torch.randint(0, 9, (size,), generator=draws)
    if size == GALLERY:
        identities[::10], identities[::17] = DISTRACTOR, JUNK
    features = torch.randn(size, 8, generator=draws)
    features[:, 0] += identities
    return normalize(features), identities, torch.randint(0, 3, (size,), generator=draws)


def sides() -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    query, gallery = table(QUERIES, 0), table(GALLERY, 1)
    gallery[0][50:60] = gallery[0][:10]  # ties, broken by the order of the indices
    gallery[1][50:60] = 3
    return query, gallery


def feed(metric: ReIDRetrieval, role: str, rows: torch.Tensor | list[int], batch: int = 1000) -> None:
    features, identities, cameras = sides()[role == "gallery"]
    for part in torch.as_tensor(rows, dtype=torch.int64).split(batch):
        metric.update(features[part], identities[part], cameras[part], part, query=role == "query")


def expected(**options) -> dict[str, float]:
    query, gallery = sides()
    return summarize(retrieval_results(*query, *gallery), **options)


def filled(**options) -> ReIDRetrieval:
    metric = ReIDRetrieval(**options)
    feed(metric, "query", torch.arange(QUERIES))
    feed(metric, "gallery", torch.arange(GALLERY))
    return metric


def test_equals_the_function():
    result = filled().compute()
    assert result == expected()
    assert 0 < result["mAP_trapezoid"] < result["mAP"] < 1 and 0 < result["queries"] <= QUERIES
    assert filled(ranks=(2,), chunk=5).compute() == expected(ranks=(2,))


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_order_split_and_repeats_do_not_matter(batch):
    draws = torch.Generator().manual_seed(batch)
    metric = ReIDRetrieval()
    queries, gallery = (torch.randperm(size, generator=draws) for size in (QUERIES, GALLERY))
    feed(metric, "gallery", gallery[:60], batch)
    feed(metric, "query", torch.cat([queries, queries[:3], queries[:1]]), batch)
    feed(metric, "gallery", torch.cat([gallery[60:], gallery[:50]]), batch)
    assert metric.compute() == expected()


def test_keep_unmatched():
    metric = filled(keep_unmatched=True)
    features = torch.ones(2, 8)
    metric.update(features, torch.tensor([77, 78]), torch.zeros(2).long(), torch.tensor([50, 51]), query=True)
    result, base = metric.compute(), expected(keep_unmatched=True)
    assert result["mAP"] == pytest.approx(base["mAP"] * QUERIES / (QUERIES + 2))
    assert result["queries"] == base["queries"]


def test_single_shot_scores_use_the_same_queries():
    query, gallery = sides()
    hits = single_shot_cmc(*query, *gallery, generator(4, "single_shot"), 5, (1, 3))
    result = filled(ranks=(1, 3), single_shot=5, seed=4, chunk=3).compute()
    plain = filled(ranks=(1, 3)).compute()
    assert {name: value for name, value in result.items() if not name.startswith("single_shot")} == plain
    single = {name: result[name] for name in result.keys() - plain.keys()}
    wanted = (hits.sum(0) / plain["queries"]).tolist()
    assert single == pytest.approx(dict(zip(("single_shot_rank1", "single_shot_rank3"), wanted, strict=True)))
    assert filled(ranks=(1, 3), single_shot=5, seed=3).compute() != result
    metric = filled(single_shot=5, keep_unmatched=True)
    metric.update(torch.ones(7, 8), torch.full((7,), 77), torch.arange(7), torch.arange(50, 57), query=True)
    base = filled(single_shot=5, keep_unmatched=True).compute()["single_shot_rank1"]
    assert metric.compute()["single_shot_rank1"] == pytest.approx(base * QUERIES / (QUERIES + 7))


def test_features_are_stored_in_float32_without_a_graph():
    metric = ReIDRetrieval()
    features = torch.ones(2, 4, dtype=torch.bfloat16, requires_grad=True)
    ids = torch.tensor([0, 1])
    metric.update(features, ids, ids, ids, query=True)
    assert metric.features[0].dtype == torch.float32 and not metric.features[0].requires_grad


def test_compute_again_after_more_samples():
    metric = ReIDRetrieval()
    feed(metric, "query", torch.arange(QUERIES))
    feed(metric, "gallery", torch.arange(80))
    before = metric.compute()
    feed(metric, "gallery", torch.arange(80, GALLERY))
    assert metric.compute() == expected() != before


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_pickle_clone_and_reset():
    metric = filled()
    copies = [pickle.loads(pickle.dumps(metric)), metric.clone()]
    metric.reset()
    for copy in copies:
        assert copy.compute() == expected()
    with pytest.raises(ValueError, match="the query is empty"):
        metric.compute()
    feed(metric, "query", torch.arange(QUERIES))
    with pytest.raises(ValueError, match="the gallery is empty"):
        metric.compute()
    feed(metric, "gallery", torch.arange(GALLERY))
    assert metric.compute() == expected()


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_an_empty_metric_is_refused():
    with pytest.raises(ValueError, match="the query is empty"):
        ReIDRetrieval().compute()


def test_an_index_used_for_two_samples_is_refused():
    metric = filled()
    metric.update(torch.ones(1, 8), torch.tensor([999]), torch.tensor([0]), torch.tensor([4]), query=False)
    with pytest.raises(ValueError, match="two different gallery samples have the same index"):
        metric.compute()


def test_nan_features_and_mixed_sizes_are_refused():
    metric, one = filled(), torch.tensor([0])
    metric.update(torch.full((1, 8), torch.nan), one, one, torch.tensor([QUERIES]), query=True)
    with pytest.raises(ValueError, match="query features contain NaN"):
        metric.compute()
    metric = filled()
    metric.update(torch.ones(1, 4), one, one, torch.tensor([QUERIES]), query=True)
    with pytest.raises(ValueError, match="must have one size"):
        metric.compute()


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, torch.ones(3), "features must be"),
        (0, torch.ones(3, 2).long(), "features must be"),
        (1, torch.ones(2).long(), "identities must be"),
        (2, torch.ones(3), "cameras must be"),
        (3, torch.ones(3, 1).long(), "indices must be"),
    ],
)
def test_invalid_batches_are_refused(position, value, message):
    batch = [torch.ones(3, 2), *(torch.arange(3) for _ in range(3))]
    batch[position] = value
    with pytest.raises(ValueError, match=message):
        ReIDRetrieval().update(*batch, query=True)


def test_invalid_options_are_refused():
    for options in ({"ranks": (0, 1)}, {"chunk": 0}, {"single_shot": -1}):
        with pytest.raises(ValueError, match="must be at least"):
            ReIDRetrieval(**options)


def repeated(size: int, rank: int) -> list[int]:
    """Returns every second sample like a distributed sampler, which repeats the first ones to pad an odd number."""
    rows = list(range(size))
    return (rows + rows[: size % 2])[rank::2]


def both(rank: int) -> ReIDRetrieval:
    metric = ReIDRetrieval()
    feed(metric, "query", repeated(QUERIES, rank), 5)
    feed(metric, "gallery", repeated(GALLERY, rank), 16)
    return metric


def no_query_on_one(rank: int) -> ReIDRetrieval:
    metric = ReIDRetrieval()
    if rank == 0:
        feed(metric, "query", torch.arange(QUERIES))
    feed(metric, "gallery", repeated(GALLERY, rank), 16)
    return metric


def one_side_each(rank: int) -> ReIDRetrieval:
    metric = ReIDRetrieval()
    role, size = [("gallery", GALLERY), ("query", QUERIES)][rank]
    feed(metric, role, torch.arange(size), 11)
    return metric


def all_on_first(rank: int) -> ReIDRetrieval:
    return filled() if rank == 0 else ReIDRetrieval()


def all_on_second(rank: int) -> ReIDRetrieval:
    return filled() if rank == 1 else ReIDRetrieval()


SPLITS = [both, no_query_on_one, one_side_each, all_on_first, all_on_second]


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=120),  # a waiting process fails instead of hanging
    )
    results = {split.__name__: split(rank).compute() for split in SPLITS}
    single = ReIDRetrieval(single_shot=3)
    for role, size in (("query", QUERIES), ("gallery", GALLERY)):
        feed(single, role, repeated(size, rank), 5)
    results["single_shot"] = single.compute()
    # A process with an empty state at one synchronisation receives samples before the next one.
    late = ReIDRetrieval()
    if rank == 0:
        feed(late, "query", torch.arange(QUERIES))
        feed(late, "gallery", torch.arange(80))
    results["early"] = late.compute()
    if rank == 1:
        feed(late, "gallery", torch.arange(80, GALLERY), 4)
    results["late"] = late.compute()
    Path(folder, f"{rank}.json").write_text(json.dumps(results), encoding="utf-8")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> list[dict[str, dict[str, float]]]:
    folder = tmp_path_factory.mktemp("gloo")
    mp.spawn(worker, args=(os.fspath(folder),), nprocs=2)
    return [json.loads((folder / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]


@pytest.mark.system
@pytest.mark.parametrize("name", [*(split.__name__ for split in SPLITS), "late"])
def test_two_processes_give_the_bits_of_one(two_processes, name):
    assert [results[name] for results in two_processes] == [expected()] * 2


def test_two_processes_draw_the_galleries_of_one(two_processes):
    wanted = filled(single_shot=3).compute()
    assert [results["single_shot"] for results in two_processes] == [wanted] * 2


def test_synchronising_does_not_change_the_state_of_a_process(two_processes):
    early = [results["early"] for results in two_processes]
    assert early[0] == early[1] != expected()


def test_an_inspector_receives_both_lists_in_the_order_of_their_indices() -> None:
    seen = []
    metric = ReIDRetrieval(inspect=seen.append)
    shuffled = torch.randperm(GALLERY, generator=torch.Generator().manual_seed(3))
    feed(metric, "gallery", torch.cat([shuffled, shuffled[:5]]), batch=7)  # with repeats, as under DDP
    feed(metric, "query", torch.arange(QUERIES).flip(0))
    assert metric.compute() == expected()
    (sets,) = seen
    for found, wanted in zip(sets[:6], (*sides()[0], *sides()[1]), strict=True):
        assert torch.equal(found, wanted)
    assert all(torch.equal(a, b) for a, b in zip(sets.results, retrieval_results(*sets[:6]), strict=True))
