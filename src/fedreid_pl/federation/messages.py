"""What travels between server and client: tensors and plain values, nothing else."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedreid_pl.federation.storage import decode

State = dict[str, Tensor]
Plain = int | float | bool | str


class RejectedUpdate(Exception):
    """An update that may not touch the model; the message says why."""


@dataclass(frozen=True)
class ClientJob:
    """What the server sends: train (or evaluate) this backbone.

    Args:
        round: number of the round, from 1; 0 is the evaluation before training.
        client: name of the addressee.
        backbone: the exchanged tensors; empty if nothing is exchanged.
        config: plain values for the client halves of callbacks.
        extras: further tensors that an algorithm exchanges, such as SCAFFOLD's control variates.
    """

    round: int
    client: str
    backbone: State = field(default_factory=dict)
    config: dict[str, Plain] = field(default_factory=dict)
    extras: State = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_address(self.round, self.client)
        _check_plain(self.config, (int, float, bool, str), "job config")
        _check_tensors(self.backbone, "a backbone")
        _check_tensors(self.extras, "extras")

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors, the part that counts on the wire."""
        return state_bytes(self.backbone) + state_bytes(self.extras)


@dataclass(frozen=True)
class ClientUpdate:
    """What the client sends back: its backbone, how many images it trained on, and plain numbers.

    Args:
        round, client: of the job that it answers.
        backbone: the exchanged tensors after training; empty if nothing is exchanged. At the server they may lie on
            the disk, so a tensor that is read twice is read twice.
        num_samples: n_k, training images of the client.
        metrics: numbers by name, e.g. `cosine_distance`, `train/loss`, `test/mini-viper/rank1`.
        extras: the answer to the job's extras: as many tensors, of the same names, shapes and dtypes.
    """

    round: int
    client: str
    backbone: Mapping[str, Tensor]
    num_samples: int
    metrics: dict[str, float]
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_address(self.round, self.client)
        if not isinstance(self.num_samples, int):
            raise TypeError(f"num_samples is {type(self.num_samples).__name__}, not a number of images")
        _check_plain(self.metrics, (int, float), "update metric")
        _check_tensors(self.backbone, "a backbone")
        _check_tensors(self.extras, "extras")

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors, the part that counts on the wire."""
        return state_bytes(self.backbone) + state_bytes(self.extras)

    def scores(self) -> Iterator[tuple[str, str, float]]:
        """(test set, metric, value) of every number under `test/`."""
        for name, value in self.metrics.items():
            if name.startswith("test/"):
                test, _, metric = name.removeprefix("test/").rpartition("/")
                yield test, metric, value


@dataclass(frozen=True)
class ClientFailure:
    """In place of an update: this client could not finish its turn.

    Args:
        round, client: of the job that it answers.
        reason: the kind of failure, which the server may keep: nothing in it is the client's.
        detail: the error in its own words, which may name files; for the screen where it happened, saved nowhere.
        final: the same job would fail in the same way, there is no sense in asking again.
    """

    round: int
    client: str
    reason: str
    detail: str = ""
    final: bool = False


def state_bytes(state: Mapping[str, Tensor]) -> int:
    """Bytes of all tensors of a state dict."""
    return sum(value.numel() * value.element_size() for value in state.values())


def to_bytes(message: ClientJob | ClientUpdate) -> bytes:
    """The message as bytes that `from_bytes` reads without running any code."""
    buffer = io.BytesIO()
    fields = {"kind": type(message).__name__, **vars(message)}
    for part in ("backbone", "extras"):  # cloned: a view would take all along
        fields[part] = {name: value.detach().clone() for name, value in fields[part].items()}
    torch.save(fields, buffer)
    return buffer.getvalue()


def from_bytes(data: bytes) -> ClientJob | ClientUpdate:
    """Reads a message back.

    Raises:
        RejectedUpdate: if the bytes are not a message.
    """
    try:
        fields = decode(data)
        kind = {"ClientJob": ClientJob, "ClientUpdate": ClientUpdate}[fields.pop("kind")]
        return kind(**fields)
    except Exception as error:  # whatever a hostile sender makes of the bytes
        raise RejectedUpdate(f"is not a message ({type(error).__name__})") from error


def _check_address(round: object, client: object) -> None:
    if type(round) is not int or type(client) is not str:
        raise TypeError(f"a message is of a round and a client, not {type(round).__name__} and {type(client).__name__}")


def _check_plain(values: Mapping[str, object], kinds: tuple[type, ...], what: str) -> None:
    for name, value in values.items():
        if type(name) is not str or type(value) not in kinds:
            raise TypeError(f"{what} '{name}' is {type(value).__name__}; messages carry plain values only")


def _check_tensors(state: Mapping[str, object], where: str) -> None:
    for name, value in state.items():
        if type(name) is not str or not isinstance(value, Tensor):
            raise TypeError(f"'{name}' in {where} is {type(value).__name__}, not a tensor")
