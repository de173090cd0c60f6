"""The style bank: sent rows, the loss of a step, and equality with FedPav at weight 0."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import step_parts
import support
import torch
from PIL import Image
from torch.nn import functional as F

from fedreid_pl.callbacks.style_bank import MOST_STYLES, StyleBank, _largest
from fedreid_pl.cli import main
from fedreid_pl.config import compose
from fedreid_pl.data.augmentation import MEAN, STD
from fedreid_pl.engines import sequential
from fedreid_pl.errors import FedReIDError
from fedreid_pl.experiment import train
from fedreid_pl.federation.messages import ClientJob, ClientUpdate, RejectedUpdate
from fedreid_pl.federation.server.checks import check_update
from fedreid_pl.functional.batch_part import BatchPart, working_on
from fedreid_pl.functional.style_bank import restyle

ROWS = torch.tensor([[0.2, 0.3, 0.4, 0.01, 0.02, 0.03], [0.9, 0.8, 0.7, 0.05, 0.05, 0.05]])


def server(**options: Any) -> tuple[StyleBank, Any]:
    return StyleBank(**options), SimpleNamespace(clients={"a": 10, "b": 10, "c": 10})


def distributed(callback: StyleBank, federation: Any, client: str) -> ClientJob:
    return callback.on_distribute(federation, support.fit_job(1, client))


def answer(client: str, rows: torch.Tensor) -> ClientUpdate:
    return ClientUpdate(1, client, {}, 5, {}, {"style_bank": rows})


# server half


def test_every_client_is_asked_once_and_the_bank_does_not_depend_on_the_order_of_answers() -> None:
    callback, federation = server()
    callback.on_round_start(federation)
    assert distributed(callback, federation, "a").config["style_bank_ask"] is True
    callback.on_update(federation, answer("b", ROWS[1:]))
    assert len(distributed(callback, federation, "c").extras["style_bank"]) == 0
    callback.on_update(federation, answer("a", ROWS))
    again = StyleBank()
    again.load_state_dict(callback.state_dict())  # a resumed server
    for other in (callback, again):
        other.on_round_start(federation)
        job = distributed(other, federation, "a")
        assert job.config["style_bank_ask"] is False
        assert torch.equal(job.extras["style_bank"], torch.cat([ROWS, ROWS[1:]])), "in the order of the clients"
        assert distributed(other, federation, "c").config["style_bank_ask"] is True
    assert callback.summary() == {"styles": 3, "clients": 2, "epsilon": None, "delta": None}


@pytest.mark.parametrize("options", [{"weight": 0.0}, {"bank": "own"}])
def test_no_client_is_asked_if_no_style_is_shared(options: dict[str, Any]) -> None:
    callback, federation = server(**options)
    callback.on_round_start(federation)
    assert distributed(callback, federation, "a").config["style_bank_ask"] is False


@pytest.mark.parametrize(
    ("client", "rows"),
    [
        ("a", torch.full((1, 6), 0.5)),  # a variance of 0.5
        ("a", torch.tensor([[-0.1, 0.5, 0.5, 0.1, 0.1, 0.1]])),
        ("a", torch.tensor([[0.5, 0.5, 0.5, -0.1, 0.1, 0.1]])),
        ("a", torch.tensor([[1.5, 0.5, 0.5, 0.1, 0.1, 0.1]])),
        ("a", torch.tensor([[math.nan, 0.5, 0.5, 0.1, 0.1, 0.1]])),
        ("a", torch.zeros(1, 7)),
        ("a", torch.zeros(1, 6, dtype=torch.float64)),
        ("a", torch.zeros(MOST_STYLES + 1, 6)),
        ("b", torch.zeros(1, 6)),  # was not asked
    ],
)
def test_invalid_rows_are_refused(client: str, rows: torch.Tensor) -> None:
    callback, federation = server()
    callback.on_update(federation, answer("b", ROWS))
    callback._bank = {"b": ROWS}
    callback.on_round_start(federation)
    job = distributed(callback, federation, client)
    with pytest.raises(RejectedUpdate):
        update = answer(client, rows)
        check_update(update, job, answers=callback.declared_answers(federation, job))
        callback.on_update(federation, update)
    good = answer(client, ROWS if client == "a" else ROWS[:0])
    check_update(good, job, answers=callback.declared_answers(federation, job))
    assert set(callback._bank) == {"b"}


def test_epsilon_is_reported_only_for_secret_noise() -> None:
    assert StyleBank(noise_multiplier=1.0).summary()["epsilon"] == pytest.approx(4.377, abs=1e-3)
    assert StyleBank(noise_multiplier=1.0, noise="seed").summary()["epsilon"] is None


# client half


def begun(rows: torch.Tensor, **options: Any) -> StyleBank:
    """Returns a client half in a turn whose job contains these rows."""
    callback = StyleBank(**options)
    callback._own = ROWS[:1]
    job = support.fit_job(2, "a", extras={"style_bank": rows}, config={"style_bank_ask": False})
    module = SimpleNamespace(job=job, outbox=SimpleNamespace(extras={}), device=torch.device("cpu"), seed=5)
    callback.on_fit_start(None, module)  # type: ignore[arg-type]
    assert len(module.outbox.extras["style_bank"]) == 0
    return callback


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_a_step_adds_the_loss_of_the_images_in_the_drawn_styles(weight: float) -> None:
    batch, callback = step_parts.make_batch(), begun(ROWS[1:], weight=weight)
    client = step_parts.make_client(callback, dropout=0.0)
    plain = step_parts.make_client(dropout=0.0)
    loss = client.training_step(batch, 0)
    style, mean, deviation = ROWS[1].double(), torch.tensor(MEAN).double(), torch.tensor(STD).double()
    images = batch.images.double()
    own = images.mean(dim=(2, 3), keepdim=True), images.var(dim=(2, 3), correction=0, keepdim=True)
    normal = (images - own[0]) / (own[1] + 1e-5).sqrt()
    pixels = normal * style[3:].sqrt().view(3, 1, 1) + style[:3].view(3, 1, 1)  # in 0..1
    view = (pixels - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)
    wanted = F.cross_entropy(plain.logits(batch.images), batch.labels)
    wanted = wanted + weight * F.cross_entropy(plain.logits(view.float()), batch.labels)
    torch.testing.assert_close(loss, wanted)


def test_every_image_draws_a_style_and_parts_draw_like_the_whole_batch() -> None:
    callback, images = begun(torch.cat([ROWS, ROWS.flip(0)])), step_parts.make_batch(20).images
    seen: list[torch.Tensor] = []
    module: Any = SimpleNamespace(
        second_pass=lambda view: seen.append(view) or (None, None, None), supervised_loss=lambda *parts: torch.zeros(())
    )
    batch: Any = SimpleNamespace(images=images, labels=None)
    callback.training_loss(module, batch, None, None, None)  # type: ignore[arg-type]
    means = seen[0].mean(dim=(2, 3))
    assert 1 < len({round(value, 3) for value in means[:, 0].tolist()}) <= 2
    own = [3, 8, 19]
    with working_on(BatchPart(tuple(own), 20)):
        part: Any = SimpleNamespace(images=images[own], labels=None)
        begun(torch.cat([ROWS, ROWS.flip(0)])).training_loss(module, part, None, None, None)  # type: ignore[arg-type]
    torch.testing.assert_close(seen[1], seen[0][own])


def test_before_the_first_bank_a_client_uses_its_own_styles_or_adds_no_loss() -> None:
    own, none = begun(ROWS[:0]), StyleBank()
    torch.testing.assert_close(own._means, (ROWS[:1, :3] - torch.tensor(MEAN)) / torch.tensor(STD))
    assert torch.equal(begun(ROWS, bank="own")._means, own._means)
    client = step_parts.make_client(none, dropout=0.0)
    loss = client.training_step(step_parts.make_batch(), 0)
    assert torch.equal(loss, step_parts.make_client(dropout=0.0).training_step(step_parts.make_batch(), 0))


@pytest.mark.parametrize("size", [1, 2, 7])
def test_batches_of_any_size(size: int) -> None:
    client = step_parts.make_client(begun(ROWS), triplet=1.0)
    for layer in client.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.eval()  # needs more than one image
    client.training_step(step_parts.make_batch(size), 0).backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in client.parameters())


def test_cameras_beyond_the_limit_share_the_last_row() -> None:
    cameras = torch.cat([torch.arange(100), torch.full((5,), 70)])
    groups = _largest(cameras)
    assert groups.unique().tolist() == list(range(MOST_STYLES)) and groups[70] == 0
    assert torch.equal(_largest(cameras[:10] * 3), cameras[:10] * 3)


def test_extreme_rows_of_a_hostile_server_give_finite_images() -> None:
    images = step_parts.make_batch().images
    callback = begun(torch.full((1, 6), -1.0))
    assert restyle(images, callback._means.expand(6, 3), callback._deviations.expand(6, 3)).isfinite().all()


# whole runs


def messages(monkeypatch: pytest.MonkeyPatch) -> list[tuple[ClientJob, ClientUpdate]]:
    """Records every training job with its answer."""
    seen: list[tuple[ClientJob, ClientUpdate]] = []

    class Engine(sequential.SequentialEngine):
        def fit(self, jobs: Any) -> Any:
            kept: dict[str, ClientJob] = {}

            def noted() -> Any:
                for job in jobs:
                    kept[job.client] = job
                    yield job

            for outcome in super().fit(noted()):
                seen.append((kept[outcome.client], outcome))  # type: ignore[arg-type]
                yield outcome

    monkeypatch.setattr(sequential, "SequentialEngine", Engine)
    return seen


def wanted_styles(root: Path, client: str, least: int) -> np.ndarray:
    """Computes the styles from the files with PIL and numpy: all pixels of each camera at once."""
    cameras: dict[int, list[np.ndarray]] = {}
    for path in sorted((root / client / "bounding_box_train").glob("*.jpg")):
        camera = int(path.name.split("_c")[1].split("s")[0])
        with Image.open(path) as image:
            small = image.convert("RGB").resize((32, 64), Image.Resampling.BICUBIC)  # the network's size
            cameras.setdefault(camera, []).append(np.asarray(small, dtype=np.float64) / 255)
    rows = [np.stack(cameras[number]) for number in sorted(cameras) if len(cameras[number]) >= least]
    return np.array([[*pixels.mean(axis=(0, 1, 2)), *pixels.var(axis=(0, 1, 2))] for pixels in rows]).reshape(-1, 6)


def test_a_client_sends_only_its_styles(tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first answer contains six numbers for every camera with enough images; later answers contain none."""
    seen = messages(monkeypatch)
    words = support.quick(tiny_root, tmp_path, "exp=style_bank", "trainer.accelerator=cpu", "local_epochs=1")
    assert main(["train", *words, "callbacks.style_bank.least_images=3"]) == 0
    assert len(seen) == 2 * len(support.TINY)
    bank = []
    for job, update in seen:
        assert set(update.extras) == {"style_bank"}
        rows = update.extras["style_bank"]
        if job.round == 1:
            wanted = wanted_styles(tiny_root, job.client, 3)
            assert len(job.extras["style_bank"]) == 0 and rows.shape == wanted.shape
            np.testing.assert_allclose(rows.numpy(), wanted, rtol=1e-5, atol=1e-7)
            assert rows.untyped_storage().nbytes() == rows.nbytes, "the message contains only the rows"
            bank.append(rows)
        else:
            assert len(rows) == 0 and torch.equal(job.extras["style_bank"], torch.cat(bank))
    counts = [len(rows) for rows in bank]
    assert counts[0] > 1 and 0 in counts, "a client whose cameras have too few images sends none"


