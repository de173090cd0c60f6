"""Client clustering: shared models, their names, models of absent clients, and a resumed run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import support
import torch
from torch import Tensor

from fedreid_pl.callbacks import callback_factory
from fedreid_pl.callbacks.backbone_sync import BackboneSync
from fedreid_pl.callbacks.clustering import Clustering
from fedreid_pl.config import compose
from fedreid_pl.data.augmentation import MEAN, STD
from fedreid_pl.errors import FedReIDError
from fedreid_pl.experiment import train
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.messages import ClientJob, ClientUpdate, State
from fedreid_pl.federation.server.checkpoint import Checkpoints
from fedreid_pl.federation.server.context import RoundContext
from fedreid_pl.federation.server.loop import FederationLoop
from fedreid_pl.federation.server.network import ServerNetwork
from fedreid_pl.federation.server.selection import select_clients
from fedreid_pl.functional.aggregation import normalize_weights
from fedreid_pl.functional.randomness import generator
from fedreid_pl.models.ide import IDEBackbone
from fedreid_pl.models.trunks import SmallResNet

CLIENTS = ("a", "b", "c", "d", "e")


class Public:
    """Drawn images of different brightness that record every read."""

    def __init__(self, count: int = 20) -> None:
        self.images = torch.randint(0, 256, (count, 3, 32, 16), generator=generator("public"), dtype=torch.uint8)
        self.reads: list[list[int]] = []

    def __len__(self) -> int:
        return len(self.images)

    def read(self, rows: Sequence[int]) -> Tensor:
        self.reads.append(list(rows))
        return self.images[list(rows)]


def make_net(seed: int) -> IDEBackbone:
    torch.manual_seed(seed)
    return IDEBackbone(SmallResNet(width=4), feature_dim=8).eval()


def make_backbone(seed: int, step: int) -> State:
    """Returns a network drawn with `seed`, with a small change drawn with `step`."""
    draws = generator("step", step)
    return {
        name: value + 1e-3 * torch.randn(value.shape, generator=draws) if value.is_floating_point() else value
        for name, value in make_net(seed).state_dict().items()
    }


class Federation:
    """The attributes of a loop that the callback uses, with a real network at the server."""

    def __init__(self, public: Public | None = None, clients: Sequence[str] = CLIENTS, seed: int = 0) -> None:
        self.seed, self.round, self.clients = seed, 1, dict.fromkeys(clients, 10)
        self.public: Any = public or Public()
        self.forwards: list[tuple[int, ...]] = []
        self.server = ServerNetwork(self.make, self.public)
        self.initial_backbone: State = make_net(0).state_dict()
        self.buffer_names = frozenset(name for name, _ in make_net(0).named_buffers())
        self.models: dict[str, State] = {"global": self.initial_backbone}
        self.assignment: dict[str, str] = {}
        self.records: list[tuple[str, str, str, float]] = []

    def make(self) -> IDEBackbone:
        net = make_net(0)
        net.register_forward_hook(lambda module, images, output: self.forwards.append(tuple(images[0].shape)))
        return net

    def model_of(self, client: str) -> str:
        return self.assignment.get(client, "global")

    def record(self, *row: Any) -> None:
        self.records.append(row)

    def do_round(self, callbacks: Sequence[FederationCallback], updates: Sequence[ClientUpdate]) -> None:
        """Calls the hooks in the loop's order, with equal weights."""
        for callback in callbacks:
            if isinstance(callback, Clustering):
                callback.on_aggregation_start(self, updates, {})  # type: ignore[arg-type]
        weights: dict[str, float] = {}
        for model in {self.model_of(update.client) for update in updates}:
            group = {update.client: 1.0 for update in updates if self.model_of(update.client) == model}
            weights |= normalize_weights(group) or {}
        models: dict[str, State] = {}
        for callback in callbacks:
            models = callback.aggregate(self, updates, weights, models)  # type: ignore[arg-type]
        self.models = models
        self.round += 1


