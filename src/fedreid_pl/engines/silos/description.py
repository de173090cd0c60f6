"""Describes to a silo's operator what an experiment computes at the silo and what it sends."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from fedreid_pl.config import Config
from fedreid_pl.engines.silos.policy import Policy
from fedreid_pl.errors import counted
from fedreid_pl.federation.callback import FederationCallback


def describe_experiment(config: Config, digest: str, silos: int) -> str:
    """Returns the description of an experiment that needs no pictures."""
    callbacks = ", ".join(config.callbacks) or "none; nothing is averaged"
    steps, every = config.local_steps, config.evaluate_every
    turn = counted(config.local_epochs, "epoch") if steps is None else counted(steps, "optimizer step")
    return "\n".join(
        [
            f"Experiment {config.name}, number {digest[:16]}",
            f"  silos         {silos}; a round averages at least {config.min_clients} of them",
            f"  computes      {counted(config.rounds, 'round')}; in each, this silo trains {config.model.name} for "
            f"{turn} on its training pictures",
            f"  pictures      read here at {config.data.height} x {config.data.width} pixels, from "
            f"{config.data.root} ({', '.join(config.data.datasets)}); they stay here",
            f"  evaluates     every {'round' if every == 1 else f'{every} rounds'} on this silo's test pictures; the "
            "coordinator gets the scores",
            f"  algorithm     {callbacks}",
        ]
    )


SHOWN = 6  # number of tensor names to print; the file in the session's folder lists all


def describe_messages(
    network: nn.Module,
    callbacks: Mapping[str, FederationCallback],
    policy: Policy,
    images: int,
    most: int | None = None,
) -> str:
    """Returns a description of every update of this silo: names and shapes of tensors, and names of numbers.

    Args:
        network: the backbone.
        callbacks: client halves of the callbacks, by name.
        policy: the silo's policy.
        images: number of this silo's training pictures.
        most: largest number of tensor names to list; `None` lists all.
    """
    state = network.state_dict()
    names = sorted(frozenset().union(*(part.exchanged(network) for part in callbacks.values())) & set(state))
    size = sum(state[name].numel() * state[name].element_size() for name in names)
    lines = [
        "Every update from this silo contains:",
        f"  tensors       {len(names)} of the network's entries, {size / 2**20:.1f} MiB:",
        *(f"                {name} {list(state[name].shape)}" for name in names[:most]),
        *([f"                and {len(names) - most} more"] if most is not None and len(names) > most else []),
    ]
    extras = [tensor for part in callbacks.values() for tensor in part.declared_extras(network)]
    if extras:
        lines.append(f"  and           {len(extras)} further tensors, such as {extras[0].name} {list(extras[0].shape)}")
    return "\n".join(
        [
            *lines,
            f"  numbers       that match {', '.join(policy.metrics)}; this silo sends no update with another number",
            f"  images        {images}, the number of this silo's training pictures",
            "  never sent    pictures, labels, names of persons, files or folders, the classifier (head)",
        ]
    )
