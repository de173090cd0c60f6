"""Composes the configuration of a run: schema <- base <- data <- experiment <- command line."""

from __future__ import annotations

import hashlib
import json
import math
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from fedreid_pl.config.bounds import check_bounds, check_texts
from fedreid_pl.config.documents import dump, parse_document, read_document
from fedreid_pl.config.fidelity import code_settings
from fedreid_pl.config.layers import Values, composed, of_document, of_word
from fedreid_pl.config.schema import DEFAULTS, Config, EngineConfig
from fedreid_pl.config.schema_model import OptimConfig
from fedreid_pl.config.trusted import trust
from fedreid_pl.errors import FedReIDError, nearest

# Keys that set folders, speed and output. They do not change what a run computes.
PLACE_KEYS = (
    *("output_dir", "resume", "logger", "data.workers", "data.cache", "data.cache_dir", "data.minireid_dir"),
    *("engine.name", "engine.address", "engine.slots", "engine.cpus_per_client", "engine.gpus_per_client"),
    *("engine.client_state", "engine.federation", "engine.deadline"),
    *("report.images", "report.queries", "report.embedding", "report.rerank"),
    *("wandb.project", "wandb.entity", "wandb.images", "wandb.artifact"),
)

AUTO = "trainer.precision"

SHORT = {"engine": "engine.name", "federation": "engine.federation"}
"""Short forms of keys."""


def compose(words: Iterable[str]) -> Config:
    """Returns the configuration for the words `exp=NAME data=NAME key=value ...`.

    `exp` and `data` choose a shipped YAML file by name or any file by its path. Every other word sets one dotted
    key. Later sources win: schema, `base.yaml`, the data file, the experiment file, the settings of `fidelity=code`,
    the words.

    Raises:
        FedReIDError: for an unknown key, name or file, a value of the wrong type or out of bounds.

    >>> compose(["exp=fedpav_rw", "rounds=3"]).rounds
    3
    """
    chosen: dict[str, str] = {}
    overrides: list[tuple[str, str]] = []
    for word in words:
        name, value = _split(word, "rounds=30")
        if name in ("exp", "data"):
            chosen[name] = value
        else:
            overrides.append((SHORT.get(name, name), value))
    chosen.setdefault("exp", "fedpav")
    chosen.setdefault("data", default_data([value for name, value in overrides if name == "data.root"]))
    origins: dict[str, str] = {}
    data_name, data_values = _choose("data", chosen["data"], origins)
    exp_name, exp_values = _choose("exp", chosen["exp"], origins)
    shipped = [_load("base.yaml"), {"data": {"name": data_name}}, data_values, {"name": exp_name}, exp_values]
    own = [of_word(name, value, f"{name}={value}") for name, value in overrides]
    config = composed([*shipped, *own])
    if config.fidelity == "code":  # the words come last, so they can override single settings of the code
        code = [_under(name, setting) for name, setting in code_settings(config.callbacks).items()]
        config = composed([*shipped, *code, *own])
    _finish(config, origins)
    _check_new(config)
    trust(config.model.name)  # only words and files of the user are read here
    return config


def default_data(roots: Sequence[str]) -> str:
    """Returns the default of `data=`: `auto` if `data.root` is a folder other than MiniReID's, else `minireid`.

    >>> default_data([]), default_data(["."])
    ('minireid', 'auto')
    """
    root = Path(os.path.expanduser(roots[-1])) if roots and roots[-1] not in ("", "null") else None
    return "auto" if root is not None and os.path.isdir(root) and not (root / "manifest.json").is_file() else "minireid"


def check_run_folder(folder: Path, source: str = "", hint: str = "") -> None:
    """Checks that a folder is the folder of a run.

    Args:
        source: beginning of the message, such as `run=`.
        hint: end of the message: what to do.

    Raises:
        FedReIDError: if the folder has no config.yaml.
    """
    if not (folder / "config.yaml").is_file():
        raise FedReIDError(f"{source}{folder} is not a run folder: it has no config.yaml{hint}")


def load_config(path: Path, words: Iterable[str] = ()) -> Config:
    """Returns the configuration that a run saved in `config.yaml`, changed by `words`.

    `data=NAME` replaces the whole data section except the image size, which belongs to the model.

    Raises:
        FedReIDError: as in `compose`, or if the file is missing or is not a configuration.
    """
    origins: dict[str, str] = {}
    values = {"defaults": 1, **of_document(read_document(path), str(path), origins)}
    overrides: list[tuple[str, str]] = []
    for word in words:
        name, value = _split(word, "data.root=/datasets")
        if name != "data":
            overrides.append((SHORT.get(name, name), value))
            continue
        data_name, data_values = _choose("data", value, origins)
        before = values.get("data", {})
        size = {key: before[key] for key in ("height", "width") if key in before}
        values = {**values, "data": {**data_values.get("data", {}), **size, "name": data_name}}
    own = [of_word(name, value, f"{name}={value}") for name, value in overrides]
    for name, value in overrides:
        if name == "model.name":
            trust(value)  # the user wrote this name; a name from the file is not trusted
    return _finish(composed([values, *own]), origins)


