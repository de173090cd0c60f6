"""Composition of a run's configuration: schema <- base <- data <- experiment <- command line."""

from __future__ import annotations

import hashlib
import json
import math
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedreid_pl.config.bounds import check_bounds
from fedreid_pl.config.fidelity import code_settings
from fedreid_pl.config.inert import hidden, shown
from fedreid_pl.config.schema import DEFAULTS, Config, OptimConfig
from fedreid_pl.config.yaml_bounds import check_yaml
from fedreid_pl.errors import FedReIDError, nearest, printable

# Keys that say where a run is kept, how fast it reads and what it shows, not what it computes.
PLACE_KEYS = (
    *("output_dir", "resume", "logger", "data.workers", "data.cache", "data.cache_dir"),
    *("report.images", "report.queries", "report.embedding"),
    *("wandb.project", "wandb.entity", "wandb.images", "wandb.artifact"),
)

AUTO = "trainer.precision"


def compose(words: Iterable[str]) -> Config:
    """The configuration that `exp=NAME data=NAME key=value ...` stands for.

    `exp` and `data` choose a shipped YAML file by name or any file by its path; every other word sets one
    dotted key. Later sources win: schema, `base.yaml`, the data file, the experiment file, what `fidelity=code`
    stands for, the words.

    Raises:
        FedReIDError: for an unknown key, name or file, a value of the wrong type or out of bounds.

    >>> compose(["exp=fedpav_rw", "rounds=3"]).rounds
    3
    """
    chosen = {"exp": "fedpav", "data": "minireid"}
    overrides: list[tuple[str, str]] = []
    for word in words:
        _check_word(word)
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise FedReIDError(f"'{word}': expected key=value, such as rounds=30")
        if name in chosen:
            chosen[name] = value
        else:
            overrides.append((name, value))

    config = OmegaConf.structured(Config)
    config = _merge(config, _load("base.yaml"), "base.yaml")
    data_name, data_values = _choose("data", chosen["data"])
    config = _merge(config, {"data": {"name": data_name}}, "data=" + data_name)
    config = _merge(config, data_values, f"data={chosen['data']}")
    exp_name, exp_values = _choose("exp", chosen["exp"])
    config = _merge(config, {"name": exp_name}, "exp=" + exp_name)
    config = _merge(config, exp_values, f"exp={chosen['exp']}")
    composed = _override(config, overrides)
    if composed.fidelity == "code":  # below the words, which may take single settings back
        callbacks = OmegaConf.to_container(composed.callbacks)
        for name, setting in code_settings(callbacks).items():  # type: ignore[arg-type]
            config = _merge(config, _under(name, setting), "fidelity=code")
        composed = _override(config, overrides)
    finished = _finish(composed)
    _check_new(finished)
    return finished


def load_config(path: Path, words: Iterable[str] = ()) -> Config:
    """A run's saved `config.yaml`, with `words` on top.

    `data=NAME` replaces the whole data section but for the size of the images, which belongs to the model.

    Raises:
        FedReIDError: as `compose`, or if the file is missing or not a configuration.
    """
    config = OmegaConf.structured(Config)
    saved = {"defaults": 1, **_read_yaml(path)}
    words = list(words)
    for word in words:
        _check_word(word)
        name, _, value = word.partition("=")
        if name == "data":
            data_name, values = _choose("data", value)
            before = saved.get("data")
            size = (
                {key: before[key] for key in ("height", "width") if key in before} if isinstance(before, dict) else {}
            )
            saved["data"] = {**values.get("data", {}), **size, "name": data_name}
    config = _merge(config, saved, str(path))
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise FedReIDError(f"'{word}': expected key=value, such as data.root=/datasets")
        if name != "data":
            config = _merge(config, _nested(name, value), word)
    return _finish(config)


def to_yaml(config: Config) -> str:
    """The configuration as YAML that `load_config` reads back to an equal object."""
    return yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True)


def differences(one: Config, other: Config) -> list[str]:
    """Dotted keys in which two configurations compute something different (`PLACE_KEYS` left out).

    `trainer.precision=auto` is the one that the other configuration has: a run records what it stands for.
    """
    left, right = flat(asdict(one)), flat(asdict(other))
    names = sorted(set(left) | set(right))
    same = (*PLACE_KEYS, *([AUTO] if "auto" in (left[AUTO], right[AUTO]) else []))
    return [name for name in names if name not in same and left.get(name) != right.get(name)]


def fingerprint(config: Config) -> str:
    """Twelve hexadecimal digits that are equal for configurations that compute the same."""
    values = {name: value for name, value in flat(asdict(config)).items() if name not in PLACE_KEYS}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def available(kind: str) -> list[str]:
    """Names of the shipped files of `"exp"` or `"data"`, sorted."""
    folder = resources.files("fedreid_pl.configs") / kind
    return sorted(item.name[:-5] for item in folder.iterdir() if item.name.endswith(".yaml"))


def _check_new(config: Config) -> None:
    """Refuses what only a saved configuration may say, and rates that the schedule would not look at."""
    if config.defaults != DEFAULTS:
        raise FedReIDError(
            f"defaults={config.defaults}: this fedreid_pl composes with defaults={DEFAULTS}; leave the key out"
        )
    optim, usual = config.optim, OptimConfig()
    for name, none in (("step", 0), ("gamma", 1.0)):
        value = getattr(optim, name)
        if optim.schedule != "step" and value not in (none, getattr(usual, name)):
            raise FedReIDError(
                f"optim.{name}={value}: has no effect under optim.schedule={optim.schedule}; "
                "add optim.schedule=step, or leave it out"
            )


