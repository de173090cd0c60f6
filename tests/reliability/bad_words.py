"""Random invalid command-line words and YAML files; the program must refuse each with one line."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from fedreid_pl.callbacks import callback_factory, find_callback, known_callbacks
from fedreid_pl.config import Config, available, compose, describe

Action = Callable[[], Any]
KEYS = [key for key, _, _ in describe()]
SECTIONS = [item.name for item in fields(Config) if is_dataclass(item.default_factory)]


def limits(schema: type = Config, prefix: str = "") -> dict[str, Any]:
    """Returns (type, bounds) of every key."""
    found: dict[str, Any] = {}
    for item in fields(schema):
        if is_dataclass(item.default_factory):
            found |= limits(item.default_factory, f"{prefix}{item.name}.")  # type: ignore[arg-type]
        else:
            found[prefix + item.name] = (str(item.type), item.metadata)
    return found


LIMITS = limits()
NUMBERS = [key for key, (kind, _) in LIMITS.items() if kind.split(" ")[0] in ("int", "float")]
BOUNDED = [
    key for key in NUMBERS if {"at_least", "above", "at_most"} & {k for k, v in LIMITS[key][1].items() if v is not None}
]
CHOICES = [key for key, (_, limit) in LIMITS.items() if limit["choices"]]
FLAGS = [key for key, (kind, _) in LIMITS.items() if kind == "bool"]


def typo(word: str, draws: random.Random) -> str:
    """Returns the word with one letter removed, doubled, changed or swapped."""
    place = draws.randrange(len(word))
    letter = draws.choice("abcdefghijklmnopqrstuvwxyz")
    return draws.choice(
        [
            word[:place] + word[place + 1 :],
            word[:place] + word[place] + word[place:],
            word[:place] + letter + word[place + 1 :],
            word[:place] + word[place + 1 : place + 2] + word[place : place + 1] + word[place + 2 :],
        ]
    )


def composing(*words: str) -> Action:
    """Returns an action that composes the configuration and creates the callbacks, as `train` does first."""
    return lambda: callback_factory(compose(words).callbacks)


def unknown_key(draws: random.Random, folder: Path) -> tuple[str, Action]:
    while (key := typo(draws.choice(KEYS), draws)) in (*KEYS, *SECTIONS, "exp", "data", "callbacks", ""):
        pass
    word = f"{key}={draws.choice(['1', 'x', 'null', '[1]'])}"
    return word, composing(word)


def out_of_bounds(draws: random.Random, folder: Path) -> tuple[str, Action]:
    key = draws.choice(BOUNDED)
    kind, limit = LIMITS[key]
    beyond = []
    step = draws.choice([1, 2, 1000]) if kind.startswith("int") else draws.choice([1e-9, 0.5, 1e12])
    if limit["at_least"] is not None:
        beyond.append(limit["at_least"] - step)
    if limit["above"] is not None:
        beyond += [limit["above"], limit["above"] - step]
    if limit["at_most"] is not None:
        beyond.append(limit["at_most"] + step)
    if kind.startswith("float"):
        beyond += [float("inf"), float("nan")]
    value = draws.choice(beyond)
    word = f"{key}={f'.{value}' if value != value or abs(value) == float('inf') else value}"
    return word, composing(word)


def wrong_type(draws: random.Random, folder: Path) -> tuple[str, Action]:
    key = draws.choice([*NUMBERS, *FLAGS])
    values = ["many", "[1, 2]", "{a: 1}", "2026-01-31", "'", "1 2", "0x", "--1", "1,5"]
    if LIMITS[key][0].startswith("int"):
        values += ["1.5", "true", "1e400"]
    elif key not in FLAGS:
        values += ["false"]
    word = f"{key}={draws.choice(values)}"
    return word, composing(word)


def invalid_choice(draws: random.Random, folder: Path) -> tuple[str, Action]:
    key = draws.choice(CHOICES)
    choices = LIMITS[key][1]["choices"]
    while (value := typo(draws.choice(choices), draws)) in (*choices, "", "~") or value.lower() == "null":
        pass
    word = f"{key}={value}"
    return word, composing(word)


def invalid_word(draws: random.Random, folder: Path) -> tuple[str, Action]:
    key = draws.choice(KEYS)
    section = draws.choice(SECTIONS)
    words = [key, f"={key}", f"{key} 3", f"--{key}", f"{key}=1\n2", f"{key}\x00=1", f"{key}.more=1", f"{section}=3"]
    words += [f"{section}=[1, 2]", f".{key}=1", f"{key}..x=1", f"callbacks={draws.choice('abc')}", "=", "a=b=c\x07"]
    word = draws.choice(words)
    if word.startswith(("callbacks.", "data=")):
        word = "rounds"
    return word, composing(word)


def unknown_name(draws: random.Random, folder: Path) -> tuple[str, Action]:
    kind = draws.choice(["exp", "data"])
    names = available(kind)
    while (name := typo(draws.choice(names), draws)) in names:
        pass
    word = f"{kind}={draws.choice([name, name + '.yaml', '/no/such/' + name + '.yaml', ''])}"
    return word, composing(word)


def unknown_callback(draws: random.Random, folder: Path) -> tuple[str, Action]:
    names = known_callbacks()
    while (name := typo(draws.choice(names), draws)) in names:
        pass
    word = f"callbacks.{name}={{}}"
    return word, composing(word)


def invalid_option(draws: random.Random, folder: Path) -> tuple[str, Action]:
    name = draws.choice(known_callbacks())
    options = list(inspect.signature(find_callback(name).__init__).parameters)[1:]
    kinds = inspect.get_annotations(find_callback(name).__init__, eval_str=False)
    known = draws.choice(options)
    if draws.random() < 0.5 or "str" in str(kinds.get(known)):
        while (option := typo(known, draws)) in (*options, ""):
            pass
        word = f"callbacks.{name}.{option}=1"
    else:
        word = f"callbacks.{name}.{known}={draws.choice(['nonsense', '[1, 2]', '{a: 1}', '.nan'])}"
    return word, composing(word)


def bad_yaml(draws: random.Random, folder: Path) -> tuple[str, Action]:
    file = folder / f"{draws.choice(['exp', 'data'])}.yaml"
    key = typo(draws.choice(["rounds", "optim", "callbacks", "batch_size"]), draws) + "x"
    content = draws.choice(
        [
            bytes(draws.randrange(256) for _ in range(draws.randrange(1, 60))) + b"\xff",
            f"{key}: 3\n".encode(),
            b"- 1\n- 2\n",
            b"rounds: [1, 2\n",
            b"rounds: {a: 1}\n",
            b"optim: 3\n",
            b"rounds: 2026-02-30\n",
            b"rounds: !!python/object/apply:os.getcwd []\n",
            b"a: &x [*x]\n",
            b"text",
            b"rounds: ${nothing.there}\n",
            b"callbacks: {reweighting: {mix: 7}}\n",
            b"callbacks: {1: {}}\n",
            b"[" * draws.randrange(2000, 5000),
        ]
    )
    file.write_bytes(content)
    return repr(content[:60]), composing(f"{file.stem}={file}")


WORDS = [
    unknown_key,
    out_of_bounds,
    wrong_type,
    invalid_choice,
    invalid_word,
    unknown_name,
    unknown_callback,
    invalid_option,
    bad_yaml,
]
