"""Normalisation over the parts of three real processes equals torch's BatchNorm over the whole batch."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import norm_ranks
import pytest
import torch
from norm_ranks import CASES, PARTS
from torch import nn

from fedreid_pl.errors import FedReIDError
from fedreid_pl.functional.batch_part import BatchPart, working_on
from fedreid_pl.models.synchronized_norm import NormSync, SynchronizedNorm, SynchronizedNormAct

pytestmark = pytest.mark.system

TOLERANCE = {torch.float64: 1e-12, torch.float32: 5e-6, torch.bfloat16: 0.05}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Returns the reports of all processes."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, norm_ranks.__file__, str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen([*command, str(rank)], env=environment, stderr=subprocess.PIPE, text=True)
        for rank in range(len(PARTS))
    ]
    for process in running:
        errors = process.communicate(timeout=120)[1]
        assert process.returncode == 0, errors
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(len(PARTS))]


@pytest.mark.parametrize("name", [name for name in CASES if name != "far from zero"])
def test_parts_are_normalised_like_the_whole_batch(name: str, ranks: list[dict[str, Any]]) -> None:
    case = CASES[name]
    whole, parts = norm_ranks.results(case, None), [rank[name] for rank in ranks]
    tolerance = TOLERANCE[case.dtype]

    def close(actual: Any, expected: Any, tolerance: float = tolerance) -> None:
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)

    for step in range(norm_ranks.STEPS):
        for part, places in zip(parts, PARTS, strict=True):
            close(part["outputs"][step], whole["outputs"][step][list(places)])
            close(part["gradients"][step], whole["gradients"][step][list(places)])
    for slope, expected in whole["slopes"].items():
        close(sum(part["slopes"][slope] for part in parts), expected, 4 * tolerance)  # sums over three steps
    exact = min(tolerance, TOLERANCE[torch.float32])  # statistics are not rounded to bfloat16
    for part in parts:
        assert part["slopes"].keys() == whole["slopes"].keys() and part["state"].keys() == whole["state"].keys()
        for value, expected in whole["state"].items():
            close(part["state"][value], expected, exact)
            assert torch.equal(part["state"][value], parts[0]["state"][value]), "processes differ"
        close(part["evaluated"], whole["evaluated"])


def test_the_variance_is_accurate_far_from_zero(ranks: list[dict[str, Any]]) -> None:
    """The mean of squares minus the squared mean would have wrong leading digits here."""
    case = CASES["far from zero"]
    whole = norm_ranks.results(case._replace(dtype=torch.float64), None)
    for rank, places in zip(ranks, PARTS, strict=True):
        part = rank["far from zero"]
        torch.testing.assert_close(
            part["state"]["running_var"], whole["state"]["running_var"].float(), rtol=1e-5, atol=1e-5
        )
        output, expected = part["outputs"][0], whole["outputs"][0][list(places)].float()
        torch.testing.assert_close(output, expected, rtol=1e-3, atol=2e-3)  # the input is rounded to 1e-4


def test_one_value_per_channel_in_all_processes_is_refused(ranks: list[dict[str, Any]]) -> None:
    assert all("more than one value per channel" in rank["too few"] for rank in ranks)


def make_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.InstanceNorm2d(8), nn.Flatten(), nn.Linear(72, 4), nn.BatchNorm1d(4)
    )


def test_an_undistributed_batch_gets_the_bits_of_the_plain_layer() -> None:
    """There is no process group, so a collective operation would raise an error."""
    network = make_network()
    plain, sync, images = copy.deepcopy(network), NormSync(), torch.randn(6, 3, 5, 5)
    sync.apply(network)
    assert torch.equal(network(images), plain(images))
    with working_on(BatchPart((0, 2), 6)):
        assert torch.equal(network.eval()(images), plain.eval()(images))
        with pytest.raises(ValueError, match="process group"):
            network.train()(images)
    assert all(
        torch.equal(value, plain.state_dict()[name]) for name, value in sync.revert(network).state_dict().items()
    )


def test_only_the_classes_change_and_are_restored() -> None:
    network, sync = make_network(), NormSync()
    seen: list[type] = []
    network[1].register_forward_hook(lambda module, *_: seen.append(type(module)))
    before = {name: id(value) for name, value in network.state_dict(keep_vars=True).items()}
    for _ in range(2):
        assert sync.apply(sync.apply(network)) is network
        assert [type(module) for module in network if isinstance(module, SynchronizedNorm)] == [SynchronizedNorm] * 2
        assert type(network[2]) is nn.InstanceNorm2d
        network(torch.randn(2, 3, 5, 5))
        assert {name: id(value) for name, value in network.state_dict(keep_vars=True).items()} == before
        assert sync.revert(network) is network
        assert (type(network[1]), type(network[5])) == (nn.BatchNorm2d, nn.BatchNorm1d)
    assert seen == [SynchronizedNorm] * 2
    with pytest.raises(ValueError, match="4D"):
        network[1](torch.zeros(2, 8))


def test_timm_s_norm_keeps_its_activation() -> None:
    layers = pytest.importorskip("timm.layers")
    plain = layers.BatchNormAct2d(5, act_layer=nn.Hardswish)
    layer, images = NormSync().apply(copy.deepcopy(plain)), torch.randn(6, 5, 4, 3)
    assert type(layer) is SynchronizedNormAct and torch.equal(layer(images), plain(images))
    assert torch.equal(layer.running_mean, plain.running_mean)
    with working_on(BatchPart((0, 2), 6)), pytest.raises(ValueError, match="process group"):
        layer(images)  # synchronises, but there is no process group


def test_a_norm_with_other_arithmetic_is_refused() -> None:
    class Doubled(nn.BatchNorm1d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(input)

    network = nn.Sequential(nn.BatchNorm1d(3), Doubled(3))
    with pytest.raises(FedReIDError, match=r"Doubled cannot be synchronised .*; set trainer\.sync_batchnorm=false"):
        NormSync().apply(network)
    assert type(network[0]) is nn.BatchNorm1d


def test_other_devices_use_torchs_implementation(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = NormSync().apply(nn.BatchNorm1d(4))
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with working_on(BatchPart((0, 1), 4)), pytest.raises(ValueError, match=r"SyncBatchNorm expected .* GPU"):
        layer(torch.empty(2, 4, device="meta"))


def test_a_reused_trainer_restores_the_layers_every_time() -> None:
    done = subprocess.run(
        [sys.executable, str(Path(norm_ranks.__file__).with_name("norm_turns.py"))],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    within, after = "SynchronizedNorm SynchronizedNorm", "BatchNorm2d BatchNorm1d"
    assert found["classes"] == [within, after, after, within, "failed", after, after, within, after, after]
    assert found["same tensors"] and found["same names"]
    assert found["trained"] == [True, False, True]
