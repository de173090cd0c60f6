"""The ablations: the large and small clients, and the name of each ablation as an experiment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import support

from fedreid_pl.config import available, compose
from fedreid_pl.data.scenarios import load_federated_data
from fedreid_pl.errors import FedReIDError
from fedreid_pl.reporting.run_folder import setting


def test_the_median_separates_large_and_small_clients(tiny_root: Path) -> None:
    config = compose(["exp=fedpav", *support.quick(tiny_root, Path("unused"))]).data
    sizes = {name: len(list((tiny_root / name / "bounding_box_train").iterdir())) for name in support.TINY}
    middle = sorted(sizes.values())[1]
    assert len(set(sizes.values())) == 3
    for kind in ("large", "small"):
        data = load_federated_data(replace(config, clients=kind))
        wanted = [name for name, size in sizes.items() if (size >= middle) == (kind == "large")]
        assert list(data.clients) == list(data.tests) == wanted
    merged = load_federated_data(replace(config, clients="small", scenario="merged"))
    (smallest,) = [name for name, size in sizes.items() if size < middle]
    assert list(merged.tests) == [smallest] and len(merged.clients["merged"].train) == sizes[smallest]
    with pytest.raises(FedReIDError, match=r"data\.clients=small: no client has fewer training images than the median"):
        load_federated_data(replace(config, clients="small", datasets=["mini-viper"]))


def test_every_ablation_has_a_distinct_name() -> None:
    by_name = {name: compose([f"exp={name}"]) for name in available("exp") if name.startswith("fedpav_")}
    assert by_name["fedpav_large"].data.clients == "large" and by_name["fedpav_small"].data.clients == "small"
    assert by_name["fedpav_equal"].callbacks["reweighting"] == {"by": "uniform"}
    assert by_name["fedpav_images"].callbacks["reweighting"] == {"by": "data_volume"}
    assert by_name["fedpav_rw_clipped"].callbacks["reweighting"] == {"clip": 2.0}
    alone = setting(compose(["exp=local"]))
    assert {setting(by_name[name]) for name in ("fedpav_large", "fedpav_small", "fedpav_equal")} == {alone}
    assert setting(compose(["exp=local", "data.clients=large"])) != alone, "the small clients are missing"
