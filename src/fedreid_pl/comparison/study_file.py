"""A study as data: named groups of experiments, each with a number of seeds, read from YAML."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from fedreid_pl.config import available
from fedreid_pl.config.documents import Section, parse_document, read_document
from fedreid_pl.config.values import Scalar, whole_number
from fedreid_pl.errors import FedReIDError, nearest, printable

KEYS = ("words", "groups", "small")
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Group:
    """Experiments that are trained with the same seeds.

    Attributes:
        experiments: names or YAML files, each with `+KEY=VALUE` overrides.
        seeds: number of seeds; the seeds start at 0.
    """

    name: str
    experiments: tuple[str, ...]
    seeds: int


@dataclass(frozen=True)
class Study:
    """A study: groups in the order in which they are trained, and the words of every run.

    Attributes:
        name: name of the file without its ending.
        words: `KEY=VALUE` that every run has.
    """

    name: str
    words: tuple[str, ...]
    groups: tuple[Group, ...]


def read_study(name: str, small: bool = False) -> Study:
    """Returns the study with a shipped name, or the study in a YAML file.

    The file has the keys `words` (a list of `KEY=VALUE`), `groups` (by name: `seeds`, `experiments`) and may have
    `small`, which defines a quick pass: `seeds` (at most), `groups` (names) and `words` (in addition to the others).

    Args:
        name: name or path, such as `main` or `studies/own.yaml`.
        small: whether to return the quick pass.

    Raises:
        FedReIDError: if there is no such study, or the file has another form.

    >>> study = read_study("main", small=True)
    >>> [group.name for group in study.groups], study.groups[0].seeds
    (['main'], 3)
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(os.path.expanduser(name))
        return _study(path.stem, read_document(path), str(path), small)
    if name not in available("study"):
        raise FedReIDError(f"study {name}: no such study{nearest(name, available('study'))}")
    text = (resources.files("fedreid_pl.configs") / "study" / f"{name}.yaml").read_text(encoding="utf-8")
    return _study(name, parse_document(text, f"study/{name}.yaml"), f"study/{name}.yaml", small)


def chosen_groups(study: Study, names: Sequence[str]) -> Study:
    """Returns a study with only the named groups, in the order of the study.

    Raises:
        FedReIDError: if a name is not a group of the study.
    """
    known = [group.name for group in study.groups]
    if not names:
        raise FedReIDError(f"groups=: give groups of study {study.name}: {', '.join(known)}")
    for name in names:
        if name not in known:
            raise FedReIDError(f"groups={name}: study {study.name} has no such group{nearest(name, known)}")
    return Study(study.name, study.words, tuple(group for group in study.groups if group.name in names))


def _study(name: str, document: Section, source: str, small: bool) -> Study:
    _check_keys(document, KEYS, source)
    groups = document.get("groups")
    if not isinstance(groups, Mapping) or not groups:
        raise FedReIDError(f"{source}: groups: expected a group of experiments by its name")
    words = _texts(document.get("words", []), f"{source}: words")
    study = Study(name, words, tuple(_group(key, value, source) for key, value in groups.items()))
    return _small(study, document.get("small"), source) if small else study


def _group(name: str, value: Any, source: str) -> Group:
    where = f"{source}: groups.{name}"
    if not isinstance(value, Mapping):
        raise FedReIDError(f"{where}: expected seeds and experiments")
    _check_keys(value, ("seeds", "experiments"), where)
    experiments = _texts(value.get("experiments", []), f"{where}.experiments")
    if not experiments:
        raise FedReIDError(f"{where}.experiments: expected a list of experiments, [local, fedpav]")
    return Group(name, experiments, _count(value.get("seeds"), f"{where}.seeds"))


def _small(study: Study, value: Any, source: str) -> Study:
    if not isinstance(value, Mapping):
        raise FedReIDError(f"small=true: study {study.name} has no quick pass; write one under small: in {source}")
    _check_keys(value, ("seeds", "groups", "words"), f"{source}: small")
    seeds = _count(value.get("seeds"), f"{source}: small.seeds")
    names = _texts(value.get("groups", []), f"{source}: small.groups")
    chosen = chosen_groups(study, names or [group.name for group in study.groups])
    groups = tuple(Group(group.name, group.experiments, min(seeds, group.seeds)) for group in chosen.groups)
    words = _texts(value.get("words", []), f"{source}: small.words")
    return Study(study.name, (*study.words, *words), groups)


def _check_keys(section: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in section:
        if key not in known:
            raise FedReIDError(f"{where}: unknown key '{key}'{nearest(key, list(known))}")


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, Scalar) for item in value):
        raise FedReIDError(f"{where}: expected a list, [ONE, TWO]")
    return tuple(item.text for item in value)


def _count(value: Any, where: str) -> int:
    text = value.text if isinstance(value, Scalar) else ""
    count = whole_number(text)
    if count is None or not 0 < count <= MOST_SEEDS:
        found = printable(text) or ("nothing" if value is None else "a list or a section")
        raise FedReIDError(f"{where}: expected the number of seeds, 1 to {MOST_SEEDS}, found {found}")
    return count
