"""The description of a method, which `fedreid-pl methods` prints and docs/methods.md contains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Purpose = Literal[
    "baseline", "federation", "local training", "unseen places", "personal models", "robustness", "privacy"
]

BACKBONE, HEAD = "the backbone", "the head"


@dataclass(frozen=True)
class Method:
    """Describes a method to a user who chooses an experiment; callbacks declare it in `FederationCallback.methods`.

    Every text follows a heading, is in plain English and has no full stop.

    Args:
        title: name of the method in its paper, such as `FedProx`.
        paper: authors, venue, year, and the equation or algorithm.
        purpose: group in which the method is listed.
        does: how the method differs from FedPav.
        verified: what the implementation was compared with, and what was not verified.
        exchanged: what a client sends and receives.
        stays: what never leaves a client.
        needs: what the federation must have besides clients with labelled images, such as `camera numbers`.
        saved: what the method saves between rounds; by default the text follows from the hooks of the callback.
    """

    title: str
    paper: str
    purpose: Purpose
    does: str
    verified: str
    exchanged: str = BACKBONE
    stays: str = HEAD
    needs: tuple[str, ...] = ()
    saved: str | None = None
