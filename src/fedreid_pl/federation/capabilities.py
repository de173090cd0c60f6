"""Capabilities: what a callback provides, removes and needs. They decide which callbacks can be combined."""

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
    "exchange": "the server sends every client a backbone, and the client returns the trained backbone",
    "average": "the server averages the clients' models",
    "one_global_model": "all clients share one model",
    "weights": "the average uses the weights that callbacks set",
    "sees_single_updates": "callbacks may use the update of a single client",
    "server_step": "a callback may set the step from the old model to the average",
    "local_scores": "a callback may choose the model that a client evaluates after training",
    "sequential_order": "clients train one after the other, in the order of selection",
}
"""Meaning of each capability, for error messages and docs/methods.md."""

LOOP: tuple[Capability, ...] = ("sees_single_updates", "local_scores")
"""Capabilities that the federation loop provides without any callback."""

SEQUENTIAL: tuple[Capability, ...] = ("sequential_order",)
"""Capabilities that the sequential engine provides."""


class Part(Protocol):
    """A part of an experiment that declares capabilities, such as a `FederationCallback`."""

    @property
    def provides(self) -> tuple[Capability, ...]:
        """Capabilities that the experiment has because of this part."""
        ...

    @property
    def removes(self) -> tuple[Capability, ...]:
        """Capabilities that the other parts do not have because of this part."""
        ...

    @property
    def needs(self) -> tuple[Capability, ...]:
        """Capabilities that this part requires."""
        ...


def check_names(part: Part) -> None:
    """Checks that every declared capability of a part exists.

    Raises:
        TypeError: if a capability is unknown; the message suggests the closest name.
    """
    known = list(get_args(Capability))
    for declared in (part.provides, part.removes, part.needs):
        for name in (declared,) if isinstance(declared, str) else declared:
            if name not in known:
                raise TypeError(f"{part}: '{name}' is not a capability{nearest(name, known)}")


def check_combination(
    parts: Mapping[str, Part],
    surroundings: Mapping[str, Collection[str]],
    candidates: Iterable[tuple[str, Part]] = (),
) -> None:
    """Checks that every part has the capabilities that it needs.

    The surroundings or parts that are listed earlier must provide each of these capabilities, and no other part may
    remove it.

    Args:
        parts: parts by the name that messages use, in order.
        surroundings: capabilities that do not depend on the parts, by the name of what provides them, such as the
            engine.
        candidates: other parts by name; the message suggests the first one that provides a missing capability.

    Raises:
        FedReIDError: for the first missing capability. The message names the capability and the part that needs it.
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
                f"{first} and {second} cannot be combined: {name} needs {_explained(need)}, which {other} removes; "
                "remove one of the two"
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
    advice = f"add {suggestion}" if suggestion else f"remove {name} or choose another engine"
    lacking = "no callback of this experiment provides it"
    if suggestion is None:
        lacking = f"neither another callback nor {' nor '.join(surroundings)} provides it"
    raise FedReIDError(f"{name}: needs {_explained(need)}, but {lacking}; {advice}")


def _explained(capability: str) -> str:
    return f"{capability} ({CAPABILITIES[capability]})"
