"""Hostile words and YAML files: the program neither expands, resolves nor executes them."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fedreid_pl.callbacks import callback_factory
from fedreid_pl.cli import main
from fedreid_pl.config import compose, load_config, reproducing_words, to_yaml

SECRET = "xyzzy-secret-4711"
RESOLVERS = (
    "${oc.env:SECRET}",
    "${oc.decode:${oc.env:SECRET}}",
    "${seed}",
    "a ${oc.create:{a: 1}} b",
    "\\${oc.env:SECRET}",
)


def laughs(levels: int) -> str:
    """Returns a text whose anchors expand to ten to the power of `levels` words."""
    lines = ["a0: &a0 lol"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels + 1)]
    return "\n".join(lines) + f"\ncallbacks: {{backbone_sync: *a{levels}}}\n"


@pytest.mark.parametrize("text", RESOLVERS)
@pytest.mark.parametrize("key", ["data.root", "wandb.project", "model.weights", "output_dir", "data.datasets"])
def test_a_resolver_in_a_word_is_text(key: str, text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRET", SECRET)
    value = [text] if key == "data.datasets" else text
    config = compose(["exp=fedpav", f"{key}={json.dumps(value) if key == 'data.datasets' else text}"])
    section, _, name = key.rpartition(".")
    assert getattr(getattr(config, section) if section else config, name) == value
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert SECRET not in (tmp_path / "config.yaml").read_text()
    assert load_config(tmp_path / "config.yaml") == config
    assert SECRET not in " ".join(reproducing_words(config))


@pytest.mark.parametrize("text", RESOLVERS)
def test_a_resolver_in_a_file_is_text(text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRET", SECRET)
    for name in ("exp.yaml", "data.yaml", "config.yaml"):
        (tmp_path / name).write_text(f"data:\n  root: {json.dumps(text)}\n")
    for config in (
        compose([f"exp={tmp_path / 'exp.yaml'}"]),
        compose([f"data={tmp_path / 'data.yaml'}"]),
        load_config(tmp_path / "config.yaml"),
    ):
        assert config.data.root == text


def test_a_resolver_is_refused_as_an_option_of_a_callback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("SECRET", "3")
    config = compose(["exp=fedprox", "callbacks.fedprox.mu=${oc.env:SECRET}"])
    with pytest.raises(Exception, match=r"callbacks\.fedprox\.mu"):
        callback_factory(config.callbacks)
    assert main(["train", "rounds=${oc.env:SECRET}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "rounds" in said and len(said.splitlines()) == 1


FILES: dict[str, tuple[Callable[[], str], str]] = {
    "laughs": (lambda: laughs(9), "line 1: anchors and aliases"),
    "a loop": (lambda: "callbacks: &a\n  b: *a\n", "line 1: anchors and aliases"),
    "a merge": (lambda: "optim: &o {step: 1}\nloss:\n  <<: *o\n", "line 1: anchors and aliases"),
    "a tag": (lambda: "rounds: !!python/object/apply:os.system ['true']\n", "line 1: tags"),
    "deep": (lambda: "rounds: 1\ncallbacks: " + "[" * 10_000 + "]" * 10_000 + "\n", "nested too deeply"),
    "deep keys": (lambda: "".join(f"{' ' * n}a:\n" for n in range(400)), "nested too deeply"),
    "long": (lambda: "callbacks: [" + "1," * 400_000 + "]\n", "bytes, at most"),
    "many": (lambda: "callbacks: [" + "1," * 30_000 + "]\n", "more than 20,000 keys and values"),
    "two documents": (lambda: "rounds: 1\n---\nrounds: 2\n", "line 2: a second document"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["exp", "data", "run"])
def test_a_hostile_file_is_refused_in_one_line(
    name: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    make, message = FILES[name]
    path = tmp_path / "config.yaml"
    path.write_text(make())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    words = ["evaluate", f"run={tmp_path}"] if kind == "run" else ["train", f"{kind}={path}"]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {path}") and message in line
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024, "kilobytes"


def test_an_expanding_text_uses_no_memory(tmp_path: Path) -> None:
    """The process is limited to 400 MB; the text would expand to a thousand million words."""
    (tmp_path / "bomb.yaml").write_text(laughs(9))
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))\n"
        f"from fedreid_pl.config import compose\ncompose(['exp={tmp_path / 'bomb.yaml'}'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert "FedReIDError" in done.stderr and "anchors" in done.stderr and "MemoryError" not in done.stderr
