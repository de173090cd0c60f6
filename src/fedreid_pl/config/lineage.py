"""What makes two configurations stages of one run: a checkpoint of one may be gone on with under the other."""

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
"""Keys that a resumed run may set differently, beside where and on what it runs (`PLACE_KEYS`, `trainer.*`)."""

FORMER: dict[int, dict[str, Any]] = {1: {"optim.schedule": "step"}}
"""By number of `Config.defaults`: the keys of the schema whose default was another one then."""


def may_change(key: str) -> bool:
    """Whether a resumed run may set a dotted key differently."""
    return key in (*PLACE_KEYS, *MAY_CHANGE) or key.startswith("trainer.")


def lineage(config: Config) -> str:
    """Sixteen hexadecimal digits that checkpoints carry, equal for configurations that may go on from each other.

    Keys that have the default do not count, so that a key which a newer version adds changes nothing. The number of the
    defaults counts, so that a default which a newer version changes makes another lineage. No value can be read from
    the digits.

    >>> lineage(Config(rounds=3)) == lineage(Config(rounds=5)), lineage(Config(seed=1)) == lineage(Config(seed=2))
    (True, False)
    """
    former = {number: keys for number, keys in FORMER.items() if number >= config.defaults}
    defaults = flat(asdict(Config()))
    for number in sorted(former, reverse=True):
        defaults |= former[number]
    defaults["defaults"] = 1  # runs of that time saved no number
    values = {
        name: value
        for name, value in flat(asdict(config)).items()
        if not may_change(name) and (name not in defaults or defaults[name] != value)
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
