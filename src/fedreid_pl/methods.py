"""Lists and describes all methods, from the texts, capabilities and state that their callbacks declare."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from fedreid_pl.callbacks import find_callback, known_callbacks
from fedreid_pl.config import available, compose
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.capabilities import CAPABILITIES, Capability
from fedreid_pl.federation.method import Method, Purpose

BASELINES = {
    "local": Method(
        title="Standalone",
        paper="no federation",
        purpose="baseline",
        does="trains every client alone",
        exchanged="nothing",
        stays="everything",
        verified="equals one continuous run of plain SGD; its scores are the lower bound in the result tables",
    ),
    "centralized": Method(
        title="Centralized",
        paper="no federation",
        purpose="baseline",
        does="trains one model on the images of all clients",
        exchanged="all images, before training",
        stays="nothing",
        needs=("all images in one place",),
        verified="uses the same training loop as Standalone on all images; persons of different datasets are "
        "different classes",
    ),
}
"""Methods without a callback, by experiment name."""


@dataclass(frozen=True)
class Listed:
    """An entry in the list of methods.

    Args:
        name: name of the experiment, `exp=NAME`.
        method: description of the method.
        callbacks: callbacks of the experiment, in order.
        capabilities: capabilities that the method's callback requires of other callbacks and of the engine.
        state: where the method's callback saves state between rounds: `client`, `server`, both or empty.
    """

    name: str
    method: Method
    callbacks: tuple[str, ...] = ()
    capabilities: tuple[Capability, ...] = ()
    state: tuple[str, ...] = ()


def list_methods() -> list[Listed]:
    """Returns all methods, sorted by purpose, then by experiment name.

    Raises:
        TypeError: if a callback declares a method whose experiment does not exist.
    """
    found = [Listed(name, method) for name, method in BASELINES.items()] + list(_declared())
    order = get_args(Purpose)
    return sorted(found, key=lambda one: (order.index(one.method.purpose), one.name))


def _declared() -> Iterator[Listed]:
    experiments = available("exp")
    for callback in known_callbacks():
        kind = find_callback(callback)
        for name, method in kind.methods.items():
            if name not in experiments:
                raise TypeError(
                    f"callbacks/{callback}.py: declares the method {name}, but configs/exp/{name}.yaml is missing"
                )
            parts = tuple(compose([f"exp={name}"]).callbacks)
            yield Listed(name, method, parts, kind.needs, tuple(_state(kind)))


def _state(kind: type[FederationCallback]) -> Iterator[str]:
    for where, hooks in (("client", ("client_state_dict",)), ("server", ("state_dict", "release_state"))):
        if any(getattr(kind, hook) is not getattr(FederationCallback, hook) for hook in hooks):
            yield where


def methods_text(name: str) -> str:
    """Returns the description of a method, or of an experiment that combines or varies methods, as text.

    Raises:
        KeyError: if there is no such experiment.
    """
    if name not in available("exp"):
        raise KeyError(name)
    one = {listed.name: listed for listed in list_methods()}.get(name)
    if one is None:
        title, facts = "Variant", [("callbacks", ", ".join(compose([f"exp={name}"]).callbacks))]
    else:
        title, facts = one.method.title, _facts(one)
    width = max(len(heading) for heading, _ in facts)
    lines = [f"{heading:<{width}}  {text}" for heading, text in facts]
    if options := method_options(name):
        lines += ["", "Options of fedreid-pl train, with their values in this experiment:"]
        lines += [f"  {key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in options.items()]
    return "\n".join([f"{title} (exp={name})", "", *lines])


def method_options(name: str) -> dict[str, Any]:
    """Returns the options of an experiment's callbacks as `callbacks.CALLBACK.OPTION`, with their values.

    >>> method_options("fedprox")["callbacks.fedprox.mu"]
    0.01
    """
    found = {}
    for callback, given in compose([f"exp={name}"]).callbacks.items():
        for option, parameter in inspect.signature(find_callback(callback)).parameters.items():
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
                found[f"callbacks.{callback}.{option}"] = given.get(option, parameter.default)
    return found


def methods_page() -> str:
    """Returns the content of docs/methods.md."""
    parts = [_INTRODUCTION]
    found = list_methods()
    for purpose in get_args(Purpose):
        if group := [one for one in found if one.method.purpose == purpose]:
            parts += [f"## {purpose.capitalize()}", _overview(group), *map(_entry, group)]
    meanings = "\n".join(f"- `{name}`: {meaning}." for name, meaning in CAPABILITIES.items())
    parts.append(f"## Capabilities\n\nCapabilities decide which callbacks can be combined.\n\n{meanings}")
    return "\n\n".join(parts) + "\n"


def _overview(group: Sequence[Listed]) -> str:
    rows = [("`exp=`", "method", "paper", "exchanged", "stays"), ("---",) * 5]
    for one in group:
        method = one.method
        rows.append((f"`{one.name}`", method.title, method.paper, method.exchanged, method.stays))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _entry(one: Listed) -> str:
    facts = [f"- {heading}: {text}." for heading, text in _facts(one) if heading not in ("paper", "callbacks")]
    return "\n".join([f"### {one.method.title}", "", *facts, f"- callbacks: {_callbacks(one)}."])


def _facts(one: Listed) -> list[tuple[str, str]]:
    method = one.method
    return [
        ("paper", method.paper),
        ("what it does", method.does),
        ("exchanged", method.exchanged),
        ("stays at the client", method.stays),
        ("saved between rounds", _saved(one)),
        ("needs", "; ".join(method.needs) or "only labelled images at the clients"),
        ("callbacks", _callbacks(one)),
        ("verified", method.verified),
    ]


def _saved(one: Listed) -> str:
    if one.method.saved is not None:
        return one.method.saved
    places = " and ".join(f"at the {where}" for where in one.state)
    return f"callback state {places}" if places else "no callback state"


def _callbacks(one: Listed) -> str:
    names = ", ".join(one.callbacks) or "none"
    return f"{names}; required capabilities: {', '.join(one.capabilities)}" if one.capabilities else names


_INTRODUCTION = """\
# Methods

<!-- written by `fedreid-pl methods out=docs/methods.md`; the callbacks declare the texts -->

Train a method with `fedreid-pl train exp=NAME`. `fedreid-pl methods` prints this list, and `fedreid-pl methods NAME`
prints one entry. docs/algorithms.md states the equations and the options.

The backbone computes the features of images. The head classifies the persons of one client. "Stays" lists what never
leaves a client."""
