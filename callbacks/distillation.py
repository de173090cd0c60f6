"""Knowledge distillation (KD): the server fine-tunes the global model to the mean feature of the clients' models.

Zhuang et al., ACM TOMM 19(1s), 2023, Algorithm 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import SGD

from fedreid_pl.config import Config
from fedreid_pl.data.augmentation import crop_and_flip, normalize
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.data.images import ImageSource
from fedreid_pl.errors import FedReIDError, require
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.capabilities import Capability
from fedreid_pl.federation.forward import ForwardPass
from fedreid_pl.federation.messages import ClientUpdate
from fedreid_pl.federation.method import Method
from fedreid_pl.functional.distillation import distillation_loss, mean_feature
from fedreid_pl.functional.finite import first_not_finite
from fedreid_pl.functional.randomness import derive_seed, generator, seed_generators, undisturbed
from fedreid_pl.models.exchange import exchanges_all

if TYPE_CHECKING:
    from fedreid_pl.federation.server.context import RoundContext

CHUNK = 512
"""Number of public images (uint8) in memory at a time; every teacher is loaded once for each of these chunks."""


_require = partial(require, "callbacks.distillation")


class Batch(NamedTuple):
    """The images of one optimizer step, for the student and the teachers.

    Args:
        number: number of the step within its pass.
        rows: `[B]` int64, rows of the public set.
        images: `[B, 3, H, W]` uint8, cropped and flipped if augmentation is on.
    """

    number: int
    rows: Tensor
    images: Tensor


class Distillation(FederationCallback):
    """Fine-tunes the aggregated model on unlabelled public images, with all uploaded backbones as teachers.

    The server has two networks in memory: the student and one teacher at a time. The result does not depend on the
    order of the clients or on `CHUNK`.

    Args:
        every_n_rounds: distils in every n-th round (1 in the paper, 10 in the published code).
        normalize: `teachers`: each teacher's feature is L2-normalised before the mean (the "regularization" of the
            published code). `both`: the student's output is normalised too.
        lr, momentum, nesterov, weight_decay: options of SGD, which starts anew in every distillation. The published
            code uses Nesterov momentum.
        batch_size: number of public images per step. If one image remains for the last batch, it joins the previous
            batch.
        passes: number of passes over the public images, each in a new order.
        augment: applies new random crops and flips (`data.pad`, `data.flip`) in every pass, the same for teachers and
            student.
        mode: `eval`: no dropout, and BatchNorm uses its running statistics, which do not change. `train`, as in the
            published code: student and teachers use dropout and batch statistics, and the student's running statistics
            change.
    """

    needs: ClassVar[tuple[Capability, ...]] = ("exchange", "one_global_model", "sees_single_updates")
    methods: ClassVar[Mapping[str, Method]] = {
        "fedpav_kd": Method(
            title="Knowledge distillation (KD)",
            paper="Zhuang et al., ACM TOMM 19(1s), 2023, Algorithm 3",
            purpose="federation",
            does="fine-tunes the averaged model to the mean feature that the clients' models give to public images",
            needs=("a public set of unlabelled images at the server",),
            verified="loss and optimizer step are compared with a plain loop; published figures are not reproduced",
        ),
    }

    def __init__(
        self,
        every_n_rounds: int = 1,
        normalize: Literal["none", "teachers", "both"] = "none",
        lr: float = 0.0005,
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: float = 5e-4,
        batch_size: int = 32,
        passes: int = 1,
        augment: bool = False,
        mode: Literal["eval", "train"] = "eval",
    ) -> None:
        self.every_n_rounds, self.normalize, self.augment, self.mode = every_n_rounds, normalize, augment, mode
        self.lr, self.momentum, self.nesterov, self.weight_decay = lr, momentum, nesterov, weight_decay
        self.batch_size, self.passes = batch_size, passes
        _require(every_n_rounds >= 1, "every_n_rounds", every_n_rounds, "at least 1")
        _require(0 < lr < math.inf, "lr", lr, "above 0 and finite")
        _require(0 <= momentum < 1, "momentum", momentum, "at least 0 and below 1")
        _require(momentum > 0 or not nesterov, "nesterov", nesterov, "false if momentum is 0")
        _require(0 <= weight_decay < math.inf, "weight_decay", weight_decay, "at least 0 and finite")
        least = 2 if mode == "train" else 1  # batch statistics of one image are not defined
        _require(batch_size >= least, "batch_size", batch_size, f"at least {least} with mode={mode}")
        _require(passes >= 1, "passes", passes, "at least 1")

    def check(self, config: Config, data: FederatedData) -> None:
        """Checks that there are enough public images, and that clients send whole backbones.

        Raises:
            FedReIDError: if one of these conditions does not hold.
        """
        if data.public is None:
            raise FedReIDError("callbacks.distillation: needs unlabelled public images; set data.public")
        if self.mode == "train" and len(data.public) < 2:
            raise FedReIDError("callbacks.distillation.mode=train: needs at least 2 public images; data.public has 1")
        if not exchanges_all(config.callbacks.get("backbone_sync", {})):
            raise FedReIDError(
                "callbacks.distillation: the teachers must be whole backbones; set callbacks.backbone_sync.batch_norm "
                "to average, first or recalibrate, and leave exchange and keep unset"
            )

    def on_aggregation_end(self, federation: RoundContext, updates: Sequence[ClientUpdate]) -> None:
        """Fine-tunes the global model; if the result has NaN or infinite values, the aggregated model is used."""
        if federation.round % self.every_n_rounds:
            return
        server = federation.server
        student = server.network(0)
        student.load_state_dict(federation.models["global"])
        with undisturbed(server.device):
            loss = float(server.agree({"loss": self._distil(federation, student, updates)})["loss"])
        state = server.agree(student.state_dict())
        student.zero_grad(set_to_none=True)
        if not math.isfinite(loss) or first_not_finite(state) is not None:
            federation.warn("distillation has produced NaN or infinite values; this round uses the aggregated model")
            return
        federation.models["global"] = state
        federation.record("train", "server", "distillation_loss", loss)

    def _distil(self, federation: RoundContext, student: nn.Module, updates: Sequence[ClientUpdate]) -> Tensor:
        """Trains the student in place; returns the mean loss over all images and passes."""
        device, public = federation.server.device, len(_public(federation))
        fixed = self.mode == "eval" and not self.augment
        targets = torch.empty(0)  # [public, D], by row of the public set
        optimizer = SGD(student.parameters(), self.lr, self.momentum, 0.0, self.weight_decay, self.nesterov)
        student.train(self.mode == "train")
        total = torch.zeros((), device=device)
        for number in range(self.passes):
            for chunk in self._chunks(federation, number):
                if number == 0 or not fixed:
                    teachers = federation.server.features(
                        self._teach(federation, update, chunk, number) for update in updates
                    )
                    mean = mean_feature(teachers, self.normalize != "none")
                    targets = targets if len(targets) else mean.new_empty(public, mean.shape[1])
                    targets[torch.cat([batch.rows for batch in chunk])] = mean
                for batch in chunk:
                    output = self._forward(federation, student, batch, number, "student")
                    loss = distillation_loss(output, targets[batch.rows].to(device), self.normalize == "both")
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    total += loss.detach() * len(batch.rows)
        return total / (public * self.passes)

    def _teach(
        self, federation: RoundContext, update: ClientUpdate, chunk: Sequence[Batch], number: int
    ) -> ForwardPass:
        """Returns the forward pass of one teacher over the images of a chunk."""
        batches = [batch.images for batch in chunk]
        train, what = self.mode == "train", f"a teacher's forward pass ({update.client})"
        seeds = [self._seed(federation, batch, number, "teacher", update.client) for batch in chunk] if train else []
        return ForwardPass(update.backbone, batches, train, seeds, what)

    def _forward(self, federation: RoundContext, network: nn.Module, batch: Batch, number: int, *who: str) -> Tensor:
        """Returns the features of a batch; the random numbers of dropout do not depend on earlier draws."""
        if self.mode == "train":
            seed_generators(self._seed(federation, batch, number, *who))
        return network(normalize(batch.images))

    def _seed(self, federation: RoundContext, batch: Batch, number: int, *who: str) -> int:
        return derive_seed(federation.seed, federation.round, "distillation", number, batch.number, *who)

    def _chunks(self, federation: RoundContext, number: int) -> Iterator[list[Batch]]:
        """Yields the batches of one pass, shuffled, in chunks; every image is read once."""
        public, data = _public(federation), federation.config.data
        draws = generator(federation.seed, federation.round, "distillation", number)
        steps = list(torch.randperm(len(public), generator=draws).split(self.batch_size))
        if len(steps) > 1 and len(steps[-1]) == 1:
            steps[-2:] = [torch.cat(steps[-2:])]
        size = max(CHUNK // self.batch_size, 1)
        for start in range(0, len(steps), size):
            rows = steps[start : start + size]
            pixels = public.read(torch.cat(rows).tolist()).to(federation.server.device)
            images = list(pixels.split([len(step) for step in rows]))
            if self.augment:
                images = [crop_and_flip(batch, data.pad, data.flip, draws) for batch in images]
            yield [Batch(start + k, *pair) for k, pair in enumerate(zip(rows, images, strict=True))]


def _public(federation: RoundContext) -> ImageSource:
    if federation.server.public is None:
        raise RuntimeError("this federation has no public images")
    return federation.server.public
