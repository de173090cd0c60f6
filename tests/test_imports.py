"""Imports point one way, and the round loop knows no algorithm: read from the source, not from what runs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fedreid_pl
import fedreid_pl.callbacks

PACKAGE = Path(str(fedreid_pl.__file__)).parent
CALLBACKS = Path(str(fedreid_pl.callbacks.__file__)).parent
LEAVES = {"errors", "config"}
BELOW = {
    "errors": set(),
    "config": {"errors"},
    "functional": {"errors"},
    "metrics": {"functional", *LEAVES},
    "models": {"functional", *LEAVES},
    "data": {"functional", *LEAVES},
    "client": {"functional", "metrics", "models", "data", *LEAVES},
}
BELOW["federation"] = {"client", *BELOW["client"]}
BELOW["engines"] = {"federation", *BELOW["federation"]}
BELOW["callbacks"] = {"federation", *BELOW["federation"]}
BELOW["reporting"] = {"federation", *BELOW["federation"]}
BELOW["resume"] = {"reporting", *BELOW["reporting"]}
BELOW["comparison"] = {"callbacks", "reporting", *BELOW["reporting"]}
"""Every part of the package and the parts that it may import. What is not here is at the top."""


def source_files() -> list[tuple[str, Path]]:
    """(module, file) of the package and of the callbacks."""
    files = [(".".join(path.relative_to(PACKAGE).with_suffix("").parts), path) for path in PACKAGE.rglob("*.py")]
    if CALLBACKS.parent != PACKAGE:
        files += [(f"callbacks.{path.stem}", path) for path in CALLBACKS.glob("*.py")]
    return sorted(files)


def for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports(tree: ast.AST, module: str) -> Iterator[tuple[int, str]]:
    """(line, module below fedreid_pl) of every import, those inside functions too."""
    for node in ast.iter_child_nodes(tree):
        if for_types_only(node):
            continue
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = ["fedreid_pl", *module.split(".")][: -node.level] if node.level else []
            source = ".".join([*package, *([node.module] if node.module else [])])
            names = [f"{source}.{alias.name}" for alias in node.names] if source == "fedreid_pl" else [source]
        for name in names:
            if name.startswith("fedreid_pl."):
                yield node.lineno, name.removeprefix("fedreid_pl.")
        yield from imports(node, module)


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


def test_imports_point_one_way() -> None:
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
def test_a_breach_is_found(module: str, text: str) -> None:
    assert len(breaches(module, text, "file")) == 1


def test_an_import_for_types_only_is_none() -> None:
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from fedreid_pl.callbacks import x\n"
    assert breaches("federation.server.loop", text, "file") == []


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


def test_config_needs_no_torch() -> None:
    """A mistyped key is reported in milliseconds: neither torch nor Lightning is imported for it."""
    script = (
        "import sys, fedreid_pl.cli, fedreid_pl.config as config; config.compose(['exp=fedpav'])\n"
        "print(sorted({'torch', 'pytorch_lightning', 'wandb', 'torchvision'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