def test_noise_differs_between_runs_and_the_noised_styles_are_saved(tiny_root: Path, tmp_path: Path) -> None:
    def bank(name: str, *words: str) -> dict[str, torch.Tensor]:
        more = ("exp=style_bank", "trainer.accelerator=cpu", "rounds=1", *words)
        loop = train(compose(support.quick(tiny_root, tmp_path / name, *more)), tmp_path / name)
        return loop.callbacks["style_bank"].state_dict()["bank"]

    noise = "callbacks.style_bank.noise_multiplier=0.5"
    exact, secret, other = bank("exact"), bank("secret", noise), bank("other", noise)
    for client, rows in exact.items():
        assert rows.shape == secret[client].shape
        if len(rows):
            assert not torch.equal(rows, secret[client]) and not torch.equal(secret[client], other[client])


def test_weight_zero_equals_fedpav_to_the_bit(tiny_root: Path, tmp_path: Path) -> None:
    def run(name: str, *words: str) -> dict[str, torch.Tensor]:
        more = ("trainer.accelerator=cpu", "rounds=2", f"data.datasets=[{support.TINY[0]}]", *words)
        loop = train(compose(support.quick(tiny_root, tmp_path / name, *more)), tmp_path / name)
        return loop.context.models["global"]

    wanted = run("fedpav", "exp=fedpav")
    support.assert_equal(run("zero", "exp=style_bank", "callbacks.style_bank.weight=0"), wanted)
    more = run("more", "exp=style_bank")
    assert list(more) == list(wanted) and not torch.equal(more["bottleneck.0.weight"], wanted["bottleneck.0.weight"])


