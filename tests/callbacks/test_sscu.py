"""SSCU: the rounds that change a memory, the losses of a step, and equality with FedPav at weights 0."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import step_parts
import support
import torch
from torch.nn import functional as F

from fedreid_pl.callbacks.sscu import SSCU
from fedreid_pl.client import ReIDClient
from fedreid_pl.config import compose
from fedreid_pl.data.batch import TrainBatch
from fedreid_pl.errors import FedReIDError
from fedreid_pl.experiment import train
from fedreid_pl.federation.storage import read_state
from fedreid_pl.functional.sscu import memory_loss, updated_memory

WITHOUT_DACS = {"weight": 0.0, "diversity": 0.0, "authenticity": 0.0}


class Data:
    """Returns stored images: black, grey and white, of identities 0, 1 and 2; the last image twice."""

    config = SimpleNamespace(height=64, width=32)
    num_identities = 3

    def stored_images(self) -> Any:
        for value, label in ((0, 0), (100, 1), (200, 2), (250, 2)):
            image = torch.full((1, 3, 64, 32), value, dtype=torch.uint8)
            yield TrainBatch(image, torch.tensor([label]), torch.zeros(1), torch.zeros(1))


TRAINER: Any = SimpleNamespace(datamodule=Data())


def begun(round: int = 2, accepted: int = 0, kept: Any = None, **options: Any) -> tuple[SSCU, ReIDClient]:
    """Returns a callback in a client's turn before its first step, without dropout."""
    callback = SSCU(**options)
    if kept is not None:
        callback.load_client_state_dict(kept)
    job = support.fit_job(round, "a", config={"sscu_accepted": accepted})
    client = step_parts.make_client(callback, dropout=0.0, job=job)
    callback.setup(TRAINER, client, "fit")
    callback.on_train_start(TRAINER, client)
    return callback, client


# decisions of the server


def federation(round: int, scores: dict[int, float]) -> Any:
    return SimpleNamespace(
        round=round,
        history=SimpleNamespace(
            mean_series=lambda section, metric: scores if (section, metric) == ("val_global", "rank1") else {}
        ),
    )


def test_a_round_counts_if_its_validation_score_is_at_least_the_best_so_far() -> None:
    scores, accepted = {0: 0.4, 1: 0.2, 3: 0.3, 4: 0.25, 6: 0.3}, []
    callback = SSCU()
    for round in range(1, 7):
        again = SSCU()
        again.load_state_dict(callback.state_dict())  # a resumed server
        callback = again
        callback.on_round_end(federation(round, {key: value for key, value in scores.items() if key <= round}))
        job = callback.on_distribute(federation(round, scores), support.fit_job(round, "a"))
        accepted.append(job.config["sscu_accepted"])
    assert accepted == [1, 1, 3, 3, 3, 6]
    assert callback.summary() == {"last_improved_round": 6}


