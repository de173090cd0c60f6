"""SNR: a loss that separates the restituted part of a feature from the removed part.

Jin et al., "Style Normalization and Restitution for Generalizable Person Re-identification", CVPR 2020.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import pytorch_lightning as pl
from torch import Tensor, nn

from fedreid_pl.client import ReIDClient
from fedreid_pl.config import Config
from fedreid_pl.data.batch import TrainBatch
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.capabilities import Capability
from fedreid_pl.federation.method import Method
from fedreid_pl.functional.randomness import generator
from fedreid_pl.functional.snr import causality_loss
from fedreid_pl.models.ide import build_head
from fedreid_pl.models.restitution import Parts
from fedreid_pl.models.stages import check_not_compiled
from fedreid_pl.models.weights import copied


class SNR(FederationCallback):
    """Adds the dual causality loss after each of the first `model.snr_stages` stages to the loss of a step.

    The layers of SNR (`models.restitution`) are part of the backbone: they are exchanged, saved, loaded and exported
    with it, with or without this callback. After each of these stages, a classifier of the client predicts identities
    from three feature maps: the normalised maps F~, the maps F~+ with the restituted part of the residual, and the maps
    F~- with the removed part. The loss compares how certain these predictions are: `softplus(H(F~+) - H(F~)) +
    softplus(H(F~) - H(F~-))`, where H is the batch's mean entropy.

    The loss compares entropies, as in the published code of DACS (Yang et al., AAAI 2024), which compares DACS with
    SNR. The form of the CVPR paper, which compares distances within triplets, could not be checked against a source and
    is not implemented. As in the code of DACS, only this loss trains the classifiers of the stages, with the head's
    learning rate; they stay at the client. That code adds the loss after the first three of four stages.

    Args:
        weight: weight of the loss, which is the sum over stages; with 0 the model has the layers of SNR but no loss.
        least_probability: smaller probabilities are left out of entropies; 1e-6 in the published code of DACS.
    """

    needs: ClassVar[tuple[Capability, ...]] = ("exchange",)
    per_person: ClassVar[tuple[str, ...]] = ("classifiers",)
    methods: ClassVar[Mapping[str, Method]] = {
        "snr": Method(
            title="SNR",
            paper="Jin et al., CVPR 2020; loss as in the published code of DACS",
            purpose="unseen places",
            does="normalises feature maps by instance and restores the part of them that separates identities",
            exchanged="the backbone with the layers of SNR",
            stays="the head; one classifier for each stage",
            needs=("a network with residual stages (small, ResNets, OSNets)",),
            verified="layers and loss are compared with independent implementations in float64; a trained model is "
            "loaded and exported; the triplet form of the loss in the CVPR paper is not implemented; published "
            "figures are not reproduced",
        ),
    }

    def __init__(self, weight: float = 1.0, least_probability: float = 0.0) -> None:
        if not 0 <= weight < math.inf:
            raise FedReIDError(f"callbacks.snr.weight={weight}: must be a finite number, at least 0")
        if not 0 <= least_probability < 1:
            raise FedReIDError(f"callbacks.snr.least_probability={least_probability}: must be at least 0 and below 1")
        self.weight, self.least_probability = weight, least_probability
        self._kept: dict[str, Tensor] = {}
        self._classifiers: nn.ModuleList | None = None
        self._parts: list[Parts] = []

    def check(self, config: Config, data: FederatedData) -> None:
        """Checks that the network has the layers of SNR and is not compiled.

        Raises:
            FedReIDError: if one of these conditions does not hold.
        """
        check_not_compiled(config.trainer.compile, "snr")
        if not config.model.snr_stages:
            raise FedReIDError("model.snr_stages=0: callbacks.snr needs the layers of SNR; set model.snr_stages=3")

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Creates the classifiers, or restores those of the client's last turn."""
        if stage != "fit" or not self.weight:
            return
        identities, seed = pl_module.head.out_features, pl_module.seed
        sizes = [layer.norm.num_features for layer in pl_module.backbone.restitution]
        heads = [build_head(size, identities, generator(seed, "snr", place)) for place, size in enumerate(sizes)]
        self._classifiers = nn.ModuleList(heads)
        if self._kept:
            self._classifiers.load_state_dict(self._kept)
        pl_module.attach(self._classifiers, pl_module.optim.lr_head)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Makes the layers store their three feature maps."""
        self._watch(pl_module, bool(self.weight))

    def feature_maps(self, pl_module: ReIDClient, batch: TrainBatch, stage: int, maps: Tensor) -> Tensor:
        """Collects the stored feature maps of the step's main forward pass, and returns `maps` unchanged."""
        layers: Any = pl_module.backbone.restitution
        if stage == 0:
            self._parts = []
        if stage < len(layers) and layers[stage].parts is not None:
            self._parts.append(layers[stage].parts)
            layers[stage].parts = None
        return maps

    def training_loss(
        self, pl_module: ReIDClient, batch: TrainBatch, embeddings: Tensor, features: Tensor, logits: Tensor
    ) -> Tensor | None:
        """Returns `weight` times the sum of the losses of all stages."""
        if self._classifiers is None:
            return None
        loss = embeddings.new_zeros(())
        for classifier, parts in zip(self._classifiers, self._parts, strict=True):
            normal, kept, dropped = (classifier(maps.mean(dim=(2, 3))) for maps in parts)
            loss = loss + causality_loss(kept, normal, dropped, self.least_probability)
        self._parts = []
        return self.weight * loss

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Makes the layers store nothing."""
        self._watch(pl_module, False)

    def client_state_dict(self) -> dict[str, Any]:
        """Returns the classifiers."""
        if self._classifiers is None:
            return {"classifiers": self._kept} if self._kept else {}
        return {"classifiers": copied(self._classifiers.state_dict())}

    def load_client_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the classifiers."""
        self._kept = dict(state["classifiers"])

    def _watch(self, pl_module: pl.LightningModule, watched: bool) -> None:
        self._parts = []
        for layer in pl_module.backbone.restitution:
            layer.watched, layer.parts = watched, None
