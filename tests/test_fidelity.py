"""`fidelity=code`: the settings that it changes, and words that override single settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedreid_pl.callbacks import callback_factory
from fedreid_pl.config import compose, departures, load_config, to_yaml
from fedreid_pl.errors import FedReIDError


def test_code_changes_the_experiments_settings() -> None:
    config = compose(["exp=fedpav_rw", "fidelity=code"])
    assert (config.optim.scope, config.optim.bottleneck, config.data.hold_out) == ("round", "head", "first")
    assert config.callbacks == {"backbone_sync": {"batch_norm": "first"}, "reweighting": {"probe": "code"}}
    alone = compose(["exp=local", "fidelity=code"])
    assert alone.callbacks == {} and alone.optim.scope == "round"


def test_callbacks_added_or_removed_by_words_count() -> None:
    words = ["exp=fedpav_rw", "fidelity=code", "callbacks.reweighting=null", "callbacks.distillation={}"]
    config = compose(words)
    assert set(config.callbacks) == {"backbone_sync", "distillation"}
    assert config.callbacks["distillation"] == {
        "every_n_rounds": 10,
        "mode": "train",
        "normalize": "teachers",
        "nesterov": True,
        "augment": True,
    }


def test_words_have_precedence_over_the_preset(tmp_path: Path) -> None:
    words = ["exp=fedpav", "fidelity=code", "optim.scope=run", "callbacks.backbone_sync.batch_norm=average"]
    config = compose(words)
    assert config.optim.scope == "run" and config.callbacks["backbone_sync"]["batch_norm"] == "average"
    keys = [key for key, *_ in departures(config)]
    assert keys[:2] == ["data.hold_out", "data.incomplete_batches"]
    assert keys[2:] == ["optim.schedule", "optim.bottleneck", "optim.nesterov"]
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize("exp", ["local", "fedpav", "fedpav_rw"])
def test_the_default_has_no_differences_and_code_lists_all(exp: str) -> None:
    assert departures(compose([f"exp={exp}"])) == []
    assert compose([f"exp={exp}"]) == compose([f"exp={exp}", "fidelity=paper"])
    rows = departures(compose([f"exp={exp}", "fidelity=code"]))
    assert len(rows) == {"local": 6, "fedpav": 7, "fedpav_rw": 8}[exp]
    for key, value, paper, text in rows:
        assert value != paper and text and key.count(".") in (1, 2)


def test_the_codes_cosine_distance_needs_an_engine_with_a_fixed_order() -> None:
    config = compose(["exp=fedpav_rw", "fidelity=code"])
    callback_factory(config.callbacks)
    with pytest.raises(FedReIDError, match=r"sequential_order.*engine=ray"):
        callback_factory(config.callbacks, engine="ray", provides=())
    callback_factory(compose(["exp=fedpav_rw"]).callbacks, engine="ray", provides=())
