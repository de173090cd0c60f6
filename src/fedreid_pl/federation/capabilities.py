"""Capabilities: what callbacks give to, take from and need of each other, which decides whether they combine."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Literal, Protocol, get_args

from fedreid_pl.errors import FedReIDError, nearest

Capability = Literal[
    "exchange",
    "average",
    "one_global_model",
    "weights",
    "sees_single_updates",
    "server_step",
    "local_scores",
    "sequential_order",
]

CAPABILITIES: dict[str, str] = {
    "exchange": "clients are sent a backbone and send it back trained",
    "average": "the clients' models are averaged into a new one",
    "one_global_model": "all clients share one model",
    "weights": "the average weighs clients by the weights that callbacks set",
    "sees_single_updates": "what a single client sent may be used apart from the other clients'",
    "server_step": "the step from the old model to the average is free to be set",
    "local_scores": "the model of a client's own evaluation after training is free to be chosen",
    "sequential_order": "clients train one after the other, in the order of selection",
}
"""What each capability means, as error messages explain it."""

LOOP: tuple[Capability, ...] = ("sees_single_updates", "local_scores")
"""What the federation loop provides without any callback."""

SEQUENTIAL: tuple[Capability, ...] = ("sequential_order",)
"""What the sequential engine provides."""


class Part(Protocol):
    """Declares capabilities; a `FederationCallback` does."""

    @property
    def provides(self) -> tuple[Capability, ...]:
        """What holds because of this part."""
        ...

    @property
    def removes(self) -> tuple[Capability, ...]:
        """What does not hold for the other parts because of this one."""
        ...

    @property
    def needs(self) -> tuple[Capability, ...]:
        """What has to hold for this part to work."""
        ...


def check_names(part: Part) -> None:
    """Checks that a part declares capabilities that exist.

    Raises:
        TypeError: for another word, with the nearest name.
    """
    known = list(get_args(Capability))
    for declared in (part.provides, part.removes, part.needs):
        for name in (declared,) if isinstance(declared, str) else declared:
            if name not in known:
                raise TypeError(f"{part}: '{name}' is no capability{nearest(name, known)}")


def check_combination(
    parts: Mapping[str, Part],
    surroundings: Mapping[str, Collection[str]],
    candidates: Iterable[tuple[str, Part]] = (),
) -> None:
    """Checks that every part has what it needs.

    A capability that a part needs has to be provided by the surroundings or by parts that are all listed before it,
    and none of the other parts may remove it.

    Args:
        parts: by the name that messages give them, in the order of the list.
        surroundings: what is there whatever the list is, such as the engine, with what it provides.
        candidates: parts that could be added; a message suggests the first one that provides what is missing.

    Raises:
        FedReIDError: for the first capability that is missing, with the part that lacks it.
    """
    for place, (name, part) in enumerate(parts.items()):
        for need in part.needs:
            _check_not_removed(name, need, parts)
            _check_provided(name, need, parts, surroundings, candidates)
            for other in list(parts)[place + 1 :]:
                if need in parts[other].provides:
                    raise FedReIDError(
                        f"{name}: needs {_explained(need)}, which {other} provides; list {name} after {other}"
                    )


def _check_not_removed(name: str, need: str, parts: Mapping[str, Part]) -> None:
    for other, part in parts.items():
        if other != name and need in part.removes:
            first, second = sorted((name, other), key=list(parts).index)
            raise FedReIDError(
                f"{first} and {second} do not combine: {name} needs {_explained(need)}, which {other} removes; "
                "leave one of them out"
            )


def _check_provided(
    name: str,
    need: str,
    parts: Mapping[str, Part],
    surroundings: Mapping[str, Collection[str]],
    candidates: Iterable[tuple[str, Part]],
) -> None:
    if any(need in part.provides for part in parts.values()) or any(need in given for given in surroundings.values()):
        return
    suggestion = next((other for other, part in candidates if need in part.provides), None)
    advice = f"add {suggestion}" if suggestion else f"leave {name} out or choose another engine"
    lacking = "no callback of this experiment provides"
    if suggestion is None:
        lacking = f"neither another callback nor {' nor '.join(surroundings)} provides"
    raise FedReIDError(f"{name}: needs {_explained(need)}, which {lacking}; {advice}")


def _explained(capability: str) -> str:
    return f"{capability} ({CAPABILITIES[capability]})"
