"""What travels between the driver and its slots: jobs and answers whose tensors are views of bytes."""

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
"""A state dict as name, layout and bytes of every tensor. Ray stores numpy arrays outside of the pickle, so that all
slots of a machine read one copy. (Its own zero-copy tensors lose strides, and a slot that writes to one changes what
the others read; see docs/parallel.md.)"""


def pack(state: Mapping[str, Tensor]) -> Packed:
    """Returns a state dict as bytes; dense tensors are not copied."""
    packed = []
    for name, value in state.items():
        layout, flat = to_raw(value.cpu())
        packed.append((name, layout, flat.numpy()))
    return packed


def unpack(packed: Packed, copy: bool) -> State:
    """Returns the state dict.

    Args:
        copy: `False` leaves the tensors on memory that other processes read: they must not be written to.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch remarks that the memory is not to be written to
        return {
            name: from_raw(layout, torch.from_numpy(flat.copy() if copy else flat)) for name, layout, flat in packed
        }


@dataclass(frozen=True)
class SlotParts:
    """What a slot is made of.

    Args:
        config: of the run, with absolute paths.
        folder: the run's, absolute.
        digests: SHA-256 of every dataset, as the driver has read it.
        place: the run's folder as the driver sees it, see `place_of`.
        client_state: the value of `engine.client_state`.
        slots: the most slots that a machine has.
    """

    config: Config
    folder: str
    digests: dict[str, str]
    place: tuple[str, int, int] | None
    client_state: str
    slots: int


@dataclass(frozen=True)
class SlotFacts:
    """What a slot tells about itself once it is ready.

    Args:
        machine: its name.
        process: id of its process there.
        sees_folder: whether it reads the clients' state from the run's folder.
        problem: one line if the slot cannot work, else empty.
    """

    machine: str
    process: int
    sees_folder: bool
    problem: str = ""


@dataclass(frozen=True)
class SlotJob:
    """A job without its tensors, which travel as arguments of their own, and what the client starts from.

    Args:
        job: without backbone and extras.
        starts: round of the state that the client starts from; `None`: it has none.
        state: this state encoded, `[bytes]` uint8; `None`: the slot reads it from the run's folder.
    """

    job: ClientJob
    starts: int | None
    state: np.ndarray | None


@dataclass
class Reply:
    """What a slot answers.

    Args:
        outcome: an update without its tensors, or a failure; `None` with `error` or `unseen`.
        backbone, extras: the update's tensors.
        looks: what is behind the scores.
        kept: the client's new state, encoded, `[bytes]` uint8; `None` if nothing was trained.
        said: lines for the screen.
        error: of a mistake that stops the run.
        unseen: whether the slot did not find the state in the run's folder; nothing was done.
        seconds: that the turn took.
        peak_memory, gpu_memory: largest bytes of the slot's process so far.
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
    """Bytes as an array, which Ray stores without a copy in a pickle."""
    return np.frombuffer(data, dtype=np.uint8)
