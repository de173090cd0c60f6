"""DP-FedAvg: equality with FedPav without noise and clip, rounds by hand, refused settings, epsilon in the files."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dp_accounting as dp
import pytest
import support
import torch
from dp_accounting import rdp
from opacus.accountants import RDPAccountant

from fedreid_pl.callbacks.differential_privacy import DifferentialPrivacy
from fedreid_pl.cli import main
from fedreid_pl.config import compose
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.messages import ClientUpdate
from fedreid_pl.federation.server.checkpoint import RELEASE
from fedreid_pl.federation.server.loop import FederationLoop
from fedreid_pl.federation.storage import read_state
from fedreid_pl.functional.differential_privacy import gaussian_epsilon

DP = "callbacks.differential_privacy"
PLAIN = (f"{DP}.noise_multiplier=0", f"{DP}.clip=null")


def state_of(folder: Path, round: int = 2) -> dict[str, Any]:
    return read_state(folder / "checkpoints" / f"round-{round:05d}.ckpt")


def global_model(folder: Path) -> dict[str, torch.Tensor]:
    return state_of(folder)["models"]["global"]


def parameters(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}


def test_without_noise_and_clip_it_equals_fedpav_to_the_bit(tiny_root: Path, tmp_path: Path) -> None:
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


def test_epsilon_in_history_and_summary_grows_and_equals_the_librarys(tiny_root: Path, tmp_path: Path) -> None:
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
    assert summary["epsilon"] == values[-1] and summary["releases"] == 4 and summary["noise_multiplier"] == 3.0
    assert summary["noise"] == "secret" and summary["guarantee"].startswith("differential privacy")


def test_a_stop_after_the_release_sends_the_same_model_again(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """After a stop between a possible release and its round's checkpoint, the noise is not drawn again."""
    words = ["train", "exp=fedpav_dp", *support.quick(tiny_root, tmp_path / "run", "trainer.accelerator=cpu")]
    words += ["data.datasets=[mini-viper]"]
    sent: list[dict[str, torch.Tensor]] = []
    evaluate = FederationLoop.evaluate_models

    def stop(loop: Any) -> None:
        context = getattr(loop, "context", loop)
        if context.round == 2 and not sent:
            sent.append(dict(context.models["global"]))
            assert (tmp_path / "run" / "checkpoints" / RELEASE).exists(), "saved before it is sent"
            raise FedReIDError("stopped")
        evaluate(loop)

    monkeypatch.setattr(FederationLoop, "evaluate_models", stop)
    assert main(words) == 2
    assert not (tmp_path / "run" / "checkpoints" / "round-00002.ckpt").exists()
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    capsys.readouterr()
    assert main(words) == 0
    assert "released before the run stopped; the server sends it again" in capsys.readouterr().err
    support.assert_equal(global_model(tmp_path / "run"), sent[0])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())["algorithms"]["differential_privacy"]
    assert summary["releases"] == 2
    key = state_of(tmp_path / "run")["callbacks"]["differential_privacy"]
    assert key == {"released": 2}, "the file contains no key that could reproduce the noise"

    (tmp_path / "other" / "checkpoints" / RELEASE).unlink()  # as if no model had been released
    assert main([word.replace(str(tmp_path / "run"), str(tmp_path / "other")) for word in words]) == 0
    assert not torch.equal(global_model(tmp_path / "other")["bottleneck.0.weight"], sent[0]["bottleneck.0.weight"])

    (tmp_path / "run" / "checkpoints" / RELEASE).write_bytes(b"x")
    (tmp_path / "run" / "checkpoints" / "round-00002.ckpt").unlink()
    assert main(words) == 2
    assert "it is unknown which models have left the server" in capsys.readouterr().err


def test_a_repeated_round_without_its_saved_model_counts_as_another_release() -> None:
    callback, fresh = DifferentialPrivacy(), DifferentialPrivacy()
    for number in range(3):
        federation: Any = Federation(make(1.0), round=number + 1)
        callback.aggregate(federation, [update("a", 1.0)], {}, {"global": make(1.0)})
    fresh.load_state_dict({"released": 1})  # resumed from an older checkpoint, of round 1
    fresh.load_release_state(callback.release_state(), 3)
    fresh.aggregate(Federation(make(1.0), round=2), [update("a", 1.0)], {}, {"global": make(1.0)})  # type: ignore[arg-type]
    assert fresh.summary()["releases"] == 4, "three releases, and round 2 once more"
    assert fresh.summary()["epsilon"] == gaussian_epsilon(1.0, 4, 1e-5)


