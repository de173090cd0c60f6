"""The registry: a file defines a callback, its constructor is the schema, and errors name the mistake."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Literal

import pytest

import fedreid_pl.callbacks as registry
from fedreid_pl.callbacks import callback_factory, find_callback, known_callbacks
from fedreid_pl.callbacks.backbone_sync import BackboneSync
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.callback import FederationCallback

FOLDER = Path(str(registry.__file__)).parent


class Picky(FederationCallback):
    """A callback with options of every kind."""

    def __init__(self, rate: float = 0.5, steps: int = 3, mode: Literal["near", "far"] = "near", on: bool = False):
        self.options = (rate, steps, mode, on)
        if steps > 100:
            raise FedReIDError(f"callbacks.picky.steps={steps}: too many")


@pytest.fixture
def picky(monkeypatch: pytest.MonkeyPatch) -> None:
    real = registry.find_callback
    monkeypatch.setattr(registry, "find_callback", lambda name: Picky if name == "picky" else real(name))


def test_every_file_is_known_and_defines_one_class() -> None:
    files = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")
    assert known_callbacks() == files and {"backbone_sync", "reweighting"} <= set(files)
    for name in files:
        kind = find_callback(name)
        assert issubclass(kind, FederationCallback) and kind.__module__ == f"fedreid_pl.callbacks.{name}"
        assert kind.__name__.lower() == name.replace("_", "")
        classes = [
            node for node in ast.parse((FOLDER / f"{name}.py").read_text()).body if isinstance(node, ast.ClassDef)
        ]
        derived = [node for node in classes if any("FederationCallback" in ast.unparse(base) for base in node.bases)]
        assert [node.name for node in derived] == [kind.__name__]
        specs: dict[str, dict] = {**({"backbone_sync": {}} if kind.needs else {}), name: {}}
        assert callback_factory(specs)()[name].__class__ is kind, "every option has a default"


@pytest.mark.parametrize("count", [0, 2])
def test_a_file_must_define_exactly_one_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    lines = ["from fedreid_pl.federation.callback import FederationCallback"]
    lines += [f"class C{number}(FederationCallback): pass" for number in range(count)]
    (tmp_path / f"mistaken_{count}.py").write_text("\n".join(lines))
    monkeypatch.setattr(registry, "__path__", [*registry.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    with pytest.raises(TypeError, match=f"exactly one subclass of FederationCallback, found {count}"):
        find_callback(f"mistaken_{count}")


def test_every_call_creates_new_callbacks_in_the_order_of_the_configuration() -> None:
    make = callback_factory({"backbone_sync": {"batch_norm": "first"}, "reweighting": {}, "fedprox": {}})
    one, other = make(), make()
    assert list(one) == ["backbone_sync", "reweighting", "fedprox"]
    assert not {id(callback) for callback in one.values()} & {id(callback) for callback in other.values()}
    assert isinstance(one["backbone_sync"], BackboneSync) and one["backbone_sync"].batch_norm == "first"
    assert callback_factory({})() == {}


@pytest.mark.parametrize(
    ("specs", "wanted"),
    [
        ({"backbonesync": {}}, "callbacks.backbonesync: no such callback, did you mean 'backbone_sync'?"),
        ({"zzz": {}}, "known: backbone_sync"),
        ({"__init__": {}}, "no such callback"),
        ({"backbone_sync": {"batchnorm": "first"}}, "did you mean 'batch_norm'?"),
        (
            {"backbone_sync": {"batch_norm": "frist"}},
            "callbacks.backbone_sync.batch_norm=frist: must be one of average",
        ),
        ({"backbone_sync": {"batch_norm": None}}, "must be one of average"),
        ({"backbone_sync": {"batch_norm": ["first"]}}, "must be one of average"),
        ({"backbone_sync": 5}, "callbacks.backbone_sync=5: expected options"),
        ({"backbone_sync": False}, "expected options"),
        ({"backbone_sync": {}, "reweighting": {"tempo": 2}}, "callbacks.reweighting.tempo: no such option"),
        (
            {"reweighting": {}},
            "callbacks.reweighting: needs exchange (the server sends every client a backbone, and the client "
            "returns the trained backbone), but no callback of this experiment provides it; add "
            "callbacks.backbone_sync",
        ),
        (
            {"reweighting": {}, "backbone_sync": {}},
            "which callbacks.backbone_sync provides; list callbacks.reweighting after callbacks.backbone_sync",
        ),
        (
            {"backbone_sync": {}, "clustering": {}, "distillation": {}},
            "callbacks.clustering and callbacks.distillation cannot be combined: callbacks.distillation needs one_glo",
        ),
        ({"picky": {"rate": "fast"}}, "callbacks.picky.rate="),
        ({"picky": {"steps": 1.5}}, "callbacks.picky.steps="),
        ({"picky": {"on": [1]}}, "callbacks.picky.on="),
        ({"picky": {"steps": None}}, "callbacks.picky.steps="),
        ({"picky": {"steps": 101}}, "too many"),
    ],
)
@pytest.mark.usefixtures("picky")
def test_mistakes_are_refused_when_the_factory_is_made(specs: dict, wanted: str) -> None:
    with pytest.raises(FedReIDError) as caught:
        callback_factory(specs)
    assert wanted in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.usefixtures("picky")
def test_values_are_converted_to_the_types_of_the_signature() -> None:
    made = callback_factory({"picky": {"rate": 1, "mode": "far", "on": "true"}})()["picky"]
    assert isinstance(made, Picky) and made.options == (1.0, 3, "far", True)
    assert type(made.options[0]) is float and type(made.options[3]) is bool
