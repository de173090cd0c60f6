"""Client clustering (CC): clients whose models see the public images alike share a model.

Zhuang et al., ACM TOMM 19(1s), 2023, Section 5.1 and Algorithm 2; the clustering is one step of FINCH (Sarfraz et
al., CVPR 2019).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from fedreid_pl.config import Config
from fedreid_pl.data.augmentation import normalize
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.capabilities import Capability
from fedreid_pl.federation.messages import ClientUpdate, State
from fedreid_pl.federation.method import Method
from fedreid_pl.functional.clustering import first_neighbor_clusters
from fedreid_pl.functional.randomness import generator
from fedreid_pl.models.exchange import exchanges_all

if TYPE_CHECKING:
    from fedreid_pl.federation.server.context import RoundContext


class Clustering(FederationCallback):
    """Groups the clients of a round by the mean feature that their models give one batch of public images.

    Each cluster has a model of its own, averaged by `backbone_sync` over its members of the round, whose weights
    add up to one; they start their next round from it. Clients that did not take part keep the model they had.
    A model is named after the first client, in the order of the configuration, that works with it
    (`cluster-CLIENT`). Before the first round all are at `global`, the initial backbone. A client that joins later
    begins with the model that most clients work with.

    There is no state to restore: assignment and models are in the loop's, the batch depends on the run's seed.

    Args:
        images: public images in the batch, drawn once per run; all of them if there are fewer.
    """

    removes: ClassVar[tuple[Capability, ...]] = ("one_global_model",)
    needs: ClassVar[tuple[Capability, ...]] = ("exchange", "sees_single_updates")
    methods: ClassVar[Mapping[str, Method]] = {
        "fedpav_cc": Method(
            title="Client clustering (CC)",
            paper="Zhuang et al., ACM TOMM 19(1s), 2023, Algorithm 2; FINCH, Sarfraz et al., CVPR 2019",
            purpose="federation",
            does="gives each group of clients whose models see the public images alike a model of its own",
            needs=("a public set of unlabelled images at the server",),
            verified="the clusters against the graph of the paper and the authors' package of FINCH; published figures "
            "not reproduced",
        ),
    }

    def __init__(self, images: int = 32) -> None:
        if images < 1:
            raise FedReIDError(f"callbacks.clustering.images={images}: must be at least 1")
        self.images = images
        self._batch: Tensor | None = None
        self._kept: dict[str, str] = {}

    def check(self, config: Config, data: FederatedData) -> None:
        """There must be public images, and clients that send whole backbones."""
        if data.public is None:
            raise FedReIDError("callbacks.clustering: needs a public set; set data.public")
        if not exchanges_all(config.callbacks.get("backbone_sync", {})):
            raise FedReIDError(
                "callbacks.backbone_sync.batch_norm=local: clustering runs the clients' models at the server, "
                "which needs their BatchNorm; choose average, first or recalibrate"
            )

    def on_members_change(self, federation: RoundContext, changes: Mapping[str, int]) -> None:
        """A client without a model that is still there gets the one that most others have; of several, the first."""
        members = Counter(name for name in map(federation.model_of, federation.clients) if name in federation.models)
        largest = max(members, key=members.__getitem__, default=next(iter(federation.models), "global"))
        for client in federation.clients:
            if federation.model_of(client) not in federation.models:
                federation.assignment[client] = largest

    def on_aggregation_start(
        self, federation: RoundContext, updates: Sequence[ClientUpdate], weights: dict[str, float]
    ) -> None:
        """Assigns every client to a model of the new round."""
        features = torch.stack([self._mean_feature(federation, update.backbone) for update in updates])
        features = federation.server.agree({"features": features})["features"]
        found = dict(zip([update.client for update in updates], first_neighbor_clusters(features), strict=True))
        for client, number in found.items():
            federation.record("weights", client, "cluster", number)
        # a group is a cluster of this round (its number) or those left with a model of before (its name)
        groups = {client: found.get(client, federation.model_of(client)) for client in federation.clients}
        names: dict[int | str, str] = {}
        for client, group in groups.items():
            names.setdefault(group, f"cluster-{client}")
        federation.assignment = {client: names[group] for client, group in groups.items()}
        self._kept = {name: group for group, name in names.items() if isinstance(group, str)}

    def aggregate(
        self,
        federation: RoundContext,
        updates: Sequence[ClientUpdate],
        weights: Mapping[str, float],
        models: dict[str, State],
    ) -> dict[str, State]:
        """Adds the models of clients that did not take part, under their new names."""
        return models | {name: federation.models[before] for name, before in self._kept.items()}

    @torch.no_grad()
    def _mean_feature(self, federation: RoundContext, backbone: Mapping[str, Tensor]) -> Tensor:
        server = federation.server
        if self._batch is None:
            public = server.public
            assert public is not None  # `check` has seen to it
            order = torch.randperm(len(public), generator=generator(federation.seed, "clustering"))
            self._batch = normalize(public.read(order[: self.images].tolist()).to(server.device))
        network = server.network()
        network.load_state_dict(backbone)
        return network(self._batch).float().mean(0)
