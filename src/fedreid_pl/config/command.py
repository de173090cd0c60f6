"""Converts a configuration back to the words of a command line."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from fedreid_pl.config.compose import PLACE_KEYS, available, compose, flat
from fedreid_pl.config.places import FILE, without_places
from fedreid_pl.config.schema import Config
from fedreid_pl.config.values import NULLS, plain


def reproducing_words(config: Config) -> list[str]:
    """Returns words for `fedreid-pl train` that compose an equivalent configuration, quoted for a shell.

    For an experiment or data file of the user, the words start from a shipped file and set every key that differs.
    `portable_words` returns words without the paths of this machine.

    >>> reproducing_words(compose(["exp=fedprox", "rounds=3", "callbacks.fedprox.mu=0.5"]))
    ['exp=fedprox', 'data=minireid', 'rounds=3', 'callbacks.fedprox.mu=0.5']
    """
    chosen = [
        f"{kind}={name if name in available(kind) else default}"
        for kind, name, default in (("exp", config.name, "fedpav"), ("data", config.data.name, "minireid"))
    ]
    if config.fidelity != "paper":
        chosen.append(f"fidelity={config.fidelity}")
    plain, wanted = asdict(compose(chosen)), asdict(config)
    gone = [f"callbacks.{name}=null" for name in plain["callbacks"] if name not in wanted["callbacks"]]
    before, after = flat(plain), flat(wanted)
    words = [
        f"{key}={_value(key, value)}"
        for key, value in after.items()
        if key not in (*PLACE_KEYS, "defaults") and (key not in before or before[key] != value)
    ]
    return [shlex.quote(word) for word in (*chosen, *gone, *words)]


def portable_words(config: Config, datasets: Sequence[str], public: str | None) -> list[str]:
    """Returns `reproducing_words` without paths of this machine, for readers elsewhere.

    Words in capitals, such as DATA_ROOT, replace the paths. The reader fills them in.

    Args:
        config: the configuration of the run.
        datasets: entries that replace those of `data.datasets`.
        public: the value that replaces `data.public`.

    >>> config = compose(["exp=fedpav", "data=market_layout", "data.root=/ward7", "data.datasets=[a/b]"])
    >>> portable_words(config, ["client1=FOLDER"], None)
    ['exp=fedpav', 'data=market_layout', 'data.root=DATA_ROOT', '\\'data.datasets=["client1=FOLDER"]\\'']
    """
    root = "DATA_ROOT" if config.data.root else None
    weights = "WEIGHTS_FILE" if without_places(config)["model"]["weights"] == FILE else config.model.weights
    data = replace(config.data, root=root, datasets=list(datasets), public=public)
    return reproducing_words(replace(config, data=data, model=replace(config.model, weights=weights)))


def _value(key: str, value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, str):
        if key.startswith("callbacks."):
            return value if plain(value) == value and value[:1] not in ("", "[", "{", "'", '"') else json.dumps(value)
        return f"./{value}" if value in NULLS and key == "data.root" else value
    return json.dumps(value, ensure_ascii=False)  # the command line reads a list as YAML
