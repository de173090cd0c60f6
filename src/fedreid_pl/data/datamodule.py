"""The loaders of one client: training batches, query and gallery, and the probe batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from fedreid_pl.config import DataConfig
from fedreid_pl.data.augmentation import TrainAugmentation, normalize
from fedreid_pl.data.batch import TrainBatch
from fedreid_pl.data.federated import ClientData, TestSet
from fedreid_pl.data.identity_sampling import IdentityBatches
from fedreid_pl.data.images import ImagePool, ImageSource
from fedreid_pl.data.loading import Batched, BatchLoader
from fedreid_pl.data.samples import SampleTable
from fedreid_pl.data.sampling import BatchRows, StepBatches, TestBatches, TrainBatches
from fedreid_pl.functional.randomness import derive_seed, generator


class TrainImages:
    """Training images by batch: `BatchRows` -> `TrainBatch` with uint8 images.

    Args:
        source: the client's training images.
        labels: `[N]` int64, the label of every image.
        cameras: `[N]` int64, the camera of every image.
    """

    def __init__(self, source: ImageSource, labels: Tensor, cameras: Tensor) -> None:
        self.source, self.labels, self.cameras = source, labels, cameras

    def __getitems__(self, batch: BatchRows) -> TrainBatch:
        index = torch.as_tensor(batch.rows)
        images = self.source.read(index)
        return TrainBatch(images, self.labels[index], self.cameras[index], index, batch.share, batch.part)


class TestImages:
    """Query or gallery by batch: rows -> (uint8 images, identities, cameras, row numbers)."""

    __test__ = False  # pytest must not collect this class

    def __init__(self, source: ImageSource, table: SampleTable) -> None:
        self.source = source
        self.identities = torch.from_numpy(table.identities)
        self.cameras = torch.from_numpy(table.cameras)

    def __getitems__(self, rows: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        index = torch.as_tensor(rows)
        return self.source.read(rows), self.identities[index], self.cameras[index], index


class ReIDDataModule(pl.LightningDataModule):
    """Data of one client for all rounds; `begin_turn` sets the seed and the test sets of a turn.

    Images are transferred to the device as uint8 and augmented and normalised there (`on_after_batch_transfer`). With
    several processes, each process gets its part of every training batch and its own test batches. Lightning must
    therefore not add a sampler (`use_distributed_sampler=False`).

    Args:
        client: training images and labels.
        tests: test sets of the client by name.
        pool: shared image sources.
        config: the `data` section.
        batch_size: training images per step over all processes.
        steps: number of batches of a turn, drawn by `StepBatches`; `None` makes an epoch one pass over the images.
        unseen: test sets that no client trains or validates on; they are evaluated only in turns that name them.
    """

    def __init__(
        self,
        client: ClientData,
        tests: Mapping[str, TestSet],
        pool: ImagePool,
        config: DataConfig,
        batch_size: int,
        steps: int | None = None,
        unseen: Mapping[str, TestSet] | None = None,
    ) -> None:
        super().__init__()
        self.client, self.tests, self.pool, self.config = client, {**tests, **(unseen or {})}, pool, config
        self.batch_size, self.steps = batch_size, steps
        self.own_tests = self.active_tests = tuple(tests)
        self._labels = torch.from_numpy(client.train.labels())
        self._cameras = torch.from_numpy(client.train.cameras)
        self._seed = 0
        self._augment: TrainAugmentation | None = None

    @property
    def num_samples(self) -> int:
        """Number of training images, n_k."""
        return len(self.client.train)

    @property
    def num_identities(self) -> int:
        """Number of training identities, which is the size of the client's head."""
        return self.client.train.num_identities()

    def begin_turn(self, seed: int, tests: Iterable[str] | None = None) -> None:
        """Sets the seed of shuffling, augmentation and probe batch, and the test sets to load (`None`: its own)."""
        self._seed = seed
        self._augment = None
        self.active_tests = self.own_tests if tests is None else tuple(tests)

    def train_dataloader(self) -> BatchLoader:
        """Returns the loader of training batches from `TrainBatches`, `IdentityBatches` or `StepBatches`."""
        rank, world = self._place()
        source = self.pool.source(self.client.train)
        batches: TrainBatches | IdentityBatches
        if self.config.instances is None:
            skip = self.config.incomplete_batches == "skip"
            batches = TrainBatches(self.num_samples, self.batch_size, self._seed, rank, world, skip)
        else:
            labels = self._labels.tolist()
            batches = IdentityBatches(labels, self.batch_size, self.config.instances, self._seed, rank, world)
        drawn = batches if self.steps is None else StepBatches(batches, self.steps)
        return self._loader(TrainImages(source, self._labels, self._cameras), drawn, source)

    def test_dataloader(self) -> list[BatchLoader]:
        """Returns query and gallery loader of every active test set: `[query 0, gallery 0, query 1, ...]`."""
        rank, world = self._place()
        loaders = []
        for name in self.active_tests:
            for table in (self.tests[name].query, self.tests[name].gallery):
                source = self.pool.source(table)
                batches = TestBatches(len(table), self.config.test_batch_size, rank, world)
                loaders.append(self._loader(TestImages(source, table), batches, source))
        return loaders

    def probe_batch(self, device: torch.device, augmented: bool = False) -> Tensor:
        """Returns normalised training images `[<= probe_size, 3, H, W]`, drawn once per turn.

        With `augmented` they are augmented as in training, with a separate seed.
        """
        order = torch.randperm(self.num_samples, generator=generator(self._seed, "probe"))
        rows = order[: self.config.probe_size].tolist()
        images = self.pool.source(self.client.train).read(rows).to(device)
        if not augmented:
            return normalize(images)
        c, seed = self.config, derive_seed(self._seed, "probe", "augment")
        return TrainAugmentation(c.pad, c.flip, c.erasing, c.jitter, seed)(images)

    def stored_images(self) -> Iterator[TrainBatch]:
        """Yields batches of all training images as uint8, without augmentation, in the order of their rows."""
        source = self.pool.source(self.client.train)
        for start in range(0, self.num_samples, self.config.test_batch_size):
            rows = torch.arange(start, min(start + self.config.test_batch_size, self.num_samples))
            yield TrainBatch(source.read(rows.tolist()), self._labels[rows], self._cameras[rows], rows)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Returns the batch with its tensors on `device`; the transfer is asynchronous."""
        parts = [part.to(device, non_blocking=True) if isinstance(part, Tensor) else part for part in batch]
        return TrainBatch._make(parts) if isinstance(batch, TrainBatch) else tuple(parts)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Augments (training) or only normalises (test) the batch's images on their device."""
        if isinstance(batch, TrainBatch):
            if self._augment is None:
                c, seed = self.config, derive_seed(self._seed, "augment", 0)  # the same seed in all processes
                self._augment = TrainAugmentation(c.pad, c.flip, c.erasing, c.jitter, seed)
            return batch._replace(images=self._augment(batch.images, batch.part))
        images, *rest = batch
        return normalize(images), *rest

    def _place(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _loader(self, dataset: Batched, batches: Any, source: ImageSource) -> BatchLoader:
        return BatchLoader(dataset, batches, self.pool.readers(source), 2 * max(self.pool.workers, 1))
