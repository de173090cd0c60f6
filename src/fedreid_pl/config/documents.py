"""Reads and writes the YAML of configurations: keys, scalars and lists of YAML 1.2, within bounds and without tags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from fedreid_pl.bounded import read_bounded
from fedreid_pl.config.values import Scalar, plain
from fedreid_pl.config.yaml_bounds import MOST_BYTES, check_yaml
from fedreid_pl.errors import FedReIDError, printable


class Section(dict):
    """A mapping of a YAML file; `lines` holds the line number of every key."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, int] = {}


def read_document(path: Path) -> Section:
    """Returns the keys and values of a YAML file; the leaves are `Scalar` objects.

    Raises:
        FedReIDError: if the file cannot be read, is not YAML, or is too large.
    """
    try:
        return parse_document(read_bounded(path, MOST_BYTES).decode("utf-8-sig"), str(path))
    except (OSError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise FedReIDError(f"{path}: is not a text file in UTF-8") from error
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise FedReIDError(f"{printable(str(path), 300)}: cannot be read ({reason})") from error


def parse_document(text: str, source: str) -> Section:
    """Returns the keys and values of a YAML text; the leaves are `Scalar` objects. An empty text has no keys.

    Raises:
        FedReIDError: if the text is not valid; the message names `source` and the line.
    """
    root = _compose(text, source)
    if root is None or (isinstance(root, yaml.ScalarNode) and not root.value and root.style is None):
        return Section()
    if not isinstance(root, yaml.MappingNode):
        raise FedReIDError(f"{source}: expected keys and values, found {_name(root)}")
    return _Reader(source).read(root)


def parse_value(text: str, source: str) -> Any:
    """Returns the list, mapping or quoted text of one command-line word; the leaves are `Scalar` objects.

    Raises:
        FedReIDError: if the text is not YAML.
    """
    return _Reader(source, lines=False).read(_compose(text, source))


def dump(values: dict[str, Any]) -> str:
    """Returns nested plain values as YAML that reads back equal."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """YAML loader that leaves every scalar untyped, because the schema defines the types."""

    yaml_implicit_resolvers: dict[str, Any] = {}


class _Dumper(yaml.SafeDumper):
    """YAML dumper that quotes a text if it would otherwise be read as another type."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain(text) == text else "'")


_Dumper.add_representer(str, _text)


class _Reader:
    """Converts YAML nodes to values. `check_yaml` has checked their number and depth before."""

    def __init__(self, source: str, lines: bool = True) -> None:
        self.source, self.lines = source, lines

    def read(self, node: Any) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return Scalar(node.value, quoted=node.style is not None)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item) for item in node.value]
        section = Section()
        for name, value in node.value:
            key = self._key(name)
            if key in section:
                raise FedReIDError(f"{self._at(name)}: the key '{key}' occurs twice; keep one of them")
            section.lines[key] = name.start_mark.line + 1
            section[key] = self.read(value)
        return section

    def _key(self, node: Any) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise FedReIDError(f"{self._at(node)}: expected the name of a key, found {_name(node)}")
        if node.style is None and not isinstance(plain(node.value), str):
            shown = printable(node.value)
            raise FedReIDError(f"{self._at(node)}: unknown key '{shown}'; the key {shown} is not text")
        return node.value

    def _at(self, node: Any) -> str:
        return f"{self.source[:300]}, line {node.start_mark.line + 1}" if self.lines else self.source[:300]


def _compose(text: str, source: str) -> Any:
    try:
        check_yaml(text, source[:300])
        return yaml.compose(text, Loader=_Loader)
    except RecursionError as error:
        raise FedReIDError(f"{source[:300]}: not valid YAML (nested too deeply)") from error
    except (yaml.YAMLError, ValueError) as error:
        raise FedReIDError(f"{source[:300]}{_fault(error, text)}") from error


def _fault(error: Exception, text: str) -> str:
    """Returns the end of the message for a text that is not YAML: its line, the fault, and what to do."""
    mark = getattr(error, "problem_mark", None)
    reason = str(getattr(error, "problem", None) or error).replace('"<unicode string>", ', "")
    line = f", line {min(mark.line, text.count(chr(10))) + 1}" if mark is not None and "\n" in text else ""
    hint = "; indent with spaces instead of tabs" if "'\\t'" in reason else ""
    return f"{line}: not valid YAML ({printable(' '.join(reason.split()), 300)}){hint}"


def _name(node: Any) -> str:
    return {"mapping": "a section", "sequence": "a list"}.get(getattr(node, "id", ""), "text")
