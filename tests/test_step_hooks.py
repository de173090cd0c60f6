"""Changes of callbacks within a step: images, feature maps, a second view, and added layers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import step_parts
import support
import tiny_turn
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedreid_pl.config import ModelConfig
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.callback import FederationCallback, step_hooks
from fedreid_pl.functional.triplet import batch_hard_triplet
from fedreid_pl.models.stages import check_stages
from fedreid_pl.models.trunks import build_trunk


class Doubled(FederationCallback):
    """A callback that doubles the images and adds one to the maps after the second stage."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, torch.Size]] = []

    def training_images(self, pl_module: Any, batch: Any) -> Tensor:
        return 2 * batch.images

    def feature_maps(self, pl_module: Any, batch: Any, stage: int, maps: Tensor) -> Tensor:
        self.seen.append((stage, maps.shape[1:]))
        return maps + 1 if stage == 1 else maps


def by_hand(client: Any, images: Tensor) -> Tensor:
    """Returns the logits of doubled images with one added after the second stage."""
    trunk = client.backbone.trunk
    maps = trunk.stages[1](trunk.stages[0](trunk.stem(2 * images))) + 1
    linear, norm, _ = client.backbone.bottleneck
    return client.head(norm(linear(trunk.stages[2](maps).mean(dim=(2, 3)))))


def test_images_and_maps_are_changed_only_in_the_step() -> None:
    doubled, batch = Doubled(), step_parts.make_batch()
    client, plain = step_parts.make_client(doubled, dropout=0.0), step_parts.make_client(dropout=0.0)
    loss = client.training_step(batch, 0)
    torch.testing.assert_close(loss, F.cross_entropy(by_hand(plain, batch.images), batch.labels))
    assert doubled.seen == [(0, (16, 16, 8)), (1, (32, 8, 4)), (2, (64, 4, 2))]
    assert torch.equal(batch.images, step_parts.make_batch().images), "the batch does not change"
    client, plain = step_parts.make_client(doubled), step_parts.make_client()
    assert torch.equal(client.eval()(batch.images), plain.eval()(batch.images)), "evaluation"
    assert torch.equal(client.logits(batch.images), plain.logits(batch.images)), "a probe"
    assert list(client.backbone.state_dict()) == list(plain.backbone.state_dict())
    assert len(doubled.seen) == 3
    assert not any(module._forward_hooks for module in client.modules())


def test_a_step_that_raises_leaves_no_change() -> None:
    class Raises(FederationCallback):
        def feature_maps(self, pl_module: Any, batch: Any, stage: int, maps: Tensor) -> Tensor:
            raise FedReIDError("no")

    client = step_parts.make_client(Raises())
    with pytest.raises(FedReIDError):
        client.training_step(step_parts.make_batch(), 0)
    assert not any(module._forward_hooks for module in client.modules())
    copy.deepcopy(client.backbone)


def test_only_callbacks_that_override_a_hook_are_called() -> None:
    hooks = step_hooks({"plain": FederationCallback(), "doubled": Doubled()})
    assert (len(hooks["images"]), len(hooks["maps"]), hooks["losses"]) == (1, 1, {})


@pytest.mark.parametrize(
    ("name", "channels"),
    [("small", [16, 32, 64]), ("resnet18", [64, 128, 256, 512]), ("osnet_x0_25", [64, 96, 128]), ("mobilenet_v2", [])],
)
def test_the_stages_of_a_trunk_in_their_order(name: str, channels: list[int]) -> None:
    trunk, found = build_trunk(name).eval(), []
    handles = [
        stage.register_forward_hook(lambda module, inputs, maps: found.append(maps.shape[1]))
        for stage in trunk.residual_stages()
    ]
    with torch.no_grad():
        trunk(torch.zeros(1, 3, 64, 64))
    assert found == channels and len(handles) == len(channels)


