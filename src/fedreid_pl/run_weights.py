"""Loads initial weights from a run folder: `model.weights=RUN`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from fedreid_pl.config import Config, check_run_folder, load_config
from fedreid_pl.data.federated import FederatedData
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.client.store import ClientStore
from fedreid_pl.federation.storage import read_state
from fedreid_pl.functional.fingerprint import fingerprint_of
from fedreid_pl.models.exchange import exchanges_all
from fedreid_pl.reporting.summary_file import read_splits, read_summary


class RunWeights(NamedTuple):
    """The model of a run, used as initial weights.

    Args:
        name: name of the model, without any path.
        backbone: the value of `model.name` in the run.
        tensors: state dict of the model.
    """

    name: str
    backbone: str
    tensors: dict[str, Tensor]

    @property
    def sha256(self) -> str:
        """Returns the hash of the model, as in the headers of feature files and exported files."""
        return fingerprint_of(self.tensors)


def find_run(weights: str) -> tuple[Path, str] | None:
    """Returns the run folder and the round (`last`, `best` or a number) of a value of `model.weights`.

    Returns `None` if the value is not `RUN`, `RUN@ROUND` or `RUN/checkpoints/round-N.ckpt`.

    Raises:
        FedReIDError: if the folder is not a run folder.
    """
    path = Path(weights).expanduser()
    if found := re.fullmatch(r"round-(\d+)\.ckpt", path.name):
        folder = path.parent.parent
        if path.parent.name == "checkpoints" and (folder / "config.yaml").is_file():
            return folder, found[1]
    if path.is_dir():
        return _run(path, weights), "last"
    base, at, which = weights.rpartition("@")
    if at and Path(base).expanduser().is_dir() and not path.exists():
        return _run(Path(base).expanduser(), weights), which
    return None


def read_run(folder: Path, which: str, source: str) -> RunWeights:
    """Returns the model of a run: the server's model, or the model of the only client if the server has none.

    Args:
        folder: folder of the run.
        which: `last`, `best`, or the number of a round.
        source: name of the run in messages, such as `model.weights=RUN`.

    Raises:
        FedReIDError: if the checkpoint does not exist, or the run has several models.
    """
    config = load_config(folder / "config.yaml")
    round = _round(folder, which, source)
    state = read_state(folder / "checkpoints" / f"round-{round:05d}.ckpt")
    models = state.get("models")
    if not isinstance(models, dict):
        raise FedReIDError(f"{source}: round {round} is not a checkpoint of a server")
    tensors = models.get("global") if models else _only_client(folder, round, source)
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise _several(source, "one model per cluster")
    if models and not exchanges_all(_sync(config)):
        raise _several(source, "clients that keep a part of the backbone to themselves")
    return RunWeights(f"{config.name} on {config.data.name}, round {round}", config.model.name, tensors)


def check_unseen(weights: str | None, data: FederatedData) -> None:
    """Checks that the run of the initial weights did not train on a dataset of `data.leave_out`.

    Args:
        weights: value of `model.weights`.
        data: data of the new run.

    Raises:
        FedReIDError: if the run trained on such a dataset; the message names the dataset.
    """
    found = find_run(weights) if weights not in ("imagenet", "none", "drawn", None) and data.unseen else None
    for name, split in read_splits(found[0]).items() if found else ():
        if name in data.unseen and split.get("train"):
            raise FedReIDError(
                f"data.leave_out={name}: the run in model.weights={weights} was trained with this dataset; start from "
                "other weights, or from a run that left this dataset out"
            )


def _run(folder: Path, weights: str) -> Path:
    hint = "; give the folder of a run of fedreid-pl train, or a weights file"
    check_run_folder(folder, f"model.weights={weights}: ", hint)
    return folder


def _round(folder: Path, which: str, source: str) -> int:
    names = (folder / "checkpoints").glob("round-*.ckpt")
    held = sorted(int(found[1]) for name in names if (found := re.fullmatch(r"round-(\d+)\.ckpt", name.name)))
    if not held:
        raise FedReIDError(f"{source}: this run has no checkpoint yet; train it first")
    if which == "last":
        return held[-1]
    number = (read_summary(folder) or {}).get("best_round") if which == "best" else which
    if not re.fullmatch(r"[0-9]+", str(number), re.ASCII) or int(str(number)) not in held:
        rounds = ", ".join(map(str, held))
        raise FedReIDError(f"{source}: there is no checkpoint '{which}'; give last, best or one of the rounds {rounds}")
    return int(str(number))


def _only_client(folder: Path, round: int, source: str) -> dict[str, Tensor] | None:
    """Returns the backbone of a run's only client, which is the model of centralized training."""
    clients = sorted(item.name for item in (folder / "clients").glob("*") if item.is_dir())
    if len(clients) != 1:
        raise _several(source, f"{len(clients)} clients and no model at the server")
    kept = ClientStore(folder / "clients", writable=False).load(clients[0], round + 1) or {}
    return kept.get("backbone")


def _several(source: str, what: str) -> FedReIDError:
    return FedReIDError(
        f"{source}: this run has {what}; write one client's model to a file, fedreid-pl export RUN client=NAME "
        "out=FILE.safetensors, and give that file"
    )


def _sync(config: Config) -> dict[str, object]:
    options = config.callbacks.get("backbone_sync")
    return options if isinstance(options, dict) else {}
