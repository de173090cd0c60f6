"""Client clustering (CC): clients whose models give similar features to public images share a model.

Zhuang et al., ACM TOMM 19(1s), 2023, Section 5.1 and Algorithm 2. The clustering is one step of FINCH (Sarfraz et al.,
CVPR 2019).
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
    """Clusters the clients of a round by the mean feature that each client's model gives to a batch of public images.

    Every cluster has its own model. `backbone_sync` averages it over those members of the cluster that took part in the
    round, with weights that add up to one. The members start their next round from this model. A client that did not
    take part keeps its model. A model is named `cluster-CLIENT` after its first client in the order of the
    configuration. Before the first round, all clients use `global`, the initial backbone. A client that joins later
    starts with the model that most clients use.

    This callback saves no state: the federation loop saves assignment and models, and the batch depends only on the
    run's seed.

    Args:
        images: number of public images in the batch, which is drawn once for the run. If there are fewer public images,
            all are used.
    """

    removes: ClassVar[tuple[Capability, ...]] = ("one_global_model",)
    needs: ClassVar[tuple[Capability, ...]] = ("exchange", "sees_single_updates")
    methods: ClassVar[Mapping[str, Method]] = {
        "fedpav_cc": Method(
            title="Client clustering (CC)",
            paper="Zhuang et al., ACM TOMM 19(1s), 2023, Algorithm 2; FINCH, Sarfraz et al., CVPR 2019",
            purpose="federation",
            does="clusters clients whose models give similar features to public images; every cluster has its own "
            "model",
            needs=("a public set of unlabelled images at the server",),
            verified="the clusters are compared with those of the paper's graph and of the authors' FINCH package; "
            "published figures are not reproduced",
        ),
    }

    def __init__(self, images: int = 32) -> None:
        if images < 1:
            raise FedReIDError(f"callbacks.clustering.images={images}: must be at least 1")
        self.images = images
        self._batch: Tensor | None = None
        self._kept: dict[str, str] = {}

    def check(self, config: Config, data: FederatedData) -> None:
        """Checks that there are public images, and that clients send whole backbones.

        Raises:
            FedReIDError: if one of these conditions does not hold.
        """
        if data.public is None:
            raise FedReIDError("callbacks.clustering: needs public images; set data.public")
        if not exchanges_all(config.callbacks.get("backbone_sync", {})):
            raise FedReIDError(
                "callbacks.clustering: the server runs the clients' models and needs whole backbones; set "
                "callbacks.backbone_sync.batch_norm to average, first or recalibrate, and leave exchange and keep unset"
            )

    def on_members_change(self, federation: RoundContext, changes: Mapping[str, int]) -> None:
        """Assigns clients without a model to the model that most clients use.

        If several models are used equally often, the first one in the order of the clients is chosen.
        """
        members = Counter(name for name in map(federation.model_of, federation.clients) if name in federation.models)
        largest = max(members, key=members.__getitem__, default=next(iter(federation.models), "global"))
        for client in federation.clients:
            if federation.model_of(client) not in federation.models:
                federation.assignment[client] = largest

    def on_aggregation_start(
        self, federation: RoundContext, updates: Sequence[ClientUpdate], weights: dict[str, float]
    ) -> None:
        """Clusters the clients and assigns each to a model of the new round."""
        features = torch.stack([self._mean_feature(federation, update.backbone) for update in updates])
        features = federation.server.agree({"features": features})["features"]
        found = dict(zip([update.client for update in updates], first_neighbor_clusters(features), strict=True))
        for client, number in found.items():
            federation.record("weights", client, "cluster", number)
        # a group is a cluster of this round (by number) or the clients that keep an earlier model (by its name)
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
        """Returns `models` and the models of clients that did not take part, under their new names."""
        return models | {name: federation.models[before] for name, before in self._kept.items()}

    @torch.no_grad()
    def _mean_feature(self, federation: RoundContext, backbone: Mapping[str, Tensor]) -> Tensor:
        server = federation.server
        if self._batch is None:
            public = server.public
            assert public is not None  # `check` guarantees this
            order = torch.randperm(len(public), generator=generator(federation.seed, "clustering"))
            self._batch = normalize(public.read(order[: self.images].tolist()).to(server.device))
        network = server.network()
        network.load_state_dict(backbone)
        return network(self._batch).float().mean(0)
