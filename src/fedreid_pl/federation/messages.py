"""Messages between server and client: they contain only tensors and plain values."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fedreid_pl.federation.storage import decode

State = dict[str, Tensor]
Plain = int | float | bool | str


JOB_CONFIG: dict[str, type] = {
    "evaluate": bool,
    "tests": str,
    "unseen": bool,
    "inspect": bool,
    "starts_from": int,
    "keeps": str,
}
"""Name and type of the plain values that every job may contain, see `ClientJob`; callbacks declare more."""


class RejectedUpdate(Exception):
    """Raised for an update that must not change the model; the message states the reason."""


class RejectedJob(Exception):
    """Raised for a job that the client refuses to run; the message states the reason."""


@dataclass(frozen=True)
class DeclaredTensor:
    """Declares name, shape, dtype and range of one tensor of a message.

    Args:
        name: name of the tensor among the message's `extras`.
        shape: sizes of the tensor; `None` in first place allows any number of rows.
        dtype: dtype of the tensor.
        bound: largest absolute value.
        most_rows: largest number of rows if the number of rows is free.

    Raises:
        TypeError: if a size other than the first is `None`.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: torch.dtype = torch.float32
    bound: float = math.inf
    most_rows: int = 4096

    def __post_init__(self) -> None:
        if None in self.shape[1:]:
            raise TypeError(
                f"tensor '{self.name}' is declared with shape {self.shape}; only the first size may be None"
            )


@dataclass(frozen=True)
class ClientJob:
    """A job that the server sends to one client.

    Args:
        kind: `fit` (train and return the exchanged entries) or `evaluate` (return scores only).
        session: name of the run at the server; a run that starts again has a new session.
        round: number of the round, from 1; 0 is the evaluation before training.
        attempt: number of the attempt, from 1. It increases when the server repeats a job or returns to an earlier
            round, and never decreases within a session.
        client: name of the client.
        backbone: tensors of the entries in `exchanged`.
        exchanged: names of the backbone's entries that this job and its answer contain.
        config: plain values. The server itself sets `evaluate` (of a `fit` job: also evaluate the trained model),
            `tests` (names of the test sets to evaluate, separated by `/`; without it, the client's own test sets),
            `unseen` (the test sets belong to a place that does not take part, so the client must not use its personal
            state), `inspect` (keep the details behind the scores), `starts_from` (the client starts from its newest
            state of a round up to this one; its later states belong to rounds that the server has lost) and `keeps`
            (rounds to which the server can return, separated by `/`; the client may delete other states). Callbacks add
            further values.
        extras: further tensors that an algorithm exchanges, such as SCAFFOLD's control variates.

    Raises:
        TypeError: if a field has another type, or `exchanged` and `backbone` have different names.
    """

    kind: str
    session: str
    round: int
    attempt: int
    client: str
    backbone: State = field(default_factory=dict)
    exchanged: tuple[str, ...] = ()
    config: dict[str, Plain] = field(default_factory=dict)
    extras: State = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in ("fit", "evaluate"):
            raise TypeError("the kind of a job must be 'fit' or 'evaluate'")
        _check_address(self.round, self.client)
        if type(self.session) is not str or type(self.attempt) is not int:
            raise TypeError("the session of a job must be a string, and its attempt must be an integer")
        _check_plain(self.config, (int, float, bool, str), "the job's value")
        _check_tensors(self.backbone, "backbone")
        _check_tensors(self.extras, "extras")
        if type(self.exchanged) is not tuple or set(self.exchanged) != set(self.backbone):
            raise TypeError("the names in a job's 'exchanged' must be a tuple of exactly the names in its 'backbone'")

    @property
    def nbytes(self) -> int:
        """Size of the tensors in bytes, the part of a message that counts as traffic."""
        return state_bytes(self.backbone) + state_bytes(self.extras)

    def exchanging(self, backbone: State) -> ClientJob:
        """Returns a copy of the job that exchanges exactly these entries of the backbone."""
        return replace(self, backbone=backbone, exchanged=tuple(backbone))


