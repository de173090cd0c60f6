"""Implements `train dry_run=true`: checks a run and prints the plan without training."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from fedreid_pl.config import Config
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.data.minireid import is_drawn
from fedreid_pl.data.minireid.lessons import LESSONS
from fedreid_pl.experiment import check_experiment
from fedreid_pl.federation.client.trainer import quiet
from fedreid_pl.functional.schedule import run_factors
from fedreid_pl.models.weights import Backbone
from fedreid_pl.reporting.introduction import introduce
from fedreid_pl.reporting.loggers import make_observer
from fedreid_pl.reporting.status import Status
from fedreid_pl.reporting.tables import text_table
from fedreid_pl.reporting.terminal import columns, say
from fedreid_pl.resume import check_folder
from fedreid_pl.start import CHOSEN, DRAWN, start_file


def dry_run(config: Config, folder: Path) -> str:
    """Runs all checks that `train` runs before its first round, and returns the plan of the run as text.

    The function leaves no files. Data that are missing on this machine (MiniReID, ImageNet weights, indexes of large
    datasets) go to a temporary folder.

    Raises:
        FedReIDError: for every error that `train` would report.
    """
    quiet()
    with TemporaryDirectory() as place, _nothing_kept(config, Path(place)) as changed:
        checked = check_experiment(changed, folder, Status(), say)
        done = check_folder(config, folder, checked.data.digests)
        make_observer(config, Path(place))
        introduce(config, checked.data, folder)
    begins = f"would resume after round {done}" if done else "would start"
    return "\n\n".join(
        [
            _clients(checked.data),
            _sizes(checked.backbone, checked.data),
            _rates(config),
            f"Dry run: nothing was trained or written. The run {begins} in {folder}",
        ]
    )


@contextmanager
def _nothing_kept(config: Config, place: Path) -> Iterator[Config]:
    """Yields the configuration with temporary folders for generated, downloaded and indexed files."""
    data = replace(config.data, cache_dir=str(place))
    if data.source == "minireid" and data.root is None and not is_drawn(data.minireid_dir, data.version):
        data.minireid_dir = str(place / "minireid")
    weights = config.model.weights
    if weights == DRAWN and config.model.name == "small" and not start_file(LESSONS[CHOSEN]).exists():
        weights = "none"  # skips the pretraining, which takes a minute and does not change the network's size
    if weights == "imagenet" and config.model.name.startswith("timm:"):
        weights = "none"  # timm would download into its own cache
    hub = Path(torch.hub.get_dir())
    downloads = place / "hub" / "checkpoints"
    downloads.mkdir(parents=True)
    for file in (hub / "checkpoints").glob("*"):
        (downloads / file.name).symlink_to(file.resolve())
    torch.hub.set_dir(place / "hub")
    try:
        yield replace(config, data=data, model=replace(config.model, weights=weights))
    finally:
        torch.hub.set_dir(hub)


def _clients(data: FederatedData) -> str:
    rows = []
    for client in data.clients.values():
        tests = data.tests_of(client.name).values()
        queries, gallery = sum(len(test.query) for test in tests), sum(len(test.gallery) for test in tests)
        numbers = (client.train.num_identities(), len(client.train), queries, gallery)
        rows.append([client.name, *(f"{number:,}" for number in numbers)])
    for name, test in data.unseen.items():
        rows.append([f"{name} (unseen)", "-", "-", f"{len(test.query):,}", f"{len(test.gallery):,}"])
    header = ["client", "identities", "training images", "query images", "gallery images"]
    return text_table(header, rows, width=columns(sys.stdout))


def _sizes(backbone: Backbone, data: FederatedData) -> str:
    weights = sum(value.numel() for value in backbone.parameters())
    megabytes = sum(value.numel() * value.element_size() for value in backbone.state_dict().values()) / 1e6
    heads = [backbone.feature_dim * client.train.num_identities() for client in data.clients.values()]
    public = f"; public set {data.public.name}: {len(data.public):,} images" if data.public is not None else ""
    return (
        f"Backbone: {weights:,} parameters, {megabytes:,.2f} MB; heads: {min(heads):,} to {max(heads):,} "
        f"parameters{public}"
    )


def _rates(config: Config) -> str:
    factors = run_factors(config.optim, config.rounds, config.epochs_per_round)
    optim = config.optim
    rows = [
        [name, *(f"{rate * factor:.3g}" for factor in (factors[0], factors[-1]))]
        for name, rate in (("backbone", optim.lr_backbone), ("head", optim.lr_head))
    ]
    header = [f"learning rate ({optim.schedule})", "first epoch", f"last epoch (round {config.rounds})"]
    return text_table(header, rows, width=columns(sys.stdout))