def test_noise_from_the_seed_gives_a_warning() -> None:
    callback, warnings = DifferentialPrivacy(noise="seed"), []
    models = []
    for _ in range(2):
        federation: Any = Federation(make(1.0))
        federation.warn = warnings.append
        models.append(callback.aggregate(federation, [update("a", 1.0)], {}, {"global": make(1.0)})["global"]["w"])
        assert "epsilon" not in {row[2] for row in federation.records}
    assert torch.equal(*models), "config.yaml suffices to remove the noise"
    assert callback.summary()["guarantee"].startswith("not private") and callback.summary()["epsilon"] is None
    assert any("not private" in text for text in warnings) and callback.release_state() == {}
    secret = [
        DifferentialPrivacy().aggregate(Federation(make(1.0)), [update("a", 1.0)], {}, {"global": make(1.0)})  # type: ignore[arg-type]
        for _ in range(2)
    ]
    assert not torch.equal(*(models["global"]["w"] for models in secret))


# a round by hand


class Federation:
    """The attributes of the loop that the callback uses."""

    def __init__(self, sent: dict[str, torch.Tensor], round: int = 1, **clients: int) -> None:
        self.models, self.buffer_names = {"global": sent}, frozenset({"mean", "count"})
        self.seed, self.round, self.records = 5, round, []
        self.clients = clients or {"a": 1}
        self.selected = list(self.clients)
        self.server = SimpleNamespace(agree=lambda state: state)
        self.config = SimpleNamespace(clients_per_round=None)

    def warn(self, text: str) -> None:
        pass

    def record(self, *row: Any) -> None:
        self.records.append(row)


def make(value: float) -> dict[str, torch.Tensor]:
    return {"w": torch.full((4,), value), "mean": torch.full((2,), value), "count": torch.tensor(int(value))}


def update(client: str, value: float) -> ClientUpdate:
    return ClientUpdate(1, client, make(value), 10, {})


def aggregate(callback: DifferentialPrivacy, clients: dict[str, int], **values: float) -> tuple[dict, Federation]:
    """Runs a round with `clients` (numbers of images); clients without a value do not answer."""
    federation: Any = Federation(make(1.0), **clients)
    updates = [update(name, value) for name, value in values.items()]
    raw = {"global": {**make(99.0), "kept": torch.ones(1)}}
    return callback.aggregate(federation, updates, {}, raw)["global"], federation


def test_a_round_by_hand() -> None:
    """Both updates point along (1, 1, 1, 1) with norms 4 and 0.4: one is clipped to 1, the other is unchanged."""
    model, federation = aggregate(DifferentialPrivacy(0.0, 1.0), {"a": 75, "b": 25}, a=3.0, b=1.2)
    torch.testing.assert_close(model["w"], torch.full((4,), 0.75 * 1.5 + 0.25 * 1.2))
    assert torch.equal(model["mean"], torch.full((2,), 1.0)) and model["count"] == 1, "buffers are the server's"
    assert torch.equal(model["kept"], torch.ones(1)), (
        "entries that are not exchanged keep the value of earlier callbacks"
    )
    assert federation.records == [
        ("privacy", "server", "clipped", 0.5),
        ("privacy", "server", "update_norm", pytest.approx(2.2)),
    ]


@pytest.mark.parametrize("value", [-1e6, 0.0, 1.3, 50.0, 1e9])
def test_one_client_changes_the_model_by_at_most_the_sensitivity_of_the_noise(value: float) -> None:
    """A client's answer changes the sum by at most clip * p, because the denominator is fixed."""
    clients = {"a": 70, "b": 30}
    absent, _ = aggregate(DifferentialPrivacy(0.0, 0.5), clients, b=1.1)
    torch.testing.assert_close(absent["w"], torch.full((4,), 1.0 + 0.3 * 0.1))
    model, _ = aggregate(DifferentialPrivacy(0.0, 0.5), clients, a=value, b=1.1)
    assert float(torch.dist(model["w"], absent["w"])) <= 0.5 * 0.7 * (1 + 1e-5)


def test_the_noise_is_proportional_to_the_possible_change_of_one_client() -> None:
    def spread(noise: float, clip: float, **clients: int) -> float:
        callback, found = DifferentialPrivacy(noise, clip), []
        for _ in range(400):
            federation: Any = Federation(make(0.0), **clients)
            updates = [update(name, 0.0) for name in clients]
            found.append(callback.aggregate(federation, updates, {}, {"global": make(0.0)})["global"]["w"])
        return float(torch.stack(found).std())

    assert spread(2.0, 3.0, a=5, b=5, c=5, d=5) == pytest.approx(2.0 * 3.0 / 4, rel=0.1)
    assert spread(2.0, 3.0, a=7, b=3) == pytest.approx(2.0 * 3.0 * 0.7, rel=0.1)