def to_yaml(config: Config) -> str:
    """Returns the configuration as YAML text that `load_config` reads back to an equal object."""
    return dump(asdict(config))


def differences(one: Config, other: Config) -> list[str]:
    """Returns the dotted keys in which two configurations differ, except `PLACE_KEYS`.

    `trainer.precision=auto` equals any precision of the other configuration, because a run saves the precision that
    `auto` selected.
    """
    left, right = flat(asdict(one)), flat(asdict(other))
    names = sorted(set(left) | set(right))
    same = (*PLACE_KEYS, *([AUTO] if "auto" in (left[AUTO], right[AUTO]) else []))
    return [name for name in names if name not in same and left.get(name) != right.get(name)]


def fingerprint(config: Config) -> str:
    """Returns twelve hexadecimal digits that are equal for configurations that compute the same."""
    values = {name: value for name, value in flat(asdict(config)).items() if name not in PLACE_KEYS}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def available(kind: str) -> list[str]:
    """Returns the sorted names of the shipped files of `"exp"` or `"data"`."""
    folder = resources.files("fedreid_pl.configs") / kind
    return sorted(item.name[:-5] for item in folder.iterdir() if item.name.endswith(".yaml"))


def _check_new(config: Config) -> None:
    """Refuses keys that only a saved configuration may set, and keys without effect on engine or schedule."""
    if config.defaults != DEFAULTS:
        raise FedReIDError(
            f"defaults={config.defaults}: this version of fedreid_pl uses defaults={DEFAULTS}; leave the key out"
        )
    for name, value in asdict(config.engine).items():
        engine = "silos" if name in ("federation", "deadline") else "ray"
        if value != getattr(EngineConfig(), name) and name != "name" and config.engine.name != engine:
            raise FedReIDError(
                f"engine.{name}={value}: has no effect with engine={config.engine.name}; add engine={engine}"
            )
    optim, usual = config.optim, OptimConfig()
    for name, none in (("step", 0), ("gamma", 1.0)):
        value = getattr(optim, name)
        if optim.schedule != "step" and value not in (none, getattr(usual, name)):
            raise FedReIDError(
                f"optim.{name}={value}: has no effect under optim.schedule={optim.schedule}; "
                "add optim.schedule=step, or leave it out"
            )


def _finish(config: Config, origins: dict[str, str]) -> Config:
    """Removes the callbacks that are set to null, checks the values, and returns the configuration."""
    config.model.weights = config.model.weights or "none"
    config.callbacks = {name: options for name, options in config.callbacks.items() if options is not None}
    _check_finite(config.callbacks, "callbacks")
    check_texts(config)
    check_bounds(config, origins=origins)
    return config


def _split(word: str, example: str) -> tuple[str, str]:
    """Returns the key and the value of a word `key=value`."""
    categories = {unicodedata.category(mark) for mark in word}
    if categories & {"Cc", "Zl", "Zp"}:
        raise FedReIDError(f"{word!r}: contains a line break or another control character")
    if "Cs" in categories:
        raise FedReIDError(f"{word!r}: is not valid UTF-8")
    name, equals, value = word.partition("=")
    if not equals or not name:
        hint = next((f"; write {kind}={word}" for kind in ("exp", "data") if word in available(kind)), "")
        hint = hint or (f"; write {word}=VALUE" if word in flat(asdict(Config())) else "")
        raise FedReIDError(f"'{word}': expected key=value, such as {example}{hint}")
    return name, value


def _check_finite(value: Any, name: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _check_finite(item, f"{name}.{key}")
    elif isinstance(value, list):
        for item in value:
            _check_finite(item, name)
    elif isinstance(value, float) and not math.isfinite(value):
        raise FedReIDError(f"{name}={value}: must be finite")


def _choose(kind: str, name: str, origins: dict[str, str]) -> tuple[str, Values]:
    if name.endswith((".yaml", ".yml")):
        path = Path(os.path.expanduser(name))
        return path.stem, of_document(read_document(path), str(path), origins)
    if name not in available(kind):
        own = "/" in name or os.path.exists(os.path.expanduser(name))
        hint = "; the name of your own file must end with .yaml" if own else nearest(name, available(kind))
        raise FedReIDError(f"{kind}={name}: no such configuration{hint}")
    return name, _load(f"{kind}/{name}.yaml")


@cache
def _load(name: str) -> Values:
    text = (resources.files("fedreid_pl.configs") / name).read_text(encoding="utf-8")
    return of_document(parse_document(text, name), name, {})


def _under(name: str, value: Any) -> Any:
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested values as one dict with dotted keys; an empty section counts as a value."""
    rows: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            rows |= flat(value, f"{prefix}{name}.")
        else:
            rows[prefix + name] = value
    return rows
