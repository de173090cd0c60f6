"""The list of methods: complete, consistent with the code, and equal in the terminal and on its page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fedreid_pl.callbacks import callbacks_of, find_callback, known_callbacks
from fedreid_pl.cli import main
from fedreid_pl.config import available, compose
from fedreid_pl.methods import BASELINES, list_methods, methods_page, methods_text

PAGE = Path(__file__).parent.parent / "docs" / "methods.md"
VARIANTS = {
    *("fedpav_equal", "fedpav_images", "fedpav_large", "fedpav_small", "fedpav_rw_clipped"),  # ablations
    *("fedpav_cc_rw", "fedpav_kd_rw"),  # two methods at once
}
"""Experiments that are not separate methods."""


def test_every_experiment_is_a_method_or_a_variant() -> None:
    assert {one.name for one in list_methods()} == set(available("exp")) - VARIANTS


def test_every_callback_declares_its_methods() -> None:
    for name in known_callbacks():
        kind = find_callback(name)
        assert kind.methods, f"callbacks/{name}.py: methods is empty"
        for experiment in kind.methods:
            assert name in compose([f"exp={experiment}"]).callbacks


def test_the_texts_continue_their_headings() -> None:
    for one in list_methods():
        method = one.method
        for text in (method.does, method.verified, method.exchanged, method.stays, *method.needs):
            assert text and not text.endswith(".") and "|" not in text and "\n" not in text, (one.name, text)
        assert re.search(r"\d{4}", method.paper) or method.purpose == "baseline", one.name


@pytest.mark.parametrize(
    ("name", "state"), [("fedpav", ("client",)), ("scaffold", ("client", "server")), ("fedopt", ("server",))]
)
def test_the_state_of_a_method_is_derived_from_the_code(name: str, state: tuple[str, ...]) -> None:
    experiment = {"fedopt": "fedadam"}.get(name, name)
    assert {one.name: one.state for one in list_methods()}[experiment] == state


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == methods_page(), "run fedreid-pl methods out=docs/methods.md"


def test_the_command(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    assert main(["methods"]) == 0
    listed = capsys.readouterr().out
    for one in list_methods():
        assert re.search(rf"^{one.name} +{re.escape(one.method.title)}", listed, re.MULTILINE)
    assert main(["methods", "scaffold"]) == 0
    entry = " ".join(capsys.readouterr().out.split())
    method = find_callback("scaffold").methods["scaffold"]
    assert all(text in entry for text in (method.paper, method.exchanged, method.stays, method.verified))
    assert main(["methods", f"out={tmp_path / 'page.md'}"]) == 0
    assert (tmp_path / "page.md").read_text() == PAGE.read_text()
    assert BASELINES["local"].title in PAGE.read_text()


@pytest.mark.parametrize(
    ("words", "hint"), [(["scafold"], "did you mean 'scaffold'"), (["a", "b"], "give one name"), (["out="], "out=")]
)
def test_other_words_are_refused(words: list[str], hint: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["methods", *words]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ") and hint in said and "\n" not in said


def test_a_method_is_printed_with_its_options(capsys: pytest.CaptureFixture) -> None:
    assert main(["methods", "fedprox"]) == 0
    assert "  callbacks.fedprox.mu=0.01\n" in capsys.readouterr().out


@pytest.mark.parametrize("name", available("exp"))
def test_printed_options_are_the_defaults_as_words_of_train(name: str) -> None:
    printed = [line.strip() for line in methods_text(name).splitlines() if line.startswith("  callbacks.")]
    config = compose([f"exp={name}", *printed])
    plain = compose([f"exp={name}"])
    assert list(config.callbacks) == list(plain.callbacks)
    for callback, given in plain.callbacks.items():
        assert given.items() <= config.callbacks[callback].items()
    callbacks_of(config)  # raises an error for an unknown option or a wrong type