def test_without_camera_numbers_groups_are_found(tiny_root: Path, tmp_path: Path) -> None:
    """The dataset has a folder per person and file names without cameras."""
    for name in support.TINY[:2]:
        for number, path in enumerate(sorted((tiny_root / name / "bounding_box_train").glob("*.jpg"))):
            target = tmp_path / "data" / name / f"p{path.name.split('_')[0]}" / f"img{number:05d}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    more = (
        "exp=style_bank",
        "trainer.accelerator=cpu",
        "rounds=1",
        "data.public=null",
        "callbacks.style_bank.clusters=3",
    )
    words = support.quick(tmp_path / "data", tmp_path / "run", *more, "callbacks.style_bank.least_images=1")
    words.append(f"data.datasets=[{support.TINY[0]},{support.TINY[1]}]")
    loop = train(compose([*words, "data=crops"]), tmp_path / "run")
    bank = loop.callbacks["style_bank"].state_dict()["bank"]
    assert set(bank) == {f"{name}-no-cameras" for name in support.TINY[:2]}
    assert all(1 <= len(rows) <= 3 for rows in bank.values())


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"weight": -1.0}, "weight=-1.0"),
        ({"weight": math.inf}, "weight=inf"),
        ({"clusters": 0}, "clusters=0"),
        ({"clusters": 65}, "clusters=65"),
        ({"least_images": 0}, "least_images=0"),
        ({"noise_multiplier": -0.1}, "noise_multiplier=-0.1"),
        ({"delta": 1.0}, "delta=1.0"),
        ({"groups": "cluster", "noise_multiplier": 1.0}, "groups=cluster"),
    ],
)
def test_invalid_values_are_refused(options: dict[str, Any], wanted: str) -> None:
    with pytest.raises(FedReIDError, match=rf"^callbacks\.style_bank\.{wanted}: must be "):
        StyleBank(**options)
