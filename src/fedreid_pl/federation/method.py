"""What a method is, in words: the one source of `fedreid-pl methods` and of docs/methods.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Purpose = Literal[
    "baseline", "federation", "local training", "unseen places", "personal models", "robustness", "privacy"
]

BACKBONE, HEAD = "the backbone", "the head"


@dataclass(frozen=True)
class Method:
    """What a user has to know of an experiment before choosing it; declared in `FederationCallback.methods`.

    Each text continues a heading, in plain English and without a full stop.

    Args:
        title: the name in its paper, such as `FedProx`.
        paper: authors, venue, year, and the equation or algorithm.
        purpose: what the method is for; methods are listed in these groups.
        does: what it changes, against FedPav.
        verified: what its implementation was held against, and what was not.
        exchanged: what a client sends and is sent.
        stays: what never leaves a client.
        needs: what a federation has to have for it beside clients with labelled images, such as `camera numbers`.
    """

    title: str
    paper: str
    purpose: Purpose
    does: str
    verified: str
    exchanged: str = BACKBONE
    stays: str = HEAD
    needs: tuple[str, ...] = ()