@dataclass(frozen=True)
class ClientUpdate:
    """An update that the client sends back: its backbone, its number of images, and plain numbers.

    Args:
        round, client: round and client of the job.
        backbone: the exchanged entries of the job after training. At the server they may be stored on disk; every
            access to a tensor then reads the tensor again.
        num_samples: n_k, number of the client's training images.
        metrics: numbers by name, such as `cosine_distance`, `train/loss`, `test/mini-viper/rank1`.
        extras: answer to the job's extras: tensors of the same names, shapes and dtypes, except tensors that a callback
            declares (`declared_answers`).

    Raises:
        TypeError: if a field has another type.
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
            raise TypeError(f"num_samples has type {type(self.num_samples).__name__}, expected an integer")
        _check_plain(self.metrics, (int, float), "the update's metric")
        _check_tensors(self.backbone, "backbone")
        _check_tensors(self.extras, "extras")

    @property
    def nbytes(self) -> int:
        """Size of the tensors in bytes, the part of a message that counts as traffic."""
        return state_bytes(self.backbone) + state_bytes(self.extras)

    def scores(self) -> Iterator[tuple[str, str, float]]:
        """Yields test set, metric and value of every number under `test/`."""
        for name, value in self.metrics.items():
            if name.startswith("test/"):
                test, _, metric = name.removeprefix("test/").rpartition("/")
                yield test, metric, value


@dataclass(frozen=True)
class ClientFailure:
    """Replaces the update of a client that could not finish its turn.

    Args:
        round, client: round and client of the job.
        reason: type of the failure. The server may save it, because it contains no data of the client.
        detail: message of the error, which may name files. It is printed where the error occurred and never saved.
        final: whether the same job would fail again, so that the server does not repeat it.
    """

    round: int
    client: str
    reason: str
    detail: str = ""
    final: bool = False


def state_bytes(state: Mapping[str, Tensor]) -> int:
    """Returns the size of all tensors of a state dict in bytes."""
    return sum(value.numel() * value.element_size() for value in state.values())


def to_bytes(message: ClientJob | ClientUpdate) -> bytes:
    """Returns the message as bytes; `from_bytes` reads them without running code from the message."""
    buffer = io.BytesIO()
    fields = {"message": type(message).__name__, **vars(message)}
    for part in ("backbone", "extras"):  # cloned, because torch.save stores the whole storage of a view
        fields[part] = {name: value.detach().clone() for name, value in fields[part].items()}
    torch.save(fields, buffer)
    return buffer.getvalue()


def from_bytes(data: bytes) -> ClientJob | ClientUpdate:
    """Reads a message that `to_bytes` wrote.

    Raises:
        RejectedUpdate: if the bytes are not a message.
    """
    try:
        fields = decode(data)
        kinds: dict[str, type[ClientJob | ClientUpdate]] = {"ClientJob": ClientJob, "ClientUpdate": ClientUpdate}
        return kinds[fields.pop("message")](**fields)
    except Exception as error:  # hostile bytes can raise any error
        raise RejectedUpdate(f"the bytes are not a message of fedreid_pl ({type(error).__name__})") from error


def _check_address(round: object, client: object) -> None:
    if type(round) is not int or type(client) is not str:
        raise TypeError(
            "the round of a message must be an integer and its client a string, found "
            f"{type(round).__name__} and {type(client).__name__}"
        )


def _check_plain(values: Mapping[str, object], kinds: tuple[type, ...], what: str) -> None:
    for name, value in values.items():
        if type(name) is not str or type(value) not in kinds:
            raise TypeError(
                f"{what} '{name}' has type {type(value).__name__}, expected "
                f"{' or '.join(kind.__name__ for kind in kinds)}"
            )


def _check_tensors(state: Mapping[str, object], where: str) -> None:
    for name, value in state.items():
        if type(name) is not str or not isinstance(value, Tensor):
            raise TypeError(f"'{name}' in the message's {where} has type {type(value).__name__}, expected a tensor")
