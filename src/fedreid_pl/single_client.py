"""Builds one client of a federation as a LightningModule and a LightningDataModule, for the user's own Trainer."""

from __future__ import annotations

from typing import NamedTuple

from fedreid_pl.client import ReIDClient
from fedreid_pl.config import Config
from fedreid_pl.data.datamodule import ReIDDataModule
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.data.images import ImagePool
from fedreid_pl.errors import FedReIDError, nearest
from fedreid_pl.functional.randomness import derive_seed, generator
from fedreid_pl.metrics.tested_module import retrieval_options
from fedreid_pl.models.ide import build_head
from fedreid_pl.start import initial_backbone


class LoneClient(NamedTuple):
    """Holds the model and the data of one client."""

    module: ReIDClient
    datamodule: ReIDDataModule


def lone_client(config: Config, data: FederatedData, name: str) -> LoneClient:
    """Returns one client for your own Trainer, without federation, messages and callbacks of fedreid_pl.

    The module has the initial weights of a run of `config`. `trainer.fit(module, datamodule)` trains the module on the
    client's images with the settings of `config.optim` and `config.loss`. `trainer.test(module, datamodule)` fills
    `module.scores`, a dictionary by test set and metric. Create the Trainer with `use_distributed_sampler=False`,
    because the datamodule distributes the batches itself.

    Args:
        config: see `fedreid_pl.configure`.
        data: see `fedreid_pl.read_data`.
        name: name of the client.

    Raises:
        FedReIDError: if the client does not exist, or the initial weights cannot be loaded.
    """
    if name not in data.clients:
        raise FedReIDError(f"client {name}: no such client{nearest(name, list(data.clients))}")
    backbone, c = initial_backbone(config), config.data
    pool = ImagePool(c.height, c.width, c.cache, config.trainer.devices, c.workers)
    datamodule = ReIDDataModule(data.clients[name], data.tests_of(name), pool, c, config.batch_size)
    datamodule.begin_turn(derive_seed(config.seed, 1, name))
    draws = generator(config.seed, name, "head")
    head = build_head(backbone.feature_dim, datamodule.num_identities, draws, bias=backbone.head_bias)
    options = retrieval_options(config)
    module = ReIDClient(backbone, head, config.optim, loss=config.loss, retrieval_options=options, seed=config.seed)
    return LoneClient(module, datamodule)
