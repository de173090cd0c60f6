"""SSCU: DACS with a memory of prototypes, which learns from styles that have improved the global model.

Xu et al., "Positive Style Accumulation: A Style Screening and Continuous Utilization Framework for Federated DG-ReID",
ACM MM 2025 (arXiv 2507.16238).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor

from fedreid_pl.client import ReIDClient
from fedreid_pl.config import Config
from fedreid_pl.data.augmentation import normalize
from fedreid_pl.data.batch import TrainBatch
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.errors import FedReIDError, require
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.capabilities import Capability
from fedreid_pl.federation.client.stylist import Stylist
from fedreid_pl.federation.messages import ClientJob
from fedreid_pl.federation.method import Method
from fedreid_pl.functional.sscu import memory_loss, prototypes_of, updated_memory
from fedreid_pl.models.stages import check_not_compiled
from fedreid_pl.models.whole_batch import of_whole_batch

if TYPE_CHECKING:
    from fedreid_pl.federation.server.context import RoundContext

ACCEPTED = "sscu_accepted"


_require = partial(require, "callbacks.sscu")


class SSCU(FederationCallback):
    """Extends DACS by a prototype classifier, whose prototypes change if a round's styles have improved the model.

    A client has one prototype c_y for every identity. It starts as the normalised mean of the identity's features under
    the first model that the client receives. For images x, L_mem replaces the cross-entropy of the head, for the global
    model g and the expert l: L_mem is the cross-entropy over cos(f(x), c) / `temperature`. The head classifies
    transformed images x' as in DACS (see `dacs`), and all losses of DACS apply. During a turn, every batch moves the
    prototypes towards f(x') (`momentum`). The client saves the prototypes of the turn's end as a candidate. The
    candidate replaces the client's memory if the client's next job states that this round has improved the global
    model; otherwise the client does not use it.

    A round has improved the model if the mean Rank-1 of the server's model on the clients' validation persons
    (`data.val_ids`, held out of training) is at least that of all earlier evaluated rounds. The code that was published
    with a later method uses the target's test set instead, on which the method is also judged; this is not offered.
    Rounds without an evaluation (`evaluate_every`) change no memory. If clients join and leave, the mean is over the
    present clients, and a round in which one of them was not evaluated does not count.

    As in that code: `momentum`, `temperature`, and x' starts in the second round. Unlike that code, prototypes move
    from `first_round` on, and one optimizer step updates all parts; see `dacs` for the other choices. Prototypes stay
    at the client. A job contains the number of the last round that has improved the model; the answer is that of
    FedPav.

    Args:
        memory: share of L_mem, which replaces this share of the head's cross-entropy; 1 in the paper. If this option
            and the three weights of DACS are 0, the federated model equals FedPav's bit for bit.
        momentum, temperature: options of the prototypes and of L_mem.
        weight, diversity, authenticity, first_round: as in `dacs`.
        style_statistics, least_probability: as in `dacs`.
    """

    needs: ClassVar[tuple[Capability, ...]] = ("exchange", "one_global_model")
    job_config: ClassVar[dict[str, type]] = {ACCEPTED: int}
    per_person: ClassVar[tuple[str, ...]] = ("memory",)
    methods: ClassVar[Mapping[str, Method]] = {
        "sscu": Method(
            title="SSCU",
            paper="Xu et al., ACM MM 2025 (arXiv 2507.16238)",
            purpose="unseen places",
            does="adds to DACS a memory of prototypes, which learns from the styles of rounds that improved the model",
            exchanged="the backbone; the server also sends the number of the last round that improved the model",
            stays="the head; the expert and the transformation of DACS; one prototype for each identity",
            needs=("validation persons (data.val_ids), which decide whether a round has improved the model",),
            verified="memory and losses are compared with independent implementations, gradients with finite "
            "differences; with all weights 0 the result equals FedPav's bit for bit; the equations come from a "
            "summary of the paper and from the code of a later method; selection on the target's test set, as in "
            "that code, is not offered; published figures are not reproduced",
        ),
    }

    def __init__(
        self,
        memory: float = 1.0,
        momentum: float = 0.9,
        temperature: float = 0.05,
        weight: float = 1.0,
        diversity: float = 1.0,
        authenticity: float = 5.0,
        first_round: int = 2,
        style_statistics: Literal["deviation", "variance"] = "deviation",
        least_probability: float = 0.0,
    ) -> None:
        _require(0 <= memory <= 1, "memory", memory, "from 0 to 1")
        _require(0 <= momentum < 1, "momentum", momentum, "at least 0 and below 1")
        _require(0 < temperature < math.inf, "temperature", temperature, "a finite number above 0")
        self.memory, self.momentum, self.temperature = memory, momentum, temperature
        self._stylist = Stylist(
            "sscu", weight, diversity, authenticity, first_round, style_statistics, least_probability
        )
        self._accepted = 0  # last round that improved the model (server half only)
        self._prototypes: Tensor | None = None
        self._working: Tensor | None = None
        self._candidate: Tensor | None = None
        self._round = 0

    def check(self, config: Config, data: FederatedData) -> None:
        """Checks that there are validation persons and that the trunk is not compiled.

        Raises:
            FedReIDError: if one of these conditions does not hold.
        """
        check_not_compiled(config.trainer.compile, "sscu")
        if self.memory and not config.data.val_ids:
            raise FedReIDError(
                f"data.val_ids={config.data.val_ids}: callbacks.sscu needs validation persons to decide whether a "
                "round has improved the model; set data.val_ids, such as 0.2, or callbacks.sscu.memory=0"
            )

    # server half

    def on_distribute(self, federation: RoundContext, job: ClientJob) -> ClientJob:
        """Adds the number of the last round that has improved the global model; 0 if there is none."""
        return replace(job, config={**job.config, ACCEPTED: self._accepted})

    def on_round_end(self, federation: RoundContext) -> None:
        """Stores the round's number if its validation score is at least as high as those of all earlier rounds."""
        series = federation.history.mean_series("val_global", "rank1")
        before = [value for round, value in series.items() if 0 < round < federation.round]
        if (found := series.get(federation.round)) is not None and found >= max(before, default=0.0):
            self._accepted = federation.round

    def state_dict(self) -> dict[str, Any]:
        """Returns the last round that has improved the model."""
        return {"accepted": self._accepted}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the last round that has improved the model."""
        self._accepted = state.get("accepted", 0)

    def summary(self) -> dict[str, Any]:
        """Returns the last round that has improved the model."""
        return {"last_improved_round": self._accepted}

    # client half

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Creates the expert and the transformation, or restores those of the client's last turn."""
        if stage == "fit":
            self._stylist.begin(trainer, pl_module)
            pl_module.classification_weight = 1.0 - self.memory

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Creates the first prototypes, or uses the candidate of the last turn if its round has improved the model."""
        if not self.memory:
            return
        if self._candidate is not None and self._round == pl_module.job.config.get(ACCEPTED, 0):
            self._prototypes = self._candidate
        if self._prototypes is None:
            self._prototypes = _first_prototypes(trainer, pl_module)
        self._working = self._prototypes.to(pl_module.device)

    def training_loss(
        self, pl_module: ReIDClient, batch: TrainBatch, embeddings: Tensor, features: Tensor, logits: Tensor
    ) -> Tensor:
        """Returns L_mem of both models and the losses of DACS."""
        stylist = self._stylist
        loss = self._remembered(features, batch)
        loss = loss + stylist.expert_loss(pl_module, batch, lambda *parts: self._expert_loss(pl_module, batch, *parts))
        return stylist.style_losses(
            pl_module, batch, loss, partial(self._move, labels=batch.labels) if self.memory else None
        )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves the prototypes of the turn's end as the candidate."""
        if self._working is not None:
            self._candidate, self._round = self._working.cpu(), pl_module.job.round
            self._working = None

    def client_state_dict(self) -> dict[str, Any]:
        """Returns expert, transformation, prototypes, and the candidate with its round."""
        state: dict[str, Any] = self._stylist.state_dict()
        if self._prototypes is not None and self._candidate is not None:
            state["memory"] = {"prototypes": self._prototypes, "candidate": self._candidate, "round": self._round}
        return state

    def load_client_state_dict(self, state: dict[str, Any]) -> None:
        """Restores expert, transformation, prototypes and candidate."""
        self._stylist.load_state_dict(state)
        if "memory" in state:
            kept = state["memory"]
            self._prototypes, self._candidate, self._round = kept["prototypes"], kept["candidate"], int(kept["round"])

    def _remembered(self, features: Tensor, batch: TrainBatch) -> Tensor:
        if self._working is None:
            return features.new_zeros(())
        return self.memory * memory_loss(features, self._working, batch.labels, self.temperature)

    def _expert_loss(
        self, pl_module: ReIDClient, batch: TrainBatch, before: Tensor, features: Tensor, scores: Tensor
    ) -> Tensor:
        """Returns T(l(x)), in which L_mem replaces the share `memory` of cross-entropy."""
        loss = pl_module.supervised_loss(batch.labels, before, scores, classification=1 - self.memory)
        return loss + self._remembered(features, batch)

    def _move(self, features: Tensor, labels: Tensor) -> None:
        if self._working is not None:
            whole, known = of_whole_batch(features.detach().float()), of_whole_batch(labels.double()).long()
            self._working = updated_memory(self._working, whole, known, self.momentum)


@torch.no_grad()
def _first_prototypes(trainer: pl.Trainer, pl_module: pl.LightningModule) -> Tensor:
    data, mode = trainer.datamodule, pl_module.backbone.training  # type: ignore[attr-defined]
    pl_module.backbone.eval()
    parts = [
        (pl_module.backbone(normalize(batch.images.to(pl_module.device))).cpu(), batch.labels)
        for batch in data.stored_images()
    ]
    pl_module.backbone.train(mode)
    features, labels = (torch.cat(values) for values in zip(*parts, strict=True))
    return prototypes_of(features, labels, data.num_identities)
