"""What travels between server and client: tensors and plain values, nothing else."""

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
"""Plain values that every job may carry, see `ClientJob`; callbacks declare theirs in `job_config`."""


class RejectedUpdate(Exception):
    """An update that may not touch the model; the message says why."""


class RejectedJob(Exception):
    """A job that the client refuses to do; the message says why."""


@dataclass(frozen=True)
class DeclaredTensor:
    """What one tensor of a message has to look like.

    Args:
        name: its name among the message's `extras`.
        shape: its sizes; `None` in the first place leaves the number of rows free.
        dtype: its type.
        bound: greatest absolute value.
        most_rows: greatest number of rows where that is free.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: torch.dtype = torch.float32
    bound: float = math.inf
    most_rows: int = 4096

    def __post_init__(self) -> None:
        if None in self.shape[1:]:
            raise TypeError(f"'{self.name}' is declared with shape {self.shape}; only the first size may be free")


@dataclass(frozen=True)
class ClientJob:
    """What the server sends to one client.

    Args:
        kind: `fit` (train, then send the exchanged entries back) or `evaluate` (score, send numbers only).
        session: name of the run at the server; a run that is begun anew has another one.
        round: number of the round, from 1; 0 is the evaluation before training.
        attempt: grows whenever the server asks again or goes back to an earlier round, and never falls in a session.
        client: name of the addressee.
        backbone: the tensors of `exchanged`.
        exchanged: names of the backbone's entries that travel in this job and in its answer.
        config: plain values. Of the server itself: `evaluate` (a `fit` job: score the trained model too), `tests`
            (test sets to score, separated by `/`; the client's own if it is missing), `unseen` (they belong to a place
            that takes no part: what is personal to this client does not suit them), `inspect` (keep what is behind the
            scores), `starts_from` (the client starts from the newest state that it kept in a round up to this one; what
            it kept later belongs to rounds that the server lost) and `keeps` (rounds that the server can go back to,
            separated by `/`; other states may be deleted). Callbacks add theirs.
        extras: further tensors that an algorithm exchanges, such as SCAFFOLD's control variates.
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
            raise TypeError("a job is of kind 'fit' or 'evaluate'")
        _check_address(self.round, self.client)
        if type(self.session) is not str or type(self.attempt) is not int:
            raise TypeError("a job is of a session, by name, and an attempt, by number")
        _check_plain(self.config, (int, float, bool, str), "job config")
        _check_tensors(self.backbone, "a backbone")
        _check_tensors(self.extras, "extras")
        if type(self.exchanged) is not tuple or set(self.exchanged) != set(self.backbone):
            raise TypeError("a job brings exactly the entries that it says are exchanged")

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors, the part that counts on the wire."""
        return state_bytes(self.backbone) + state_bytes(self.extras)

    def exchanging(self, backbone: State) -> ClientJob:
        """Returns the job with these entries of the backbone as those that are exchanged."""
        return replace(self, backbone=backbone, exchanged=tuple(backbone))


@dataclass(frozen=True)
class ClientUpdate:
    """What the client sends back: its backbone, how many images it trained on, and plain numbers.

    Args:
        round, client: of the job that it answers.
        backbone: the entries that the job says are exchanged, after training. At the server they may lie on
            the disk, so a tensor that is read twice is read twice.
        num_samples: n_k, training images of the client.
        metrics: numbers by name, e.g. `cosine_distance`, `train/loss`, `test/mini-viper/rank1`.
        extras: the answer to the job's extras: tensors of the same names, shapes and dtypes, but for those that a
            callback declares (`declared_answers`).
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
    fields = {"message": type(message).__name__, **vars(message)}
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
        kinds: dict[str, type[ClientJob | ClientUpdate]] = {"ClientJob": ClientJob, "ClientUpdate": ClientUpdate}
        return kinds[fields.pop("message")](**fields)
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