@pytest.mark.parametrize(
    ("model", "compiled", "wanted", "message"),
    [
        ("mobilenet_v2", "none", 1, "model.name=mobilenet_v2: callbacks.zebra.stages works between residual stages"),
        ("small", "none", 4, "callbacks.zebra.stages=4: small has only 3"),
        ("small", "default", 1, "trainer.compile=default: callbacks.zebra.*set trainer.compile=none"),
    ],
)
def test_a_network_without_such_stages_is_refused(model: str, compiled: str, wanted: int, message: str) -> None:
    with pytest.raises(FedReIDError, match=message):
        check_stages(ModelConfig(name=model), compiled, "zebra", wanted)
    check_stages(ModelConfig(name="small"), "none", "zebra", 3)


def test_a_second_pass_draws_separate_dropout_masks() -> None:
    batch, client, plain = step_parts.make_batch(), step_parts.make_client(), step_parts.make_client()
    torch.manual_seed(3)
    first, second = client.second_pass(batch.images), client.second_pass(batch.images)
    after = torch.rand(4)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(4), after)
    assert first[0].shape == first[1].shape == (6, 16) and first[2].shape == (6, 3)
    assert torch.equal(first[0], second[0]), "before dropout"
    assert not torch.equal(first[1] == 0, second[1] == 0), "the masks differ"
    again = plain.second_pass(batch.images)
    assert torch.equal(again[1], first[1]), "a repeated turn draws the same mask"


@pytest.mark.parametrize("triplet", [0.0, 0.5])
def test_the_supervised_loss_is_that_of_the_step(triplet: float) -> None:
    batch, client = step_parts.make_batch(), step_parts.make_client(triplet=triplet, label_smoothing=0.1)
    embeddings, _, logits = client.second_pass(batch.images)
    loss = F.cross_entropy(logits, batch.labels, label_smoothing=0.1)
    wanted = loss + triplet * batch_hard_triplet(embeddings, batch.labels, 0.3)
    torch.testing.assert_close(client.supervised_loss(batch.labels, embeddings, logits), wanted)
    torch.testing.assert_close(
        step_parts.make_client(dropout=0.0, triplet=triplet).training_step(batch, 0),
        (lambda one: one.supervised_loss(batch.labels, *one.second_pass(batch.images)[::2]))(
            step_parts.make_client(dropout=0.0, triplet=triplet)
        ),
    )


class Shift(FederationCallback):
    """A callback with a learned shift of the images and a loss that pulls the shift to zero."""

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.layer = nn.Linear(1, 3, bias=False)
        nn.init.ones_(self.layer.weight)
        pl_module.attach(self.layer, 0.25)

    def training_loss(self, pl_module: Any, batch: Any, *rest: Tensor) -> Tensor:
        return 0.5 * self.layer.weight.square().sum()


def test_layers_of_a_callback_have_their_own_rate_and_do_not_belong_to_the_backbone() -> None:
    shift, batches = Shift(), tiny_turn.make_batches()
    module = tiny_turn.take_turn([shift], support.fit_job(1, "a", {}), tiny_turn.PLAIN, batches)
    steps = len(batches) * tiny_turn.EPOCHS
    torch.testing.assert_close(shift.layer.weight.detach(), torch.full((3, 1), 0.75**steps))
    assert module.outbox.metrics["cost/cloned_bytes"] == 12
    alone = tiny_turn.take_turn([], support.fit_job(1, "a", {}), tiny_turn.PLAIN, batches)
    support.assert_equal(dict(module.backbone.state_dict()), dict(alone.backbone.state_dict()))
    with pytest.raises(RuntimeError, match="setup hook"):
        module.attach(nn.Linear(1, 1))


def test_another_loss_can_replace_cross_entropy() -> None:
    class Instead(FederationCallback):
        def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
            pl_module.classification_weight = 0.0

        def training_loss(self, pl_module: Any, batch: Any, embeddings: Tensor, *rest: Tensor) -> Tensor:
            return embeddings.square().mean()

    batch = step_parts.make_batch()
    client = step_parts.make_client(Instead())
    client.classification_weight = 0.0
    loss = client.training_step(batch, 0)
    wanted = step_parts.make_client().second_pass(batch.images)[0].square().mean()
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    assert client.head.weight.grad is not None and not client.head.weight.grad.any(), (
        "the head is in the graph with zero gradients, as several processes require"
    )