def updates_of(round: int = 1, **seeds: int) -> list[ClientUpdate]:
    """Returns updates of clients; clients with the same seed have nearly the same network."""
    return [
        ClientUpdate(round, client, make_backbone(seed, 10 * round + number), 10, {})
        for number, (client, seed) in enumerate(seeds.items())
    ]


def equal(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_clients_with_similar_models_share_one_named_after_its_first_client() -> None:
    federation = Federation()
    updates = updates_of(c=2, a=1, e=2, d=1, b=2)  # not in the order of the federation
    federation.do_round([Clustering(), BackboneSync()], updates)
    assert federation.assignment == {
        "a": "cluster-a",
        "b": "cluster-b",
        "c": "cluster-b",
        "d": "cluster-a",
        "e": "cluster-b",
    }
    assert federation.records == [
        ("weights", client, "cluster", index) for client, index in zip("caedb", (0, 1, 0, 1, 0), strict=True)
    ]
    assert set(federation.models) == {"cluster-a", "cluster-b"}
    backbones = {update.client: update.backbone for update in updates}
    for model, members in (("cluster-a", "ad"), ("cluster-b", "bce")):
        for name, value in federation.models[model].items():
            if value.is_floating_point():
                mean = sum(backbones[client][name].double() for client in members) / len(members)
                torch.testing.assert_close(value.double(), mean, rtol=1e-5, atol=1e-6)


def test_features_are_means_over_the_batch_in_eval_mode() -> None:
    federation, backbones = Federation(), [make_backbone(seed, seed) for seed in range(12)]
    federation.clients = {f"client{number}": 1 for number in range(12)}
    updates = [
        ClientUpdate(1, client, backbone, 1, {}) for client, backbone in zip(federation.clients, backbones, strict=True)
    ]
    Clustering(images=6).on_aggregation_start(federation, updates, {})  # type: ignore[arg-type]
    (rows,) = federation.public.reads
    features = []
    for backbone in backbones:
        net = make_net(0).double()
        net.load_state_dict(backbone)
        total = np.zeros(8)
        for row in rows:  # one image at a time, normalised by hand
            image = federation.public.images[row].double() / 255
            image = (image - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
            total += net(image[None])[0].detach().numpy()
        features.append(total / np.linalg.norm(total))
    cosine = np.array(features) @ np.array(features).T - 3 * np.eye(12)
    first = cosine.argmax(1)
    clients = list(federation.clients)
    for number, neighbor in enumerate(first):
        assert federation.assignment[clients[number]] == federation.assignment[clients[neighbor]]
    # as many components as there are pairs of mutual first neighbours
    assert len(set(federation.assignment.values())) == sum(first[first] == np.arange(12)) // 2 > 1


def test_a_round_needs_one_forward_pass_of_one_fixed_batch_per_client() -> None:
    federation, callback = Federation(), Clustering(images=7)
    for round, updates in enumerate((updates_of(1, a=1, b=1, c=2, d=2), updates_of(2, a=1, c=1, e=2)), 1):
        federation.do_round([callback, BackboneSync()], updates)
        assert federation.forwards == [(7, 3, 32, 16)] * len(updates)
        assert round == federation.round - 1
        federation.forwards.clear()
    (rows,) = federation.public.reads
    assert len(set(rows)) == 7 and set(rows) <= set(range(20)), "every image is read once"
    other = Federation(seed=1)
    Clustering(images=7).on_aggregation_start(other, updates_of(a=1, b=1), {})  # type: ignore[arg-type]
    assert other.public.reads[0] != rows, "another run draws another batch"


def test_a_small_public_set_is_used_completely() -> None:
    federation = Federation(Public(5))
    Clustering().on_aggregation_start(federation, updates_of(a=1), {})  # type: ignore[arg-type]
    assert sorted(federation.public.reads[0]) == [0, 1, 2, 3, 4]
    assert set(federation.assignment.values()) == {"cluster-a", "cluster-b"}, (
        "the other clients still have the first model"
    )


@pytest.mark.parametrize("sync_first", [True, False])
def test_absent_clients_keep_their_model_under_a_new_name(sync_first: bool) -> None:
    federation = Federation()
    chain: list[FederationCallback] = [Clustering(), BackboneSync()]
    if sync_first:
        chain.reverse()
    federation.do_round(chain, updates_of(1, a=1, b=2, c=1, d=2))
    assert federation.assignment == dict(zip("abcde", [f"cluster-{name}" for name in "ababe"], strict=True))
    assert equal(federation.models["cluster-e"], federation.initial_backbone)
    first = federation.models
    federation.do_round(chain, updates_of(2, a=1, d=1))
    # "cluster-a" is new; the old models of b and c are named after them: b's keeps its name, c's changes
    assert federation.assignment == dict(zip("abcde", [f"cluster-{name}" for name in "abcae"], strict=True))
    assert set(federation.models) == {f"cluster-{name}" for name in "abce"}
    assert equal(federation.models["cluster-b"], first["cluster-b"])
    assert equal(federation.models["cluster-c"], first["cluster-a"])
    assert equal(federation.models["cluster-e"], first["cluster-e"])
    assert not equal(federation.models["cluster-a"], first["cluster-a"])
    federation.do_round(chain, updates_of(3, b=1, c=1, d=1, e=1))
    assert set(federation.models) == {"cluster-a", "cluster-b"}, "models without clients are deleted"


def test_a_restored_callback_continues_equally() -> None:
    rounds = [updates_of(1, a=1, b=2, c=3, d=4, e=5), updates_of(2, a=5, c=4, d=3, e=2), updates_of(3, a=1, b=2, e=3)]
    unbroken, resumed, callback = Federation(), Federation(), Clustering()
    for updates in rounds:
        unbroken.do_round([BackboneSync(), callback], updates)
        resumed.do_round([BackboneSync(), Clustering()], updates)
        assert resumed.assignment == unbroken.assignment and resumed.records == unbroken.records
        assert resumed.models.keys() == unbroken.models.keys()
        assert all(equal(resumed.models[name], model) for name, model in unbroken.models.items())
    assert Clustering().state_dict() == {}


def test_models_of_other_callbacks_are_kept() -> None:
    federation, callback = Federation(), Clustering()
    updates = updates_of(a=1, b=1)
    callback.on_aggregation_start(federation, updates, {})  # type: ignore[arg-type]
    made: dict[str, State] = {"cluster-a": make_backbone(7, 7), "teacher": {}}
    models = callback.aggregate(federation, updates, {}, dict(made))  # type: ignore[arg-type]
    assert models == {**made, "cluster-c": federation.initial_backbone}


class Scores:
    """An engine that answers every evaluation with the model's number."""

    def fit(self, jobs: Iterable[ClientJob]) -> Iterator[ClientUpdate]:
        raise NotImplementedError

    def evaluate(self, jobs: Iterable[ClientJob]) -> Iterator[ClientUpdate]:
        for job in jobs:
            scores = {f"test/{test}/rank1": float(job.backbone["w"]) for test in str(job.config["tests"]).split("/")}
            yield ClientUpdate(job.round, job.client, {}, 1, scores)

    def close(self) -> None:
        pass


def test_the_score_of_a_shared_test_set_is_the_mean_over_its_clients(tmp_path: Path) -> None:
    tests = {"a": ("x",), "b": ("x", "y"), "c": ("x", "y"), "d": ("z",)}
    context = RoundContext(compose(["exp=fedpav"]), dict.fromkeys(tests, 1), tests, {}, frozenset())
    loop = FederationLoop(context, Scores(), {}, Checkpoints(tmp_path / "checkpoints"))
    loop.context.models = {"cluster-a": {"w": torch.tensor(0.25)}, "cluster-b": {"w": torch.tensor(0.5)}}
    loop.context.assignment = dict(zip("abcd", ["cluster-a", "cluster-b", "cluster-b", "cluster-a"], strict=True))
    loop.evaluate_models()
    recorded = [(row.name, row.value) for row in loop.context.history.records]
    assert recorded == [("x", (0.25 + 0.5 + 0.5) / 3), ("z", 0.25), ("y", 0.5)]


def refusal(public: object = (), **options: str) -> str:
    config: Any = SimpleNamespace(callbacks={"backbone_sync": options, "clustering": {}})
    with pytest.raises(FedReIDError) as caught:
        Clustering().check(config, SimpleNamespace(public=public))  # type: ignore[arg-type]
    return str(caught.value)


def test_invalid_settings_are_refused() -> None:
    assert "set data.public" in refusal(public=None)
    assert "set callbacks.backbone_sync.batch_norm to average" in refusal(batch_norm="local")
    with pytest.raises(FedReIDError, match=r"^callbacks\.clustering\.images=0: must be at least 1"):
        callback_factory({"backbone_sync": {}, "clustering": {"images": 0}})
    for batch_norm in ("average", "first", "recalibrate"):
        config: Any = SimpleNamespace(callbacks={"backbone_sync": {"batch_norm": batch_norm}, "clustering": {}})
        Clustering().check(config, SimpleNamespace(public=()))  # type: ignore[arg-type]


def run(root: Path, folder: Path, *words: str) -> FederationLoop:
    words = ("trainer.accelerator=cpu", "data.public=mini-cuhk02", "evaluate_every=5", *words)
    return train(compose(support.quick(root, folder, *words)), folder)


def test_a_single_cluster_equals_the_run_without_clustering(tiny_root: Path, tmp_path: Path) -> None:
    """Three clients have at most one mutual pair, so one step joins all."""
    one, other = (run(tiny_root, tmp_path / exp, f"exp={exp}") for exp in ("fedpav_rw", "fedpav_cc_rw"))
    name = f"cluster-{support.TINY[0]}"
    assert set(one.context.models) == {"global"} and set(other.context.models) == {name}
    assert equal(one.context.models["global"], other.context.models[name])
    for client in support.TINY:
        assert other.context.history.series("weights", client, "cluster") == {1: 0.0, 2: 0.0}
        assert other.context.history.series("global", client, "rank1") == one.context.history.series(
            "global", client, "rank1"
        )


def test_a_real_run_with_absent_clients_and_a_resume(tiny_root: Path, tmp_path: Path) -> None:
    seed = next(
        seed
        for seed in range(100)
        if select_clients(support.TINY, 2, seed, 1) == [support.TINY[0], support.TINY[1]]
        and select_clients(support.TINY, 2, seed, 2) == [support.TINY[1], support.TINY[2]]
    )
    words = ("exp=fedpav_cc", "clients_per_round=2", f"seed={seed}", "callbacks.clustering.images=9")
    first = run(tiny_root, tmp_path / "run", *words, "rounds=1")
    market, viper, ilids = support.TINY
    shared = f"cluster-{market}"
    assert first.context.assignment == {market: shared, viper: shared, ilids: f"cluster-{ilids}"}
    assert equal(first.context.models[f"cluster-{ilids}"], first.context.initial_backbone)
    second = run(tiny_root, tmp_path / "run", *words, "rounds=2")
    shared = f"cluster-{viper}"
    assert second.context.assignment == {market: f"cluster-{market}", viper: shared, ilids: shared}
    had = first.context.models[f"cluster-{market}"]
    assert equal(second.context.models[f"cluster-{market}"], had), "the client's former model"
    assert not equal(second.context.models[shared], first.context.models[f"cluster-{market}"])
    unbroken = run(tiny_root, tmp_path / "unbroken", *words, "rounds=2")
    assert (
        unbroken.context.assignment == second.context.assignment
        and unbroken.context.models.keys() == second.context.models.keys()
    )
    assert all(equal(second.context.models[name], model) for name, model in unbroken.context.models.items())
    assert sum(second.context.weights.values()) == pytest.approx(1.0) and set(second.context.weights) == {viper, ilids}
