"""Which entries of a backbone travel between server and clients, chosen by name patterns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from fedreid_pl.errors import FedReIDError
from fedreid_pl.models.batch_norm import norm_names

ALL = ("*",)


def exchanged_names(
    network: nn.Module, exchange: Sequence[str] = ALL, keep: Sequence[str] = (), norms: bool = True
) -> frozenset[str]:
    """Names of the network's entries that match a pattern of `exchange` and none of `keep`.

    Patterns are those of a shell (`*`, `?`, `[...]`) over the whole name in the state dict.

    Args:
        network: the backbone.
        exchange: patterns of entries that travel.
        keep: patterns of entries that stay at their client, whatever `exchange` says.
        norms: `False`: parameters and statistics of BatchNorm stay as well (FedBN).

    Raises:
        FedReIDError: for a pattern that matches nothing, or if nothing travels.

    >>> network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    >>> sorted(exchanged_names(network, keep=["1.*"]))
    ['0.bias', '0.weight']
    """
    names = list(network.state_dict())
    for key, patterns in (("exchange", exchange), ("keep", keep)):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise FedReIDError(
                    f"callbacks.backbone_sync.{key}={pattern}: matches no entry of the backbone; its entries are "
                    f"{names[0]}, ... to {names[-1]}"
                )
    stay = frozenset() if norms else norm_names(network)
    found = frozenset(name for name in names if _matches(name, exchange) and not _matches(name, keep)) - stay
    if not found:
        raise FedReIDError("callbacks.backbone_sync: nothing of the backbone is exchanged; take patterns out of keep")
    return found


def exchanges_all(options: Mapping[str, Any]) -> bool:
    """Whether clients send whole backbones under these options of `callbacks.backbone_sync`."""
    patterns = tuple(options.get("exchange") or ALL) == ALL and not options.get("keep")
    return patterns and options.get("batch_norm") != "local"


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
