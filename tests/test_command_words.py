"""The command words in the report compose the same configuration again."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from fedreid_pl.config import available, compose, differences, reproducing_words
from fedreid_pl.config.compose import load_config, to_yaml


def again(words: list[str]) -> list[str]:
    """Returns the keys in which a configuration differs from the one composed from its words, parsed as by a shell."""
    config = compose(words)
    return differences(config, compose(shlex.split(" ".join(reproducing_words(config)))))


@pytest.mark.parametrize("exp", available("exp"))
@pytest.mark.parametrize("data", available("data"))
def test_every_shipped_configuration_is_reproduced(exp: str, data: str) -> None:
    assert again([f"exp={exp}", f"data={data}", "seed=3"]) == []
    assert len(reproducing_words(compose([f"exp={exp}", f"data={data}"]))) == 2, "only the two names"


@pytest.mark.parametrize(
    "words",
    [
        ["fidelity=code", "exp=fedpav_kd_rw"],
        ["fidelity=code", "exp=fedpav_rw", "callbacks.backbone_sync.batch_norm=average"],
        ["exp=fedprox", "callbacks.fedprox=null"],
        ["exp=fedpav", "callbacks.fedprox.mu=0.25", "optim.lr_head=1e-3"],
        ["data.datasets=[mini-viper,mini-ilids]", "data.public=null", "clients_per_round=2"],
        ["data.root=/a folder/with 'marks' and $signs", "name=007"],
        ["data.layout="],
        ["callbacks.fedprox.mu='010'", "callbacks.fedprox.note='null'", "callbacks.fedprox.list=[010, '010', a b]"],
    ],
)
def test_overrides_are_reproduced(words: list[str]) -> None:
    assert again(words) == []


def test_a_custom_experiment_is_reproduced_without_its_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("rounds: 7\ncallbacks:\n  backbone_sync: {batch_norm: first}\n  fedprox: {mu: 0.1}\n")
    config = compose([f"exp={path}"])
    path.unlink()
    assert differences(config, compose(shlex.split(" ".join(reproducing_words(config))))) == []


def test_a_saved_configuration_gives_the_same_words(tmp_path: Path) -> None:
    config = compose(["exp=fedpav_rw", "rounds=3"])
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert reproducing_words(load_config(tmp_path / "config.yaml")) == reproducing_words(config)
    assert reproducing_words(config) == ["exp=fedpav_rw", "data=minireid", "rounds=3"]
