"""Federated algorithms, one file each; the file name is the algorithm's key under `callbacks` in a configuration.

Other installed packages add callbacks by entry points of the group `fedreid_pl.callbacks`.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Collection, Mapping
from typing import Any, get_type_hints

from fedreid_pl.config import Config
from fedreid_pl.config.values import fitting
from fedreid_pl.errors import FedReIDError, nearest
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.capabilities import LOOP, SEQUENTIAL, Part, check_combination, check_names
from fedreid_pl.federation.own_callbacks import check_class
from fedreid_pl.installed import check_not_shipped, installed_names, load_installed


def known_callbacks() -> list[str]:
    """Returns the names of the shipped algorithms, sorted; `installed_names` returns those of other packages."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def find_callback(name: str) -> type[FederationCallback]:
    """Returns the `FederationCallback` class with a name.

    `fedreid_pl/callbacks/<name>.py` defines the class, or an installed package adds it by an entry point of the group
    `fedreid_pl.callbacks`.

    Raises:
        FedReIDError: if there is no such callback, if an installed package uses the name of a shipped callback, or if
            the entry point is not a subclass of `FederationCallback`.
        TypeError: if the class declares an unknown capability.
    """
    if name in known_callbacks():
        check_not_shipped("callbacks", name)
        kind = _shipped(name)
    else:
        kind = _installed(name)
        check_class(name, kind)
        try:
            check_names(kind)
        except TypeError as error:
            raise FedReIDError(f"callbacks.{name}: {error}") from error
        return kind
    check_names(kind)
    return kind


def _shipped(name: str) -> type[FederationCallback]:
    module = importlib.import_module(f"{__name__}.{name}")
    classes = [
        item
        for item in vars(module).values()
        if inspect.isclass(item) and issubclass(item, FederationCallback) and item.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise TypeError(
            f"{module.__file__}: must define exactly one subclass of FederationCallback, found {len(classes)}"
        )
    return classes[0]


def _installed(name: str) -> type[FederationCallback]:
    try:
        kind = load_installed("callbacks", name)
    except KeyError:
        known = [*known_callbacks(), *installed_names("callbacks")]
        hint = nearest(name, known)
        hint += "; for a callback of your own, install its package" * hint.startswith(";")
        raise FedReIDError(f"callbacks.{name}: no such callback{hint}") from None
    if not (inspect.isclass(kind) and issubclass(kind, FederationCallback)):
        raise FedReIDError(
            f"callbacks.{name}: the entry point of an installed package refers to {kind!r}, which is not a subclass of "
            "FederationCallback; fix or uninstall this package"
        )
    return kind


def callback_factory(
    specs: Mapping[str, Any], engine: str = "sequential", provides: Collection[str] = SEQUENTIAL
) -> Callable[[], dict[str, FederationCallback]]:
    """Returns a function that creates new callbacks from a configuration at every call, in the configuration's order.

    Names and types of options are checked against the signature of the class; a `Literal` lists the possible values.

    Args:
        specs: options of each callback, by callback name.
        engine: name of the engine that runs the clients, for messages.
        provides: capabilities of this engine.

    Raises:
        FedReIDError: if a callback or an option is unknown, a value is invalid, or the callbacks cannot be combined.
    """
    parts = [(name, find_callback(name)) for name in specs]
    _check(dict(parts), engine, provides)
    options = {name: _options(name, kind, specs[name]) for name, kind in parts}
    make = lambda: {name: _built(name, kind, options[name]) for name, kind in parts}  # noqa: E731
    made = make()  # constructors check values: errors appear now and not in the first round
    _check(made, engine, provides)  # an option may need capabilities that the class does not need
    return make


def callbacks_of(config: Config) -> Callable[[], dict[str, FederationCallback]]:
    """Returns `callback_factory` for the callbacks and the engine of a configuration.

    Raises:
        FedReIDError: as in `callback_factory`, and if the engine does not provide a capability that a callback needs.
    """
    engine = config.engine.name
    return callback_factory(config.callbacks, engine, SEQUENTIAL if engine == "sequential" else ())


def _built(name: str, kind: type[FederationCallback], options: Mapping[str, Any]) -> FederationCallback:
    try:
        return kind(**options)
    except (TypeError, ValueError) as error:
        raise FedReIDError(f"callbacks.{name}: {' '.join(str(error).split())}; correct its options") from error


def _check(parts: Mapping[str, Part], engine: str, provides: Collection[str]) -> None:
    check_combination(
        {f"callbacks.{name}": part for name, part in parts.items()},
        {"the federation loop": LOOP, f"engine={engine}": provides},
        ((f"callbacks.{name}", find_callback(name)) for name in known_callbacks()),
    )


def _options(name: str, kind: type[FederationCallback], given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise FedReIDError(f"callbacks.{name}={given}: expected options; write callbacks.{name}.KEY=VALUE")
    signature = inspect.signature(kind.__init__)
    try:
        hints = get_type_hints(kind.__init__)
    except NameError as error:
        raise FedReIDError(
            f"callbacks.{name}: a type of its constructor cannot be read ({error}); import it"
        ) from error
    wanted = {key: item for key, item in list(signature.parameters.items())[1:] if item.kind is not item.VAR_KEYWORD}
    if kind.__init__ is FederationCallback.__init__:
        wanted = {}
    options: dict[str, Any] = {}
    for key, value in given.items():
        if key not in wanted:
            hint = nearest(str(key), list(wanted)) if wanted else "; this callback has no options"
            raise FedReIDError(f"callbacks.{name}.{key}: no such option{hint}")
        if key not in hints:
            raise FedReIDError(
                f"callbacks.{name}.{key}: this option has no type in the constructor of {kind.__name__}; write "
                f"{key}: float = ..., or another type"
            )
        try:
            options[str(key)] = fitting(value, hints[key])
        except ValueError as error:
            raise FedReIDError(f"callbacks.{name}.{key}={'null' if value is None else value}: {error}") from error
    return options
