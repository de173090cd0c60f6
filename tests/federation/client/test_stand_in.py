"""A temporary exchange of a network's state while a client evaluates another model."""

from __future__ import annotations

import pytest
import support
import tiny_turn
import torch

from fedreid_pl.federation.client.stand_in import StandIn


@pytest.mark.parametrize("names", [None, {"1.weight", "1.running_mean"}])
def test_a_full_or_partial_state_is_swapped_in_and_restored(names: set[str] | None) -> None:
    network, other, stand_in = tiny_turn.make_backbone(), tiny_turn.make_backbone(seed=5), StandIn()
    other(torch.randn(20, 3))  # different running statistics
    state = {name: value for name, value in other.state_dict().items() if names is None or name in names}
    before = {name: value.clone() for name, value in network.state_dict().items()}
    held = {name: value.data_ptr() for name, value in network.state_dict().items()}
    stand_in.enter(network, state)
    support.assert_equal(dict(network.state_dict()), {**before, **state})
    stand_in.leave(network)
    support.assert_equal(dict(network.state_dict()), before)
    assert held == {name: value.data_ptr() for name, value in network.state_dict().items()}, "the same tensors"
    with torch.no_grad():
        network[0].weight.add_(1)
    stand_in.leave(network)
    assert torch.equal(network[0].weight, before["0.weight"] + 1), "the state is restored only once"


def test_unknown_tensors_are_refused_before_any_change() -> None:
    network = tiny_turn.make_backbone()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(KeyError, match=r"2\.weight"):
        StandIn().enter(network, {"0.weight": torch.zeros(4, 3), "2.weight": torch.zeros(1)})
    support.assert_equal(dict(network.state_dict()), before)