def test_noise_above_the_mean_update_gives_one_warning() -> None:
    warnings: list[str] = []
    for noise, answer, wanted in ((1.0, 1.1, 1), (1e-3, 1.1, 0)):
        callback = DifferentialPrivacy(noise)
        for round in (1, 2):
            federation: Any = Federation(make(1.0), round)
            federation.warn = warnings.append
            callback.aggregate(federation, [update("a", answer)], {}, {"global": make(1.0)})
            (norm,) = [row[3] for row in federation.records if row[2] == "noise_norm"]
            assert norm == pytest.approx(noise * 1.0 * 2), "four numbers of this standard deviation"
        assert len(warnings) == wanted, warnings
        assert all("the norm of the noise (2) is above that of the mean update (0.2" in text for text in warnings)
        warnings.clear()


def test_poisson_sampling_draws_clients_independently_with_a_fixed_denominator() -> None:
    clients = {f"c{number}": 1 for number in range(1000)}
    callback = DifferentialPrivacy(0.0, 1.0, selection="poisson")
    federation: Any = Federation(make(1.0), **clients)
    federation.config.clients_per_round = 100
    callback.on_federation_start(federation)
    counts, times = [], dict.fromkeys(clients, 0)
    for _ in range(200):
        callback.on_round_start(federation)
        counts.append(len(federation.selected))
        for client in federation.selected:
            times[client] += 1
    assert sum(counts) / 200 == pytest.approx(100, abs=4 * math.sqrt(90 / 200))
    assert 60 < torch.tensor(counts).float().var() < 130, "the binomial variance is 90"
    assert max(times.values()) < 50 and min(times.values()) > 1
    updates = [update(client, 1.4) for client in federation.selected]
    model = callback.aggregate(federation, updates, {}, {"global": make(1.0)})["global"]
    torch.testing.assert_close(model["w"], torch.full((4,), 1.0 + 0.4 * len(updates) / 100))
    assert callback.summary()["rate"] == 0.1

    amplified, plain = DifferentialPrivacy(1.0, selection="poisson"), DifferentialPrivacy(1.0)
    for one in (amplified, plain):
        one.on_federation_start(federation)
        one.load_state_dict({"released": 50})
    event = dp.SelfComposedDpEvent(dp.PoissonSampledDpEvent(0.1, dp.GaussianDpEvent(1.0)), 50)
    accountant = rdp.RdpAccountant(neighboring_relation=dp.NeighboringRelation.ADD_OR_REMOVE_ONE).compose(event)
    assert amplified.summary()["epsilon"] == pytest.approx(accountant.get_epsilon(1e-5), rel=0.02)
    assert plain.summary()["rate"] == 1.0 and plain.summary()["epsilon"] > 9 * amplified.summary()["epsilon"]


@pytest.mark.parametrize(
    ("words", "clients", "wanted"),
    [
        ([], 1000, "clients_per_round=None"),
        (["clients_per_round=1000"], 1000, "must be below 1000, the number of clients"),
        (["clients_per_round=3"], 9, "too likely to draw no client"),
        (["clients_per_round=100"], 1000, None),
    ],
)
def test_sampling_without_a_valid_privacy_account_is_refused(
    words: list[str], clients: int, wanted: str | None
) -> None:
    config = compose(["exp=fedpav_dp", *words])
    data: Any = SimpleNamespace(clients=dict.fromkeys(map(str, range(clients))))
    callback = DifferentialPrivacy(selection="poisson")
    if wanted is None:
        callback.check(config, data)
    else:
        with pytest.raises(FedReIDError, match=wanted):
            callback.check(config, data)


# refusals


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
def test_options_without_a_privacy_guarantee_are_refused(options: dict) -> None:
    with pytest.raises(FedReIDError, match=r"callbacks\.differential_privacy\."):
        DifferentialPrivacy(**options)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["exp=fedpav_dp", "callbacks.backbone_sync.batch_norm=average"], "set recalibrate"),
        (["exp=fedpav_dp", f"{DP}.delta=0.4"], "below 1 / clients"),
        (["exp=fedpav_dp", "data.public=null"], "needs public images"),
    ],
)
def test_experiments_that_leak_are_refused(
    words: list[str], wanted: str, tiny_root: Path, tmp_path: Path, capsys: Any
) -> None:
    quick = support.quick(tiny_root, tmp_path / "run")
    assert main(["train", *quick, *words]) == 2
    assert wanted in capsys.readouterr().err and not (tmp_path / "run").exists()
