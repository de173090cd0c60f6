"""Capabilities decide which callbacks combine: all pairs in both orders, and the messages of a refusal."""

from __future__ import annotations

from itertools import combinations
from typing import Any, get_args

import pytest

import fedreid_pl.callbacks as registry
from fedreid_pl.callbacks import callback_factory, find_callback, known_callbacks
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.callback import FederationCallback
from fedreid_pl.federation.capabilities import CAPABILITIES, Capability, check_combination, check_names

# Written by hand from the papers, not from the declarations: pairs that do not combine in any order ...
REFUSED = {
    *("clustering distillation", "clustering fednova", "clustering fedopt", "clustering robust", "clustering scaffold"),
    *("clustering differential_privacy", "differential_privacy distillation", "differential_privacy fednova"),
    *("differential_privacy reweighting", "differential_privacy robust", "differential_privacy scaffold"),
    *("distillation robust", "fednova robust", "fednova scaffold", "fedopt scaffold"),
    *("reweighting robust", "robust scaffold", "clustering sscu"),
    *("differential_privacy style_bank", "robust style_bank"),
    # ... because a client evaluates only one personal model
    *("ditto dual_norm", "ditto fedbabu", "ditto fedreid_decentralised", "dual_norm fedbabu"),
    *("dual_norm fedreid_decentralised", "fedbabu fedreid_decentralised"),
}
# ... and pairs that need this order: the server's optimizer steps towards the result of the other callback.
ORDERED = {"differential_privacy fedopt", "fednova fedopt", "robust fedopt"}


def accepted(*names: str) -> bool:
    try:
        callback_factory({"backbone_sync": {}, **{name: {} for name in names}})
    except FedReIDError:
        return False
    return True


PAIRS = list(combinations([name for name in known_callbacks() if name != "backbone_sync"], 2))


@pytest.mark.parametrize("pair", PAIRS, ids=" ".join)
def test_every_pair_is_accepted_or_refused_as_the_algorithms_require(pair: tuple[str, str]) -> None:
    one, other = pair
    for names in ((one, other), (other, one)):
        refused = " ".join(sorted(names)) in REFUSED or f"{names[1]} {names[0]}" in ORDERED
        assert accepted(*names) is not refused, names


def test_the_table_names_only_existing_callbacks() -> None:
    assert {name for pair in REFUSED | ORDERED for name in pair.split()} <= set(known_callbacks())


@pytest.mark.parametrize("name", [name for name in known_callbacks() if name != "backbone_sync"])
def test_callbacks_on_exchanged_models_must_come_after_the_exchange(name: str) -> None:
    if not find_callback(name).needs:
        pytest.skip("works without an exchange")
    with pytest.raises(FedReIDError, match=rf"callbacks\.{name}: needs (exchange|average) \(.*; add callbacks\."):
        callback_factory({name: {}})
    with pytest.raises(FedReIDError, match=rf"list callbacks\.{name} after callbacks\.backbone_sync$"):
        callback_factory({name: {}, "backbone_sync": {}})


def test_a_refusal_names_the_capability_and_the_callbacks_that_need_and_remove_it() -> None:
    with pytest.raises(FedReIDError) as caught:
        callback_factory({"backbone_sync": {}, "fedopt": {}, "clustering": {}})
    assert str(caught.value) == (
        "callbacks.fedopt and callbacks.clustering cannot be combined: callbacks.fedopt needs one_global_model (all "
        "clients share one model), which callbacks.clustering removes; remove one of the two"
    )


def made(**declared: Any) -> type[FederationCallback]:
    return type("Made", (FederationCallback,), declared)


def plug(monkeypatch: pytest.MonkeyPatch, **kinds: type[FederationCallback]) -> None:
    real = registry.find_callback
    monkeypatch.setattr(registry, "find_callback", lambda name: kinds.get(name) or real(name))


def test_a_callback_without_declarations_is_refused_if_single_updates_are_protected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plug(monkeypatch, tomorrow=made(), careful=made(needs=("exchange",)))
    for protection in ("differential_privacy", "robust"):
        with pytest.raises(FedReIDError, match=rf"tomorrow needs sees_single_updates .* callbacks\.{protection} remov"):
            callback_factory({"backbone_sync": {}, protection: {}, "tomorrow": {}})
        assert accepted(protection, "careful")
    assert callback_factory({"tomorrow": {}})(), "the loop provides the capability"


def test_a_callback_that_depends_on_the_order_of_clients_needs_a_sequential_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plug(monkeypatch, chain=made(needs=("sequential_order",)))
    assert callback_factory({"chain": {}})()
    with pytest.raises(FedReIDError, match=r"callbacks\.chain: needs sequential_order .* nor engine=ray provides it; "):
        callback_factory({"chain": {}}, engine="ray", provides=())


def test_declarations_must_be_known_capabilities() -> None:
    assert set(get_args(Capability)) == set(CAPABILITIES)
    for name in known_callbacks():
        check_names(find_callback(name))
    with pytest.raises(TypeError, match="'one_globl_model' is not a capability, did you mean 'one_global_model'"):
        check_names(made(needs=("one_globl_model",)))
    with pytest.raises(TypeError, match="'weights,' is not a capability"):
        check_names(made(provides="weights,"))


def test_a_need_is_met_only_after_all_callbacks_that_provide_it() -> None:
    first, second = made(provides=("average",), needs=()), made(provides=("average",), needs=())
    last = made(needs=("average",))
    check_combination({"a": first, "b": second, "c": last}, {})
    with pytest.raises(FedReIDError, match=r"^c: needs average .* which b provides; list c after b$"):
        check_combination({"a": first, "c": last, "b": second}, {})
    with pytest.raises(FedReIDError, match=r"no callback of this experiment provides it; add a$"):
        check_combination({"c": last}, {}, [("x", made()), ("a", first)])
