"""Checks of callbacks, mostly for authors of their own callbacks: hooks, signatures, and what the hooks return."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from fedreid_pl.errors import FedReIDError, nearest
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.storage import decode, encode
from fedreid_pl.functional.finite import first_not_finite

PLAIN = (int, float, bool, str, bytes, type(None))
LIBRARIES = (
    "fedreid_pl",
    "torch",
    "pytorch_lightning",
    "lightning_fabric",
    "torchmetrics",
    "torchvision",
    "numpy",
    "PIL",
)


def check_class(name: str, kind: type[FederationCallback]) -> None:
    """Checks the class of an installed callback: its hooks exist and accept the arguments that they are called with.

    Raises:
        FedReIDError: for a method with a misspelt name or other arguments, and for capabilities that are not a tuple.
    """
    for attribute in ("needs", "provides", "removes"):
        declared = getattr(kind, attribute)
        if isinstance(declared, str):
            raise FedReIDError(f"callbacks.{name}: {attribute} is a text; write a tuple, {attribute} = ('{declared}',)")
    hooks = [hook for hook in dir(FederationCallback) if not hook.startswith("_")]
    for method, function in inspect.getmembers(kind, inspect.isfunction):
        if method.startswith("_"):
            continue
        if method not in hooks:
            close = get_close_matches(method, hooks, n=1, cutoff=0.85)
            if method.startswith("on_") or close:
                raise FedReIDError(f"callbacks.{name}: there is no hook {method}{nearest(method, close or hooks)}")
        elif method in vars(FederationCallback) and method != "__init__":
            _check_arguments(name, method, function)


def _check_arguments(name: str, method: str, function: Any) -> None:
    wanted = list(inspect.signature(getattr(FederationCallback, method)).parameters)
    try:
        inspect.signature(function).bind(*wanted)
    except TypeError as error:
        raise FedReIDError(
            f"callbacks.{name}: {method} is called with the arguments ({', '.join(wanted)}); change its signature"
        ) from error


def check_state(name: str, hook: str, state: Any) -> Any:
    """Returns the state that a callback's hook returned, after checking that it can be read again.

    Raises:
        FedReIDError: if the state is not a dictionary, or contains other objects than tensors and plain values.
    """
    if not isinstance(state, dict):
        raise FedReIDError(f"callbacks.{name}: {hook} returned {type(state).__name__}, expected a dictionary")
    waiting: list[Any] = [state]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += [*item, *item.values()]
        elif isinstance(item, list | tuple | set):
            waiting += item
        elif not isinstance(item, Tensor) and type(item) not in PLAIN and not _is_readable(item):
            raise FedReIDError(
                f"callbacks.{name}: {hook} returned an object of type {type(item).__name__}, which a checkpoint cannot "
                "contain; return tensors, numbers, texts, lists and dictionaries"
            )
    return state


def _is_readable(item: Any) -> bool:
    try:
        decode(encode({"item": item}))
    except Exception:  # pickle raises various exceptions
        return False
    return True


def check_new_models(models: Any, like: Mapping[str, Tensor], callbacks: Mapping[str, Any], round: int) -> None:
    """Checks the models that the callbacks have aggregated, before they are saved or sent.

    Raises:
        FedReIDError: if a model has other tensors than the network, or a value that is not finite.
    """
    where = f"round {round}: the callbacks {', '.join(callbacks)} made"
    if not isinstance(models, dict):
        raise FedReIDError(
            f"{where} {type(models).__name__} instead of models; aggregate must end with `return models`"
        )
    for model, state in models.items():
        for name, value in like.items():
            found = state.get(name)
            if found is None or (found.shape, found.dtype) != (value.shape, value.dtype):
                shown = "no such tensor" if found is None else f"{found.dtype} {tuple(found.shape)}"
                wanted = f"{value.dtype} {tuple(value.shape)}"
                raise FedReIDError(f"{where} a {model} model with another '{name}': {shown}, expected {wanted}")
        if (odd := first_not_finite(state)) is not None:
            raise FedReIDError(
                f"{where} a {model} model with NaN or infinite values in '{odd}'; the round is not saved. Correct the "
                "callbacks, or choose smaller rates"
            )


def place_of(trace: TracebackType | None) -> str:
    """Returns file and line of the innermost code outside of this package and its libraries; empty if there is none."""
    found = ""
    while trace is not None:
        root = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        if root not in LIBRARIES and root not in sys.stdlib_module_names and root != "__main__":
            found = f"{Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return found
