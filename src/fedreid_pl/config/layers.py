"""Reads what one source (a file or a word) sets, checks it against the schema, and merges sources with OmegaConf."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import Field, fields, is_dataclass
from functools import cache
from typing import Any, get_type_hints

from omegaconf import DictConfig, OmegaConf

from fedreid_pl.config.documents import Section, parse_value
from fedreid_pl.config.inert import hidden, shown
from fedreid_pl.config.schema import Config
from fedreid_pl.config.values import Scalar, typed
from fedreid_pl.config.yaml_bounds import DEEPEST
from fedreid_pl.errors import FedReIDError, nearest

Values = dict[str, Any]


def of_document(section: Section, source: str, origins: dict[str, str]) -> Values:
    """Returns the typed values of a YAML file, and adds the file and line of every key to `origins`.

    Raises:
        FedReIDError: for an unknown key or a value of the wrong type; the message names file, line and key.
    """
    return _section(section, Config, "", source, origins)


def of_word(name: str, text: str, source: str) -> Values:
    """Returns the nested value that the word `name=text` sets.

    A list `[ONE,TWO]` and a section `{KEY: VALUE}` are written as in YAML. Any other text is used literally, including
    quotes, `#` and `: `.

    Raises:
        FedReIDError: for an unknown key or a value of the wrong type.
    """
    parts = name.split(".")
    if len(parts) > DEEPEST:
        raise FedReIDError(f"{source[:300]}: nested too deeply")
    if "" in parts:
        raise FedReIDError(f"{source}: '{name}' has an empty part; expected key=value, such as optim.lr_head=0.05")
    option = parts[0] == "callbacks" and len(parts) > 2
    if not text and option:
        raise FedReIDError(f"{source}: no value; leave {name}= out, or write {name}=null where the option allows that")
    quoted = option and len(text) > 1 and text[0] in "'\"" and text[-1] == text[0]
    # Options of callbacks have no type here, so quotes mark a number as text.
    structured = quoted or (text.startswith(("[", "{")) and _nests(parts))
    value: Any = parse_value(text, source) if structured else Scalar(text)
    for part in reversed(parts):
        section = Section()
        section[part] = value
        value = section
    return _section(value, Config, "", source, {})


def composed(layers: Iterable[Values]) -> Config:
    """Returns the defaults of the schema merged with the layers by OmegaConf; later layers win.

    Sections are merged, all other values are replaced. Texts such as `${...}` and `???` stay as they are.
    """
    merged = OmegaConf.unsafe_merge(copy.deepcopy(_schema()), *map(hidden, layers))
    config = shown(OmegaConf.to_object(merged))
    assert isinstance(config, Config)
    return config


def is_section(schema: Any, name: str) -> bool:
    """Returns whether a key of a schema is a section with keys of its own."""
    return is_dataclass(_known(schema)[name].default_factory)


def _section(section: Any, schema: Any, prefix: str, source: str, origins: dict[str, str]) -> Values:
    known, kinds = _known(schema), _kinds(schema)
    values: Values = {}
    for name, value in section.items():
        where = f"{source}, line {section.lines[name]}" if name in section.lines else source
        if name not in known:
            raise FedReIDError(f"{where}: unknown key '{prefix}{name}'{_key_hint(str(name), prefix, list(known))}")
        key = prefix + name
        if known[name].default_factory is dict or is_section(schema, name):
            if not isinstance(value, Mapping):
                raise FedReIDError(f"{where}: '{key}' is a section, set {key}.KEY=VALUE")
            inner = known[name].default_factory
            values[name] = (
                _free(value, where, key) if inner is dict else _section(value, inner, f"{key}.", source, origins)
            )
            continue
        if isinstance(value, Mapping):
            raise FedReIDError(f"{where}: '{key}' is not a section; set {key}=VALUE")
        if isinstance(value, Scalar) and not value.text and name not in section.lines and kinds[name] is not str:
            raise FedReIDError(f"{where}: no value; leave {key}= out, or write {key}=null where the key allows that")
        origins[key] = where
        values[name] = _read(value, kinds[name], known[name], where, key)
    return values


def _key_hint(name: str, prefix: str, known: list[str]) -> str:
    """Returns the key that an unknown key may stand for: the same name in a section, else a similar name."""
    if not prefix:
        inside = [f"{section}.{name}" for section in known if is_section(Config, section) and name in _inner(section)]
        if inside:
            return f", did you mean {' or '.join(repr(key) for key in inside)}?"
    hint = nearest(name, known)
    return hint.replace("did you mean '", f"did you mean '{prefix}") if prefix else hint


def _inner(section: str) -> dict[str, Field]:
    schema: Any = _known(Config)[section].default_factory
    return _known(schema)


def _read(value: Any, kind: Any, item: Field, where: str, key: str) -> Any:
    try:
        return typed(value, kind, path=bool(item.metadata.get("path")))
    except ValueError as error:
        shown = f": {key}={_shown(value)}" if not where.startswith(key + "=") else ""
        raise FedReIDError(f"{where[:300]}{shown}: {error}") from error


def _free(section: Mapping[str, Any], where: str, key: str) -> Values:
    """Returns the untyped options below `callbacks`; a callback name with an empty value has no options."""
    try:
        return {
            name: {} if isinstance(value, Scalar) and value == Scalar("") else typed(value, Any)
            for name, value in section.items()
        }
    except ValueError as error:
        raise FedReIDError(f"{where[:300]}: {key}: {error}") from error


def _nests(parts: list[str]) -> bool:
    """Returns whether a key takes lists or sections; for other keys a leading bracket is part of the text."""
    schema: Any = Config
    for part in parts:
        if part not in _known(schema):
            return True  # the error about the unknown key follows later
        kind = _kinds(schema)[part]
        if not is_section(schema, part):
            return kind not in (str, str | None)
        schema = _known(schema)[part].default_factory
    return True


def _shown(value: Any) -> str:
    return value.text[:80] if isinstance(value, Scalar) else "[...]"


@cache
def _known(schema: Any) -> dict[str, Field]:
    return {item.name: item for item in fields(schema)}


@cache
def _kinds(schema: Any) -> dict[str, Any]:
    return get_type_hints(schema)


@cache
def _schema() -> DictConfig:
    return OmegaConf.structured(Config)
