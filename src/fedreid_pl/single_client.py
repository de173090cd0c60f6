"""One client of a federation as a LightningModule and a LightningDataModule, for a Trainer of the user's own."""

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
    """Model and data of one client."""

    module: ReIDClient
    datamodule: ReIDDataModule


def lone_client(config: Config, data: FederatedData, name: str) -> LoneClient:
    """Returns one client for a Trainer of your own: no federation, no messages, no callbacks of fedreid_pl.

    The module begins with the weights that a run of `config` begins with. `trainer.fit(module, datamodule)` trains it
    on the client's images by `config.optim` and `config.loss`. `trainer.test(module, datamodule)` fills
    `module.scores`, by test set and metric. Give the Trainer `use_distributed_sampler=False`: the datamodule deals out
    batches itself.

    Args:
        config: see `fedreid_pl.configure`.
        data: see `fedreid_pl.read_data`.
        name: of the client.

    Raises:
        FedReIDError: if there is no such client, or the weights cannot be had.
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
