"""The messages between the driver and its slots: jobs and replies, whose tensors travel as bytes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedreid_pl.config import Config
from fedreid_pl.federation.messages import ClientFailure, ClientJob, ClientUpdate, State
from fedreid_pl.federation.raw import Layout, from_raw, to_raw

Packed = list[tuple[str, Layout, np.ndarray]]
"""A state dict as name, layout and bytes of every tensor.

Ray stores numpy arrays outside of the pickle, so that all slots of a machine read one copy. Ray's own zero-copy
tensors lose their strides, and a slot that writes to such a tensor changes it for the other slots; see
docs/parallel.md."""


def pack(state: Mapping[str, Tensor]) -> Packed:
    """Returns a state dict as bytes, without a copy of dense tensors."""
    packed = []
    for name, value in state.items():
        layout, flat = to_raw(value.cpu())
        packed.append((name, layout, flat.numpy()))
    return packed


def unpack(packed: Packed, copy: bool) -> State:
    """Returns the state dict of a packed state.

    Args:
        packed: return value of `pack`.
        copy: `False` returns tensors in memory that other processes read; the caller must not write to them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that the memory is read-only
        return {
            name: from_raw(layout, torch.from_numpy(flat.copy() if copy else flat)) for name, layout, flat in packed
        }


@dataclass(frozen=True)
class SlotParts:
    """Everything that a slot is built from.

    Args:
        config: configuration of the run, with absolute paths.
        folder: absolute path of the run's folder.
        digests: SHA-256 of every dataset that the driver has read.
        place: key of the run's folder on the driver's machine, see `place_of`.
        client_state: value of `engine.client_state`.
        slots: largest number of slots on one machine.
    """

    config: Config
    folder: str
    digests: dict[str, str]
    place: tuple[str, int, int] | None
    client_state: str
    slots: int


@dataclass(frozen=True)
class SlotFacts:
    """A slot's description of itself, sent once it is ready.

    Args:
        machine: name of the slot's machine.
        process: id of the slot's process on that machine.
        sees_folder: whether the slot reads the clients' states from the run's folder.
        problem: one line if the slot cannot work, otherwise empty.
    """

    machine: str
    process: int
    sees_folder: bool
    problem: str = ""


@dataclass(frozen=True)
class SlotJob:
    """A job without its tensors, and the state that its client starts from. The tensors travel as separate arguments.

    Args:
        job: the job, without backbone and extras.
        starts: round of the client's state; `None` if the client has no state yet.
        state: the encoded state, `[bytes]` uint8; `None` if the slot reads it from the run's folder.
    """

    job: ClientJob
    starts: int | None
    state: np.ndarray | None


@dataclass
class Reply:
    """A slot's reply to a job.

    Args:
        outcome: an update without its tensors, or a failure; `None` if `error` or `unseen` is set.
        backbone, extras: tensors of the update.
        looks: details behind the scores, see `Look`.
        kept: the client's new state, encoded, `[bytes]` uint8; `None` if the job trained nothing.
        said: lines to print.
        error: message of an error that stops the run; empty without an error.
        unseen: whether the slot did not find the state in the run's folder and therefore skipped the job.
        seconds: duration of the turn.
        peak_memory: largest memory of the slot's process so far, in bytes.
        gpu_memory: largest GPU memory of the slot's process so far, in bytes.
    """

    outcome: ClientUpdate | ClientFailure | None = None
    backbone: Packed = field(default_factory=list)
    extras: Packed = field(default_factory=list)
    looks: list[dict[str, Any]] = field(default_factory=list)
    kept: np.ndarray | None = None
    said: list[str] = field(default_factory=list)
    error: str = ""
    unseen: bool = False
    seconds: float = 0.0
    peak_memory: int = 0
    gpu_memory: int = 0


def from_bytes(data: bytes) -> np.ndarray:
    """Returns bytes as a uint8 array, which Ray stores outside of the pickle."""
    return np.frombuffer(data, dtype=np.uint8)
