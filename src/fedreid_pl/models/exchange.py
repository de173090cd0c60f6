"""Selection of the backbone entries that server and clients exchange, by name patterns."""

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
    """Returns the names of the network's entries that match a pattern of `exchange` and no pattern of `keep`.

    A pattern is a shell pattern (`*`, `?`, `[...]`) over the whole name in the state dict, or the name of a group
    (`entry_groups`), which is the same part of every backbone.

    Args:
        network: the backbone.
        exchange: patterns of entries that server and clients exchange.
        keep: patterns of entries that stay at the client; they take precedence over `exchange`.
        norms: `False` keeps parameters and statistics of BatchNorm at the client too (FedBN).

    Raises:
        FedReIDError: if a pattern matches no entry, or if no entry remains to exchange.

    >>> network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    >>> sorted(exchanged_names(network, keep=["1.*"]))
    ['0.bias', '0.weight']
    """
    sent, kept = _chosen(network, "exchange", exchange), _chosen(network, "keep", keep)
    stay = kept if norms else kept | norm_names(network)
    found = sent - stay
    if not found:
        raise FedReIDError(
            "callbacks.backbone_sync: no entry of the backbone is exchanged; remove patterns from "
            "callbacks.backbone_sync.keep"
        )
    return found


def exchanges_all(options: Mapping[str, Any]) -> bool:
    """Returns whether clients send whole backbones under these options of `callbacks.backbone_sync`."""
    patterns = tuple(options.get("exchange") or ALL) == ALL and not options.get("keep")
    return patterns and options.get("batch_norm") != "local"


def entry_groups(network: nn.Module) -> dict[str, frozenset[str]]:
    """Returns the names of the network's entries by group; the groups are the same parts of every backbone.

    `stem`, `stage1`, `stage2`, ... and `neck` are disjoint and together have every entry. `neck` has everything after
    the trunk's stages: pooling, bottleneck, and layers of the trunk after its pooling. `last_stage` is another name of
    the last stage. If the stages of a trunk are unknown, the only group is `neck`, without the layers of the trunk.

    >>> from fedreid_pl.models.ide import IDEBackbone
    >>> from fedreid_pl.models.trunks import build_trunk
    >>> list(entry_groups(IDEBackbone(build_trunk("small"))))
    ['stem', 'stage1', 'stage2', 'stage3', 'last_stage', 'neck']
    """
    trunk, names = getattr(network, "trunk", None), list(network.state_dict())
    groups: dict[str, frozenset[str]] = {}
    for number, prefixes in enumerate(getattr(trunk, "stage_prefixes", ())):
        begins = tuple(f"trunk.{prefix}." for prefix in prefixes)
        groups[f"stage{number}" if number else "stem"] = frozenset(name for name in names if name.startswith(begins))
    stages = frozenset().union(*groups.values()) if groups else frozenset(n for n in names if n.startswith("trunk."))
    if len(groups) > 1:
        groups["last_stage"] = list(groups.values())[-1]
    return {**groups, "neck": frozenset(names) - stages}


def _chosen(network: nn.Module, key: str, patterns: Sequence[str]) -> frozenset[str]:
    names, groups = list(network.state_dict()), entry_groups(network)
    found: set[str] = set()
    for pattern in patterns:
        group = groups.get(pattern, frozenset(name for name in names if fnmatchcase(name, pattern)))
        if not group:
            raise FedReIDError(
                f"callbacks.backbone_sync.{key}={pattern}: matches no entry of the backbone; give a pattern of its "
                f"entries ({names[0]}, ..., {names[-1]}) or one of its groups ({', '.join(groups)})"
            )
        found |= group
    return frozenset(found)
