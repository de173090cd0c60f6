"""DP-FedAvg: FedPav to the bit without noise and clip, rounds by hand, what is refused, and epsilon in the files."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import support
import torch
from opacus.accountants import RDPAccountant

from fedreid_pl.callbacks.differential_privacy import DifferentialPrivacy
from fedreid_pl.cli import main
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.messages import ClientUpdate
from fedreid_pl.federation.storage import read_state

DP = "callbacks.differential_privacy"
PLAIN = (f"{DP}.noise_multiplier=0", f"{DP}.clip=null")


def state_of(folder: Path, round: int = 2) -> dict[str, Any]:
    return read_state(folder / "checkpoints" / f"round-{round:05d}.ckpt")


def global_model(folder: Path) -> dict[str, torch.Tensor]:
    return state_of(folder)["models"]["global"]


def parameters(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}


def test_without_noise_and_clip_it_is_fedpav_to_the_bit(tiny_root: Path, tmp_path: Path) -> None:
    for name, words in (
        ("fedpav", ["exp=fedpav"]),
        ("dp", ["exp=fedpav", *PLAIN, f"{DP}.buffers=average"]),
        ("recalibrated", ["exp=fedpav", "callbacks.backbone_sync.batch_norm=recalibrate"]),
        ("dp-recalibrated", ["exp=fedpav_dp", *PLAIN, f"{DP}.weights=data_volume"]),
        ("uniform", ["exp=fedpav_rw", "callbacks.reweighting.by=uniform"]),
        ("dp-uniform", ["exp=fedpav", *PLAIN, f"{DP}.buffers=average", f"{DP}.weights=uniform"]),
    ):
        assert main(["train", *words, *support.quick(tiny_root, tmp_path / name)]) == 0
    support.assert_equal(global_model(tmp_path / "dp"), global_model(tmp_path / "fedpav"))
    support.assert_equal(global_model(tmp_path / "dp-uniform"), global_model(tmp_path / "uniform"))
    one, other = (global_model(tmp_path / name) for name in ("dp-recalibrated", "recalibrated"))
    support.assert_equal(parameters(one), parameters(other))


def test_epsilon_in_history_and_summary_grows_and_is_the_librarys(tiny_root: Path, tmp_path: Path) -> None:
    words = ["exp=fedpav_dp", f"{DP}.noise_multiplier=3", "rounds=4", "trainer.accelerator=cpu"]
    assert main(["train", *support.quick(tiny_root, tmp_path, *words)]) == 0
    with open(tmp_path / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "epsilon"]
    values = [float(row["value"]) for row in rows]
    assert [row["round"] for row in rows] == ["1", "2", "3", "4"] and values == sorted(set(values))
    accountant = RDPAccountant()
    for value in values:
        accountant.step(noise_multiplier=3.0, sample_rate=1.0)
        assert value == pytest.approx(accountant.get_epsilon(1e-5), rel=0.05)
    summary = json.loads((tmp_path / "summary.json").read_text())["algorithms"]["differential_privacy"]
    assert summary["epsilon"] == values[-1] and summary["rounds"] == 4 and summary["noise_multiplier"] == 3.0


def test_a_secret_noise_differs_between_runs_and_survives_a_resume(tiny_root: Path, tmp_path: Path) -> None:
    words = ["exp=fedpav_dp", f"{DP}.noise=secret"]
    for name in ("one", "other"):
        assert main(["train", *support.quick(tiny_root, tmp_path / name, *words, "rounds=1")]) == 0
    first, second = (state_of(tmp_path / name, 1) for name in ("one", "other"))
    secrets = [state["callbacks"]["differential_privacy"]["secret"] for state in (first, second)]
    assert secrets[0] != secrets[1]
    assert not torch.equal(*(next(iter(state["models"]["global"].values())) for state in (first, second)))
    assert main(["train", *support.quick(tiny_root, tmp_path / "one", *words)]) == 0
    again = state_of(tmp_path / "one")["callbacks"]["differential_privacy"]
    assert again == {"released": 2, "secret": secrets[0]}
    assert str(secrets[0]) not in (tmp_path / "one" / "summary.json").read_text()


# a round by hand


class Federation:
    """What the callback uses of the loop."""

    def __init__(self, sent: dict[str, torch.Tensor]) -> None:
        self.models, self.buffer_names = {"global": sent}, frozenset({"mean", "count"})
        self.seed, self.round, self.records = 5, 1, []

    def record(self, *row: Any) -> None:
        self.records.append(row)


def make(value: float) -> dict[str, torch.Tensor]:
    return {"w": torch.full((4,), value), "mean": torch.full((2,), value), "count": torch.tensor(int(value))}


def aggregate(callback: DifferentialPrivacy, weights: dict[str, float], **values: float) -> tuple[dict, Federation]:
    federation: Any = Federation(make(1.0))
    updates = [ClientUpdate(1, name, make(value), 10, {}) for name, value in values.items()]
    raw = {"global": {**make(99.0), "kept": torch.ones(1)}}
    return callback.aggregate(federation, updates, weights, raw)["global"], federation


def test_a_round_by_hand() -> None:
    """Both updates lie along (1, 1, 1, 1): of norm 4 and 0.4, clipped to 1 and left."""
    model, federation = aggregate(DifferentialPrivacy(0.0, 1.0), {"a": 0.75, "b": 0.25}, a=3.0, b=1.2)
    torch.testing.assert_close(model["w"], torch.full((4,), 0.75 * 1.5 + 0.25 * 1.2))
    assert torch.equal(model["mean"], torch.full((2,), 1.0)) and model["count"] == 1, "the server's own"
    assert torch.equal(model["kept"], torch.ones(1)), "what did not travel stays as the callbacks before left it"
    assert federation.records == [
        ("privacy", "server", "clipped", 0.5),
        ("privacy", "server", "update_norm", pytest.approx(2.2)),
    ]


def test_one_client_moves_the_model_by_no_more_than_the_noise_is_made_for() -> None:
    """Whatever a client sends instead of nothing, the average moves by at most clip * max p."""
    weights = {"a": 0.7, "b": 0.3}
    silent, _ = aggregate(DifferentialPrivacy(0.0, 0.5), weights, a=1.0, b=1.1)
    for value in (-1e6, 0.0, 1.3, 50.0, 1e9):
        model, _ = aggregate(DifferentialPrivacy(0.0, 0.5), weights, a=value, b=1.1)
        assert float(torch.dist(model["w"], silent["w"])) <= 0.5 * 0.7 * (1 + 1e-5)


def test_the_noise_is_in_proportion_to_what_one_client_can_change() -> None:
    def spread(noise: float, clip: float, weights: dict[str, float]) -> float:
        found = []
        for round in range(400):
            callback, federation = DifferentialPrivacy(noise, clip), Federation(make(0.0))
            federation.round = round
            updates = [ClientUpdate(1, name, make(0.0), 10, {}) for name in weights]
            found.append(callback.aggregate(federation, updates, weights, {"global": make(0.0)})["global"]["w"])
        return float(torch.stack(found).std())

    even = dict.fromkeys("abcd", 0.25)
    assert spread(2.0, 3.0, even) == pytest.approx(2.0 * 3.0 / 4, rel=0.06)
    assert spread(2.0, 3.0, {"a": 0.7, "b": 0.3}) == pytest.approx(2.0 * 3.0 * 0.7, rel=0.06)


# what is refused


@pytest.mark.parametrize(
    "options",
    [
        {"noise_multiplier": -1.0},
        {"noise_multiplier": math.nan},
        {"clip": 0.0},
        {"delta": 0.0},
        {"delta": 1.0},
        {"clip": None},
        {"buffers": "average"},
    ],
)
def test_options_that_promise_nothing(options: dict) -> None:
    with pytest.raises(FedReIDError, match=r"callbacks\.differential_privacy\."):
        DifferentialPrivacy(**options)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["exp=fedpav_dp", "callbacks.backbone_sync.batch_norm=average"], "choose recalibrate"),
        (["exp=fedpav_dp", f"{DP}.delta=0.4"], "below 1 / clients"),
        (["exp=fedpav_dp", "data.public=null"], "needs a public set"),
    ],
)
def test_experiments_that_leak(words: list[str], wanted: str, tiny_root: Path, tmp_path: Path, capsys: Any) -> None:
    quick = support.quick(tiny_root, tmp_path / "run")
    assert main(["train", *quick, *words]) == 2
    assert wanted in capsys.readouterr().err and not (tmp_path / "run").exists()
