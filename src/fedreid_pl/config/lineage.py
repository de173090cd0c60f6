"""Decides whether a checkpoint saved under one configuration can be resumed under another."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from fedreid_pl.config.compose import PLACE_KEYS, flat
from fedreid_pl.config.schema import Config

MAY_CHANGE = (
    *("name", "rounds", "evaluate_every", "min_clients", "client_timeout", "client_retries"),
    *("data.root", "data.overlap"),
)
"""Keys that a resumed run may change, in addition to `PLACE_KEYS` and `trainer.*`."""

FORMER: dict[int, dict[str, Any]] = {1: {"optim.schedule": "step"}}
"""Former default values of keys, by the value of `Config.defaults`."""


def may_change(key: str) -> bool:
    """Returns whether a resumed run may change a dotted key."""
    return key in (*PLACE_KEYS, *MAY_CHANGE) or key.startswith("trainer.")


def lineage(config: Config) -> str:
    """Returns sixteen hexadecimal digits that are equal for configurations that can resume each other's checkpoints.

    Checkpoints store the digits. Keys with their default value are left out, so a key that a newer version adds does
    not change the digits. `Config.defaults` selects the defaults, so a default that a newer version changes gives
    other digits. The digits are a hash and do not reveal any value.

    >>> lineage(Config(rounds=3)) == lineage(Config(rounds=5)), lineage(Config(seed=1)) == lineage(Config(seed=2))
    (True, False)
    """
    former = {number: keys for number, keys in FORMER.items() if number >= config.defaults}
    defaults = flat(asdict(Config()))
    for number in sorted(former, reverse=True):
        defaults |= former[number]
    defaults["defaults"] = 1  # runs with the first defaults did not save this number
    values = {
        name: value
        for name, value in flat(asdict(config)).items()
        if not may_change(name) and (name not in defaults or defaults[name] != value)
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
