"""Mistakes in a callback of another package: one line that names the callback and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import fedreid_pl.callbacks as registry
from fedreid_pl import FederationCallback, FedReIDError
from fedreid_pl.callbacks import callback_factory
from fedreid_pl.engines.sequential import failure
from fedreid_pl.federation.messages import ClientJob
from fedreid_pl.federation.own_callbacks import check_new_models, check_state


class MisspeltHook(FederationCallback):
    def on_agregation_start(self, federation: Any, updates: Any, weights: Any) -> None: ...


class MisspeltLoss(FederationCallback):
    def trainings_loss(self, *arguments: Any) -> None: ...


class OldArguments(FederationCallback):
    def training_loss(self, pl_module: Any, features: Any) -> None: ...  # type: ignore[override]


class Text(FederationCallback):
    needs = "average"  # type: ignore[assignment]


class Unknown(FederationCallback):
    needs = ("avrage",)  # type: ignore[assignment]


class Refusing(FederationCallback):
    def __init__(self, beta: float = 0.1) -> None:
        raise ValueError("beta is too small")


class Untyped(FederationCallback):
    def __init__(self, beta=0.1) -> None: ...  # type: ignore[no-untyped-def]


class Good(FederationCallback):
    needs = ()

    def helper(self) -> None: ...

    def on_train_start(self, trainer: Any, pl_module: Any) -> None: ...

    def training_loss(self, *arguments: Any) -> None: ...


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        (MisspeltHook, "there is no hook on_agregation_start, did you mean 'on_aggregation_start'?"),
        (MisspeltLoss, "there is no hook trainings_loss, did you mean 'training_loss'?"),
        (OldArguments, "pl_module, batch, embeddings, features, logits); change its signature"),
        (Text, "needs is a text; write a tuple, needs = ('average',)"),
        (Unknown, "'avrage' is not a capability, did you mean 'average'?"),
        (Refusing, "callbacks.mine: beta is too small"),
        (Untyped, "callbacks.mine.beta: this option has no type in the constructor of Untyped"),
    ],
)
def test_a_mistake_in_the_class(kind: type[FederationCallback], wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "load_installed", lambda group, name: kind)
    options = {"beta": 0.2} if kind is Untyped else {}
    with pytest.raises(FedReIDError) as caught:
        callback_factory({"mine": options})
    assert str(caught.value).startswith("callbacks.mine") and wanted in str(caught.value)


def test_own_methods_and_free_arguments_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "load_installed", lambda group, name: Good)
    assert list(callback_factory({"mine": {}})()) == ["mine"]


@pytest.mark.parametrize("state", [None, [1], {"a": object()}, {"a": [{"b": lambda: 0}]}, {"a": {"b": pytest}}])
def test_a_state_that_no_checkpoint_can_contain(state: Any) -> None:
    with pytest.raises(FedReIDError, match=r"callbacks\.mine: state_dict returned"):
        check_state("mine", "state_dict", state)


def test_states_that_a_checkpoint_can_contain() -> None:
    state = {"a": torch.ones(2), "b": [1, 2.0, "x", None, (True, b"x")], "c": {3: {4}}, "d": torch.float64}
    assert check_state("mine", "state_dict", state) is state


LIKE = {"w": torch.zeros(2, 3), "n": torch.tensor(3)}


@pytest.mark.parametrize(
    ("models", "wanted"),
    [
        (None, "made NoneType instead of models"),
        ({"global": {"w": torch.zeros(2, 3)}}, "another 'n': no such tensor"),
        ({"global": {**LIKE, "w": torch.zeros(3)}}, "torch.float32 (3,), expected torch.float32 (2, 3)"),
        ({"global": {**LIKE, "w": torch.zeros(2, 3).double()}}, "torch.float64"),
        ({"global": {**LIKE, "w": torch.full((2, 3), torch.nan)}}, "NaN or infinite values in 'w'"),
    ],
)
def test_models_that_do_not_fit(models: Any, wanted: str) -> None:
    with pytest.raises(FedReIDError) as caught:
        check_new_models(models, LIKE, {"backbone_sync": None, "mine": None}, 4)
    assert str(caught.value).startswith("round 4: the callbacks backbone_sync, mine made") and wanted in str(
        caught.value
    )
    check_new_models({"global": dict(LIKE)}, LIKE, {}, 4)


def test_a_failure_names_the_line_of_the_users_code() -> None:
    def raised(call: Callable[[], Any]) -> str:
        try:
            call()
        except Exception as error:
            return failure(ClientJob("fit", "s", 1, 1, "a"), error).detail
        return ""

    namespace: dict[str, Any] = {"__name__": "labs_code"}
    exec(compile("\n\ndef hook(x):\n    return x.nothing", "/home/me/labs_code.py", "exec"), namespace)
    assert raised(lambda: namespace["hook"](3)).endswith(" (labs_code.py, line 4)")