def _finish(config: DictConfig) -> Config:
    try:
        composed = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise FedReIDError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    assert isinstance(composed, Config)
    _show(composed)
    composed.callbacks = {
        name: {} if options in ("", {}) else options
        for name, options in composed.callbacks.items()
        if options is not None
    }
    _check_plain(composed.callbacks, "callbacks")
    if not all(isinstance(name, str) for name in composed.data.datasets):
        raise FedReIDError("data.datasets: expected names of folders, data.datasets=[ONE,TWO]")
    check_bounds(composed)
    return composed


def _show(section: Any) -> None:
    """Gives every text of a configuration its `${` back, which is text and nothing else."""
    for item in fields(section):
        value = getattr(section, item.name)
        if is_dataclass(value):
            _show(value)
        else:
            setattr(section, item.name, shown(value))


def _override(config: DictConfig, words: Iterable[tuple[str, str]]) -> DictConfig:
    for name, value in words:
        config = _merge(config, _nested(name, value), f"{name}={value}")
    return config


def _check_word(word: str) -> None:
    if any(unicodedata.category(mark) in ("Cc", "Zl", "Zp") for mark in word):
        raise FedReIDError(f"{word!r}: holds a line break or another control character")


def _check_plain(value: Any, name: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise FedReIDError(f"{name}: the key {key!r} is not text")
            _check_plain(item, f"{name}.{key}")
    elif isinstance(value, list):
        for item in value:
            _check_plain(item, name)
    elif isinstance(value, float) and not math.isfinite(value):
        raise FedReIDError(f"{name}={value}: must be finite")
    elif value is not None and not isinstance(value, bool | int | float | str):
        raise FedReIDError(f"{name}: values of type {type(value).__name__} are not taken")


def _choose(kind: str, name: str) -> tuple[str, dict[str, Any]]:
    if name.endswith((".yaml", ".yml")):
        return Path(name).stem, _read_yaml(Path(name))
    if name not in available(kind):
        raise FedReIDError(f"{kind}={name}: no such configuration{nearest(name, available(kind))}")
    return name, _load(f"{kind}/{name}.yaml")


def _load(name: str) -> dict[str, Any]:
    return _parse((resources.files("fedreid_pl.configs") / name).read_text(encoding="utf-8"), name)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        return _parse(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise FedReIDError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise FedReIDError(f"{path}: is not a text file in UTF-8") from error


def _parse(text: str, source: str) -> dict[str, Any]:
    try:
        check_yaml(text, source)
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2026-02-30
        raise FedReIDError(f"{source}: not valid YAML ({' '.join(str(error).split())})") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise FedReIDError(f"{source}: expected keys and values, found {type(values).__name__}")
    return values


def _nested(name: str, value: str) -> dict[str, Any]:
    parsed: Any = value
    try:
        if not _takes_text(name):
            check_yaml(value, f"{name}={printable(value)}")
        parsed = yaml.safe_load(value) if value else ""
        if isinstance(parsed, str):  # YAML 1.1 reads 1e-3 as text
            parsed = float(parsed) if any(mark in parsed for mark in "0123456789") else parsed
    except (yaml.YAMLError, ValueError, RecursionError):
        pass
    if parsed is not None and value[:1] not in ("'", '"') and _takes_text(name):
        parsed = value  # 007 and 2026-01-31 are names there
    return _under(name, parsed)


def _under(name: str, value: Any) -> Any:
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def _takes_text(name: str) -> bool:
    section, _, last = name.rpartition(".")
    schema: Any = {"": Config, **{item.name: item.default_factory for item in fields(Config)}}.get(section)
    kinds = {item.name: item.type for item in fields(schema)} if is_dataclass(schema) else {}
    return kinds.get(last) in ("str", "str | None")


def _merge(config: DictConfig, values: Mapping[str, Any], source: str) -> DictConfig:
    _check_keys(values, Config, "", source)
    try:
        return OmegaConf.merge(config, hidden(values))  # type: ignore[return-value]
    except RecursionError as error:
        raise FedReIDError(f"{source[:300]}: nested too deeply") from error
    except (OmegaConfBaseException, TypeError) as error:  # TypeError: a list where keys are expected
        reason = str(error).splitlines()[0]
        where = f" at {key}" if (key := getattr(error, "full_key", None)) else ""
        raise FedReIDError(f"{source}: {reason}{where}") from error


def _check_keys(values: Mapping[str, Any], schema: type, prefix: str, source: str) -> None:
    known = {item.name: item for item in fields(schema)}
    for name, value in values.items():
        if name not in known:
            hint = nearest(str(name), list(known))
            raise FedReIDError(f"{source}: unknown key '{prefix}{name}'{hint}")
        section = known[name].default_factory
        if (section is dict or is_dataclass(section)) and not isinstance(value, Mapping):
            raise FedReIDError(f"{source}: '{prefix}{name}' is a section, set {prefix}{name}.KEY=VALUE")
        if isinstance(section, type) and is_dataclass(section):
            _check_keys(value, section, f"{prefix}{name}.", source)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys as dotted ones; an empty section is a value."""
    rows: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            rows |= flat(value, f"{prefix}{name}.")
        else:
            rows[prefix + name] = value
    return rows
