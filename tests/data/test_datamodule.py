"""Loaders of a client on real files, alone and in a Trainer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from support import TINY
from torchvision.transforms import functional as TF

from fedreid_pl.config import DataConfig
from fedreid_pl.data.datamodule import ReIDDataModule
from fedreid_pl.data.images import ImagePool
from fedreid_pl.data.scenarios import load_federated_data

HEIGHT, WIDTH, BATCH = 32, 16, 8
MARKET = "mini-market1501"
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def module(root, client=MARKET, cache="memory", **options) -> ReIDDataModule:
    """Returns the data of one client of the tiny benchmark, small enough for a loop over pixels."""
    keys = {"pad": 2, "test_batch_size": 16, "cache": cache, **options}
    config = DataConfig(root=str(root), datasets=list(TINY), height=HEIGHT, width=WIDTH, **keys)
    data = load_federated_data(config)
    pool = ImagePool(HEIGHT, WIDTH, cache)
    return ReIDDataModule(data.clients[client], data.tests_of(client), pool, config, BATCH)


def pixels(file) -> np.ndarray:
    with Image.open(file) as image:
        return np.array(image.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


def normalised(file) -> torch.Tensor:
    return TF.normalize(TF.to_tensor(Image.fromarray(pixels(file))), MEAN, STD)


def files_by_pixels(root, client, folder) -> dict[bytes, Path]:
    files = sorted((root / client / folder).iterdir())
    known = {pixels(file).tobytes(): file for file in files}
    assert len(known) == len(files)  # otherwise the lookup is ambiguous
    return known


def lookup(known, image) -> Path:
    return known[image.permute(1, 2, 0).contiguous().numpy().tobytes()]


# training


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_training_batches_pair_each_image_with_its_person(tiny_root, cache):
    datamodule = module(tiny_root, cache=cache)
    datamodule.begin_turn(3)
    known = files_by_pixels(tiny_root, MARKET, "bounding_box_train")
    persons = sorted({int(file.name.split("_")[0]) for file in known.values()})
    loader = datamodule.train_dataloader()
    seen = []
    for batch in loader:
        assert (batch.images.dtype, batch.labels.dtype, batch.share) == (torch.uint8, torch.int64, 1.0)
        assert batch.images.shape[1:] == (3, HEIGHT, WIDTH)
        assert len(batch.images) == len(batch.labels) <= BATCH
        columns = zip(batch.images, batch.labels.tolist(), batch.cameras.tolist(), batch.rows.tolist(), strict=True)
        for image, label, camera, row in columns:
            file = lookup(known, image)
            assert persons[label] == int(file.name.split("_")[0])
            assert file.name.split("_")[1].startswith(f"c{camera}s"), "the file name contains the camera"
            assert datamodule.client.train.files()[row] == str(file)
            seen.append(file)
    assert len(set(seen)) == len(seen) == len(known) - (len(known) % BATCH == 1)
    assert len(loader) == -(-len(seen) // BATCH)
    assert datamodule.num_samples == len(known)
    assert datamodule.num_identities == len(persons)


def test_the_order_depends_on_the_turn(tiny_root):
    datamodule = module(tiny_root)
    orders = []
    for seed in (1, 2, 1):
        datamodule.begin_turn(seed)
        orders.append(torch.cat([batch.labels for batch in datamodule.train_dataloader()]).tolist())
    assert orders[0] == orders[2] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_workers_give_the_same_batches(tiny_root):
    plain, workers = (module(tiny_root, "mini-viper", "none", workers=count) for count in (0, 1))
    batches = [list(datamodule.train_dataloader()) for datamodule in (plain, workers)]
    for batch, same in zip(*batches, strict=True):
        assert batch.share == same.share and batch.part is same.part is None
        assert all(torch.equal(*pair) for pair in zip(batch[:4], same[:4], strict=True))


def test_stored_images_are_all_unaugmented_images_in_row_order(tiny_root):
    datamodule = module(tiny_root, test_batch_size=7)
    known = files_by_pixels(tiny_root, MARKET, "bounding_box_train")
    batches = list(datamodule.stored_images())
    rows = torch.cat([batch.rows for batch in batches])
    assert rows.tolist() == list(range(datamodule.num_samples)) and len(batches[0].rows) == 7
    files = [lookup(known, image) for batch in batches for image in batch.images]
    assert [str(file) for file in files] == datamodule.client.train.files()
    assert torch.cat([batch.labels for batch in batches]).tolist() == datamodule.client.train.labels().tolist()
    assert torch.cat([batch.cameras for batch in batches]).tolist() == datamodule.client.train.cameras.tolist()


# the probe


def test_probe_batch_is_drawn_per_turn_and_not_augmented(tiny_root):
    datamodule = module(tiny_root, probe_size=10)
    device = torch.device("cpu")
    known = [normalised(file) for file in sorted((tiny_root / MARKET / "bounding_box_train").iterdir())]
    known = torch.stack(known).flatten(1)
    draws = []
    for seed in (4, 5, 4):
        datamodule.begin_turn(seed)
        batch = datamodule.probe_batch(device)
        assert (tuple(batch.shape), batch.dtype) == ((10, 3, HEIGHT, WIDTH), torch.float32)
        distance = (batch.flatten(1)[:, None] - known).abs().amax(2)
        assert (distance.amin(1) < 1e-5).all()
        draws.append(distance.argmin(1).tolist())
        assert len(set(draws[-1])) == 10
        assert torch.equal(datamodule.probe_batch(device), batch)
    assert draws[0] == draws[2] != draws[1]


def test_the_probe_batch_of_a_small_client_contains_all_its_images(tiny_root):
    datamodule = module(tiny_root, "mini-ilids", probe_size=10_000)
    count = len(list((tiny_root / "mini-ilids" / "bounding_box_train").iterdir()))
    assert len(datamodule.probe_batch(torch.device("cpu"))) == count


# evaluation


def test_test_loaders_are_query_and_gallery_in_row_order(tiny_root):
    datamodule = module(tiny_root)
    datamodule.begin_turn(0)
    query, gallery = datamodule.test_dataloader()
    codes = {-1: -1, 0: -2}
    for loader, folder in ((query, "query"), (gallery, "bounding_box_test")):
        batches = list(loader)
        images, identities, cameras, rows = (torch.cat(column) for column in zip(*batches, strict=True))
        assert [len(batch[0]) for batch in batches[:-1]] == [16] * (len(batches) - 1)
        assert (images.dtype, identities.dtype, cameras.dtype, rows.dtype) == (torch.uint8, *[torch.int64] * 3)
        assert rows.tolist() == list(range(len(images)))
        known = files_by_pixels(tiny_root, MARKET, folder)
        found = [lookup(known, image).name for image in images]
        assert sorted(found) == sorted(file.name for file in known.values())
        for name, identity, camera in zip(found, identities.tolist(), cameras.tolist(), strict=True):
            person, rest = name.split("_c", 1)
            assert identity == codes.get(int(person), int(person))
            assert camera == int(rest.split("s")[0])


def test_a_merged_client_tests_on_all_sets_or_on_those_of_the_turn(tiny_root):
    config = DataConfig(root=str(tiny_root), datasets=list(TINY), scenario="merged", height=HEIGHT, width=WIDTH)
    data = load_federated_data(config)
    pool = ImagePool(HEIGHT, WIDTH, "none")
    datamodule = ReIDDataModule(data.clients["merged"], data.tests_of("merged"), pool, config, BATCH)

    def sizes():
        return [sum(len(batch[3]) for batch in loader) for loader in datamodule.test_dataloader()]

    def on_disk(*names):
        folders = [tiny_root / name / folder for name in names for folder in ("query", "bounding_box_test")]
        return [len(list(folder.iterdir())) for folder in folders]

    assert datamodule.active_tests == TINY
    assert sizes() == on_disk(*TINY)
    datamodule.begin_turn(0, ["mini-ilids", "mini-viper"])
    assert sizes() == on_disk("mini-ilids", "mini-viper")
    datamodule.begin_turn(1)
    assert sizes() == on_disk(*TINY)


# in a Trainer


class Recorder(pl.LightningModule):
    """Records all batches of a module."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.train_batches, self.test_batches = [], {}

    def training_step(self, batch, batch_idx):
        self.train_batches.append((self.current_epoch, *batch[:2]))
        return self.weight.square()

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        self.test_batches.setdefault(dataloader_idx, []).append(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def turn(datamodule, seed, epochs=2) -> Recorder:
    recorder = Recorder()
    datamodule.begin_turn(seed)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(recorder, datamodule=datamodule)
    trainer.test(recorder, datamodule=datamodule, verbose=False)
    return recorder


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers and validation
def test_turns_in_a_trainer(tiny_root):
    datamodule = module(tiny_root, "mini-viper", pad=2, flip=0.5)
    first, again, other = (turn(datamodule, seed) for seed in (1, 1, 2))

    for batch, same in zip(first.train_batches, again.train_batches, strict=True):
        assert torch.equal(batch[1], same[1])
        assert torch.equal(batch[2], same[2])
    assert not all(
        torch.equal(batch[1], same[1]) for batch, same in zip(first.train_batches, other.train_batches, strict=True)
    )

    # the epochs of a turn differ in order, and the same images in their crops
    epochs = [[batch for batch in first.train_batches if batch[0] == epoch] for epoch in (0, 1)]
    orders = [torch.cat([labels for _, _, labels in epoch]).tolist() for epoch in epochs]
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != orders[1]
    pictures = [torch.cat([images for _, images, _ in epoch]).flatten(1) for epoch in epochs]
    originals = torch.stack([normalised(file) for file in datamodule.client.train.files()]).flatten(1)
    unchanged = torch.cdist(torch.cat(pictures), originals).amin(1) < 1e-3
    assert unchanged.float().mean() < 0.5

    # test images are only normalised
    for number, folder in enumerate(("query", "bounding_box_test")):
        files = sorted((tiny_root / "mini-viper" / folder).iterdir())
        images = torch.cat([batch[0] for batch in first.test_batches[number]])
        torch.testing.assert_close(images, torch.stack([normalised(file) for file in files]), rtol=0, atol=1e-5)
        assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.filterwarnings("ignore")
def test_without_augmentation_a_trainer_receives_the_unchanged_images(tiny_root):
    datamodule = module(tiny_root, "mini-viper", pad=0, flip=0.0)
    recorder = turn(datamodule, 0, epochs=1)
    seen = torch.cat([images for _, images, _ in recorder.train_batches]).flatten(1)
    originals = torch.stack([normalised(file) for file in datamodule.client.train.files()]).flatten(1)
    rows = torch.cdist(seen, originals).argmin(1)
    torch.testing.assert_close(seen, originals[rows], rtol=0, atol=1e-5)
    assert sorted(rows.tolist()) == list(range(len(originals)))
    labels = torch.cat([labels for _, _, labels in recorder.train_batches])
    assert labels.tolist() == datamodule.client.train.labels()[rows].tolist()


class Place:
    """The attributes of a Trainer that a data module reads."""

    def __init__(self, rank, world) -> None:
        self.global_rank, self.world_size, self.training = rank, world, True


def test_two_processes_share_the_batches_of_one(tiny_root):
    datamodule = module(tiny_root, "mini-viper")
    datamodule.begin_turn(9)
    whole = list(datamodule.train_dataloader())
    parts = []
    for rank in (0, 1):
        datamodule.trainer = Place(rank, 2)
        parts.append(list(datamodule.train_dataloader()))
    for (images, *_), *pair in zip(whole, *parts, strict=True):
        together = torch.cat([part[0] for part in pair]).flatten(1).tolist()
        assert sorted(together) == sorted(images.flatten(1).tolist())


def test_two_processes_receive_the_augmented_images_of_one(tiny_root):
    """Tests all batches, for different numbers of images."""
    seen = []
    for rank, world in ((0, 1), (0, 2), (1, 2)):
        datamodule = module(tiny_root, pad=3, flip=0.5, jitter=0.3, erasing=0.5)
        datamodule.begin_turn(9)
        datamodule.trainer = Place(rank, world)
        loader = datamodule.train_dataloader()
        seen.append([datamodule.on_after_batch_transfer(batch, 0) for batch in loader])
    sizes = []
    for whole, *parts in zip(*seen, strict=True):
        assert whole.share == 1.0
        for own in parts:
            places = list(own.part.places) if own.part else slice(None)
            assert all(torch.equal(mine, all_[places]) for mine, all_ in zip(own[:4], whole[:4], strict=True))
            assert own.share == (2 * len(own.images) / len(whole.images) if own.part else 1.0)
            sizes.append(len(own.images))
    assert len(seen[0]) > 2 and len(set(sizes)) > 1, sizes