def test_test_sets_do_not_affect_training(tiny_root: Path, tmp_path: Path) -> None:
    """The published selection on the target is refused: a run needs validation persons."""
    config = compose(support.quick(tiny_root, tmp_path, "exp=sscu", "data.val_ids=0"))
    with pytest.raises(FedReIDError, match=r"^data\.val_ids=0.*: callbacks\.sscu needs validation persons"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    SSCU(memory=0.0).check(config, None)  # type: ignore[arg-type]


# client half


def test_the_first_prototypes_come_from_the_received_model_in_eval_mode() -> None:
    callback, client = begun()
    model = step_parts.make_client().eval()
    images = torch.cat([batch.images for batch in Data().stored_images()]).float() / 255
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    units = F.normalize(model.backbone((images - mean) / deviation), dim=1)
    wanted = torch.stack([units[0], units[1], F.normalize(units[2] + units[3], dim=0)])
    assert callback._prototypes is not None and client.backbone.training
    torch.testing.assert_close(callback._prototypes, wanted)


@pytest.mark.parametrize("memory", [1.0, 0.25])
def test_the_memory_replaces_the_head_for_both_models(memory: float) -> None:
    callback, client = begun(memory=memory, **WITHOUT_DACS)
    batch, prototypes = step_parts.make_batch(), callback._prototypes
    assert prototypes is not None
    loss = client.training_step(batch, 0)
    model = step_parts.make_client(dropout=0.0)
    features = model.backbone(batch.images)
    units = F.normalize(features, dim=1)
    wanted = memory * F.cross_entropy(units @ prototypes.t() / 0.05, batch.labels)
    wanted = wanted + (1 - memory) * F.cross_entropy(model.head(features), batch.labels)
    torch.testing.assert_close(loss, 2 * wanted, rtol=1e-4, atol=1e-5)
    loss.backward()
    assert all(value.grad is not None for value in client.parameters()), "every parameter is in the step"


def test_transformed_images_are_classified_by_the_head_and_update_the_prototypes() -> None:
    callback, client = begun(diversity=0.0, authenticity=0.0)
    batch, first = step_parts.make_batch(), callback._prototypes
    assert first is not None and callback._stylist.style is not None
    view = callback._stylist.view(batch.images).detach()
    loss = client.training_step(batch, 0)
    model = step_parts.make_client(dropout=0.0)
    own = memory_loss(model.backbone(batch.images), first, batch.labels)
    styled = model.backbone(view)
    torch.testing.assert_close(loss, 2 * own + F.cross_entropy(model.head(styled), batch.labels), rtol=1e-4, atol=1e-5)
    moved = updated_memory(first, styled, batch.labels)
    assert callback._working is not None
    torch.testing.assert_close(callback._working, moved)
    later = client.training_step(batch, 1)  # classified by the updated prototypes
    assert not torch.equal(later, loss)


def test_a_turns_memory_is_used_only_if_its_round_improved_the_model() -> None:
    callback, client = begun(round=3)
    client.training_step(step_parts.make_batch(), 0)
    callback.on_train_end(TRAINER, client)
    kept = callback.client_state_dict()
    memory = kept["memory"]
    assert memory["round"] == 3 and not torch.equal(memory["candidate"], memory["prototypes"])
    for accepted, wanted in ((3, "candidate"), (2, "prototypes"), (0, "prototypes"), (4, "prototypes")):
        later, _ = begun(round=5, accepted=accepted, kept=kept)
        assert later._prototypes is not None and torch.equal(later._prototypes, memory[wanted])
        assert later._working is not None and torch.equal(later._working, memory[wanted])


@pytest.mark.parametrize("size", [1, 2, 7])
def test_batches_of_any_size(size: int) -> None:
    _, client = begun()
    for layer in client.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.eval()  # needs more than one image
    client.training_step(step_parts.make_batch(size), 0).backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in client.parameters())


def test_with_weights_of_zero_the_federated_model_equals_fedpavs_to_the_bit(tiny_root: Path, tmp_path: Path) -> None:
    def run(name: str, *words: str) -> Any:
        more = ("trainer.accelerator=cpu", "rounds=3", f"data.datasets=[{support.TINY[0]}]", "data.val_ids=0.2")
        loop = train(compose(support.quick(tiny_root, tmp_path / name, *more, *words)), tmp_path / name)
        return loop.context.models["global"]

    zeros = [f"callbacks.sscu.{option}=0" for option in ("memory", *WITHOUT_DACS)]
    wanted = run("fedpav", "exp=fedpav")
    support.assert_equal(run("zero", "exp=sscu", *zeros), wanted)
    more = run("more", "exp=sscu")
    assert list(more) == list(wanted) and not torch.equal(more["bottleneck.0.weight"], wanted["bottleneck.0.weight"])
    (path,) = (tmp_path / "more").rglob("clients/*/round-00003.pt")
    kept = read_state(path)["callbacks"]["sscu"]
    assert set(kept) == {"expert", "style", "memory"} and kept["memory"]["prototypes"].shape[1] == 512


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("memory", 1.1),
        ("momentum", 1.0),
        ("temperature", 0.0),
        ("weight", -1.0),
        ("diversity", math.nan),
        ("authenticity", math.inf),
        ("first_round", 0),
        ("least_probability", 1.0),
    ],
)
def test_invalid_values_are_refused(option: str, value: float) -> None:
    with pytest.raises(FedReIDError, match=rf"^callbacks\.sscu\.{option}="):
        SSCU(**{option: value})  # type: ignore[arg-type]
