"""Federated person re-identification on PyTorch Lightning.

run = fedreid_pl.train("fedpav_rw", rounds=4)
run.scores()
model = run.load()
features = model.embed("pictures/")

Public names are imported when they are first used, because torch takes seconds to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedreid_pl.client import ReIDClient as ReIDClient
    from fedreid_pl.config import Config as Config
    from fedreid_pl.data.federated import ClientData as ClientData
    from fedreid_pl.data.federated import FederatedData as FederatedData
    from fedreid_pl.data.federated import TestSet as TestSet
    from fedreid_pl.data.readers.layout import Layout as Layout
    from fedreid_pl.data.readers.layout import ReadOptions as ReadOptions
    from fedreid_pl.data.samples import SampleTable as SampleTable
    from fedreid_pl.errors import FedReIDError as FedReIDError
    from fedreid_pl.federation.callback import FederationCallback as FederationCallback
    from fedreid_pl.federation.messages import ClientJob as ClientJob
    from fedreid_pl.federation.messages import ClientUpdate as ClientUpdate
    from fedreid_pl.federation.messages import DeclaredTensor as DeclaredTensor
    from fedreid_pl.federation.method import Method as Method
    from fedreid_pl.federation.server.context import RoundContext as RoundContext
    from fedreid_pl.federation.server.loop import FederationLoop as FederationLoop
    from fedreid_pl.metrics.retrieval import ReIDRetrieval as ReIDRetrieval
    from fedreid_pl.retrieval.gallery import Gallery as Gallery
    from fedreid_pl.retrieval.loading import load as load
    from fedreid_pl.retrieval.model import ReIDModel as ReIDModel
    from fedreid_pl.runs import Run as Run
    from fedreid_pl.runs import configure as configure
    from fedreid_pl.runs import read_data as read_data
    from fedreid_pl.runs import read_run as read_run
    from fedreid_pl.runs import train as train
    from fedreid_pl.single_client import lone_client as lone_client

__version__ = "0.1.0"

_PUBLIC = {
    "ClientData": "data.federated",
    "ClientJob": "federation.messages",
    "ClientUpdate": "federation.messages",
    "Config": "config",
    "DeclaredTensor": "federation.messages",
    "FedReIDError": "errors",
    "FederatedData": "data.federated",
    "FederationCallback": "federation.callback",
    "FederationLoop": "federation.server.loop",
    "Gallery": "retrieval.gallery",
    "Layout": "data.readers.layout",
    "Method": "federation.method",
    "ReIDClient": "client",
    "ReIDModel": "retrieval.model",
    "ReIDRetrieval": "metrics.retrieval",
    "ReadOptions": "data.readers.layout",
    "RoundContext": "federation.server.context",
    "Run": "runs",
    "SampleTable": "data.samples",
    "TestSet": "data.federated",
    "configure": "runs",
    "load": "retrieval.loading",
    "lone_client": "single_client",
    "read_data": "runs",
    "read_run": "runs",
    "train": "runs",
}
"""Public names and the modules that define them."""

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'fedreid_pl' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(f"fedreid_pl.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    """Returns the names of the module, including public names that are not imported yet."""
    return sorted({*globals(), *_PUBLIC})
