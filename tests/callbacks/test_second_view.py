"""The control with two passes: twice the gradient if both passes process the same input."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import step_parts
import support
import torch

from fedreid_pl.callbacks.second_view import SecondView
from fedreid_pl.cli import main
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.storage import read_state


def gradients(*callbacks: SecondView, **loss: float) -> list[torch.Tensor]:
    client = step_parts.make_client(*callbacks, dropout=0.0, **loss)
    client._loss(step_parts.make_batch()).backward()
    return [value.grad for value in client.parameters() if value.grad is not None]


@pytest.mark.parametrize("loss", [{}, {"triplet": 0.7}])
def test_without_dropout_the_gradient_is_a_multiple_of_one_pass(loss: dict[str, float]) -> None:
    one, two, half = gradients(**loss), gradients(SecondView(), **loss), gradients(SecondView(0.5), **loss)
    for plain, twice, more in zip(one, two, half, strict=True):
        torch.testing.assert_close(twice, 2 * plain, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(more, 1.5 * plain, rtol=1e-4, atol=1e-6)


def test_weight_zero_equals_fedpav_to_the_bit_and_one_does_not(tiny_root: Path, tmp_path: Path) -> None:
    words = support.quick(tiny_root, tmp_path, "trainer.accelerator=cpu", "rounds=1", "data.datasets=[mini-viper]")
    found = {}
    for name, exp, word in (
        ("plain", "fedpav", "seed=0"),
        ("zero", "fedpav_twice", "callbacks.second_view.weight=0"),
        ("one", "fedpav_twice", "seed=0"),
    ):
        assert main(["train", f"exp={exp}", *words, word, f"output_dir={tmp_path / name}"]) == 0
        found[name] = read_state(tmp_path / name / "checkpoints" / "round-00001.ckpt")["models"]
    support.assert_equal(found["plain"], found["zero"])
    assert any(not torch.equal(value, found["one"]["global"][key]) for key, value in found["plain"]["global"].items())


@pytest.mark.parametrize("weight", [-0.1, math.inf, math.nan])
def test_an_invalid_weight_is_refused(weight: float) -> None:
    with pytest.raises(FedReIDError, match=r"callbacks\.second_view\.weight"):
        SecondView(weight)
