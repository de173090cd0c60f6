"""Imports follow one direction, and the round loop names no algorithm; the tests parse the source."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fedreid_pl
import fedreid_pl.callbacks

PACKAGE = Path(str(fedreid_pl.__file__)).parent
CALLBACKS = Path(str(fedreid_pl.callbacks.__file__)).parent
LEAVES = {"errors", "bounded", "config", "installed"}
BELOW = {
    "errors": set(),
    "bounded": {"errors"},
    "installed": {"errors"},
    "config": {"errors", "bounded"},
    "functional": {"errors"},
    "metrics": {"functional", *LEAVES},
    "models": {"functional", *LEAVES},
    "data": {"functional", *LEAVES},
    "training_record": set(),
    "client": {"functional", "metrics", "models", "data", "training_record", *LEAVES},
}
BELOW["run_weights"] = {"reporting", "federation", "client", *BELOW["client"]}
BELOW["start"] = {"run_weights", *BELOW["run_weights"]}
BELOW["federation"] = {"client", *BELOW["client"]}
BELOW["engines"] = {"clients", "callbacks", "inspection", "reporting", "federation", *BELOW["federation"]}
BELOW["callbacks"] = {"federation", *BELOW["federation"]}
BELOW["reporting"] = {"federation", *BELOW["federation"]}
BELOW["inspection"] = {"reporting", *BELOW["reporting"]}
BELOW["clients"] = {"callbacks", "inspection", "start", *BELOW["inspection"]}
BELOW["resume"] = {"reporting", *BELOW["reporting"]}
BELOW["comparison"] = {"callbacks", "reporting", "start", *BELOW["reporting"]}
"""Maps a part of the package to the parts that it may import. Parts that are not listed may import all others."""


def source_files() -> list[tuple[str, Path]]:
    """Returns (module, file) for the package and the callbacks."""
    files = [(".".join(path.relative_to(PACKAGE).with_suffix("").parts), path) for path in PACKAGE.rglob("*.py")]
    if CALLBACKS.parent != PACKAGE:
        files += [(f"callbacks.{path.stem}", path) for path in CALLBACKS.glob("*.py")]
    return sorted(files)


def for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports(tree: ast.AST, module: str, types: bool = False) -> Iterator[tuple[int, str]]:
    """Yields (line, module below fedreid_pl) of every import, also inside functions; `types` adds imports for types."""
    for node in ast.iter_child_nodes(tree):
        if for_types_only(node) and not types:
            continue
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = ["fedreid_pl", *module.split(".")][: -node.level] if node.level else []
            source = ".".join([*package, *([node.module] if node.module else [])])
            whole = types or source == "fedreid_pl"
            names = [f"{source}.{alias.name}" for alias in node.names] if whole else [source]
        for name in names:
            if name.startswith("fedreid_pl."):
                yield node.lineno, name.removeprefix("fedreid_pl.")
        yield from imports(node, module, types)


def breaches(module: str, text: str, name: str) -> list[str]:
    part = module.split(".")[0]
    if part not in BELOW:
        return []
    allowed = {part, "__version__", *BELOW[part]}
    return [
        f"{name}:{line}: {part} imports {target}"
        for line, target in imports(ast.parse(text), module)
        if target.split(".")[0] not in allowed
    ]


def test_all_files_are_read() -> None:
    names = {module for module, _ in source_files()}
    assert {"errors", "config.compose", "federation.server.loop", "callbacks.backbone_sync", "cli", "client"} <= names
    assert set(BELOW) <= {module.split(".")[0] for module in names}


def test_imports_follow_one_direction() -> None:
    found = [
        breach
        for module, path in source_files()
        for breach in breaches(module, path.read_text(), f"{module} ({path.name})")
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("federation.server.loop", "import fedreid_pl.callbacks.backbone_sync"),
        ("federation.server.loop", "from fedreid_pl.callbacks import callback_factory"),
        ("federation.server.loop", "from fedreid_pl import callbacks"),
        ("federation.server.loop", "from ...callbacks import backbone_sync"),
        ("federation.server.loop", "def f():\n    try:\n        from fedreid_pl.callbacks import x\n    finally: pass"),
        ("functional.ranking", "from fedreid_pl.metrics.retrieval import ReIDRetrieval"),
        ("data.images", "import fedreid_pl.models.ide"),
        ("config.schema", "from fedreid_pl.functional import schedule"),
        ("errors", "from fedreid_pl import config"),
        ("client", "from fedreid_pl.federation.messages import ClientJob"),
    ],
)
def test_a_violation_is_found(module: str, text: str) -> None:
    assert len(breaches(module, text, "file")) == 1


def test_an_import_for_types_only_is_allowed() -> None:
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from fedreid_pl.callbacks import x\n"
    assert breaches("federation.server.loop", text, "file") == []


def test_the_drawing_names_existing_folders_and_files() -> None:
    page = (PACKAGE.parents[1] / "docs" / "architecture.md").read_text()
    drawing = page.split("```")[1]
    boxes = re.findall(r"[a-z/]+/(?=[ :\n|])|[a-z_/]+\.py", drawing)
    assert len(boxes) > 20 and {"federation/server/", "federation/client/", "engines/"} <= set(boxes)
    places = ("", "federation", "federation/server", "federation/client")
    for box in boxes:
        assert any((PACKAGE / place / box).exists() for place in places), box


@pytest.mark.parametrize("name", ["server/loop", "engine", "client/worker", "callback"])
def test_the_federation_names_no_algorithm(name: str) -> None:
    text = (PACKAGE / "federation" / f"{name}.py").read_text().lower()
    algorithms = {path.stem for path in CALLBACKS.glob("*.py")} - {"__init__"}
    algorithms |= {stem.replace("_", "") for stem in algorithms}
    algorithms |= {"fedpav", "fedavg", "fedprox", "fednova", "fedadam", "finch", "distillation", "distance", "krum"}
    found = sorted(
        f"{number}: {word}" for number, line in enumerate(text.splitlines(), 1) for word in algorithms if word in line
    )
    assert not found, found


def modules_used() -> dict[str, set[str]]:
    """Returns every module of the package with the modules that it imports, including imports for types."""
    files = {module.removesuffix(".__init__"): path for module, path in source_files()}
    used: dict[str, set[str]] = {}
    for module, path in files.items():
        found = set()
        inside = f"{module}.__init__" if path.name == "__init__.py" else module
        for _, name in imports(ast.parse(path.read_text()), inside, types=True):
            while name and name not in files:
                name = name.rpartition(".")[0]
            found.add(name)
        used[module] = found - {module, ""}
    return used


def circles(used: dict[str, set[str]]) -> list[set[str]]:
    """Returns groups of modules that import each other directly or indirectly."""
    reach = {module: set(names) for module, names in used.items()}
    changed = True
    while changed:
        changed = False
        for names in reach.values():
            more = set().union(*(reach.get(name, set()) for name in names)) - names
            changed, _ = changed or bool(more), names.update(more)
    inside = {module for module, names in reach.items() if module in names}
    return [set(group) for group in {frozenset(reach[module] & inside) for module in inside}]


def test_no_modules_import_each_other_not_even_for_types() -> None:
    assert circles(modules_used()) == []


def test_a_cycle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [{"b", "c"}]


def test_the_two_halves_of_the_federation_never_import_each_other() -> None:
    used = modules_used()
    assert {"federation.server.loop", "federation.client.worker"} <= set(used)
    for module, names in used.items():
        for half, other in (("server", "client"), ("client", "server")):
            if module.startswith(f"federation.{half}"):
                assert not {name for name in names if name.startswith(f"federation.{other}")}, module


@pytest.mark.parametrize(
    ("loads", "stays_out"),
    [
        (
            "from fedreid_pl.callbacks import callback_factory, known_callbacks; "
            "[__import__(f'fedreid_pl.callbacks.{name}') for name in known_callbacks()]; import fedreid_pl.clients",
            "server",
        ),
        ("import fedreid_pl.federation.server.loop", "client"),
    ],
)
def test_a_process_of_one_half_has_not_loaded_the_other(loads: str, stays_out: str) -> None:
    script = f"import sys; {loads}; print([name for name in sys.modules if 'federation.{stays_out}' in name])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_config_needs_no_torch() -> None:
    """A mistyped key is reported in milliseconds, without an import of torch or Lightning."""
    script = (
        "import sys, fedreid_pl.cli, fedreid_pl.config as config; config.compose(['exp=fedpav'])\n"
        "print(sorted({'torch', 'pytorch_lightning', 'wandb', 'torchvision'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
