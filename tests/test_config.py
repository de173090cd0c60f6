"""The configuration: every shipped file, the precedence of sources, and one line for every mistake."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import fedreid_pl.configs
from fedreid_pl.callbacks import callback_factory
from fedreid_pl.config import (
    Config,
    available,
    compose,
    describe,
    differences,
    fingerprint,
    lineage,
    load_config,
    reproducing_words,
    to_yaml,
)
from fedreid_pl.config.bounds import check_bounds
from fedreid_pl.errors import FedReIDError

SHIPPED = Path(str(fedreid_pl.configs.__file__)).parent


def refused(*words: str) -> str:
    with pytest.raises(FedReIDError) as caught:
        compose(words)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def get(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = config[part] if isinstance(config, dict) else getattr(config, part)
    return config


@pytest.mark.parametrize("data", available("data"))
@pytest.mark.parametrize("exp", available("exp"))
def test_every_shipped_file_composes(exp: str, data: str) -> None:
    config = compose([f"exp={exp}", f"data={data}"])
    assert (config.name, config.data.name) == (exp, data)
    for name in (f"exp/{exp}", f"data/{data}"):
        values = yaml.safe_load((SHIPPED / f"{name}.yaml").read_text())
        for key in ("rounds", "evaluate_every"):
            assert key not in values or getattr(config, key) == values[key]
    assert set(config.callbacks) == set(yaml.safe_load((SHIPPED / "exp" / f"{exp}.yaml").read_text())["callbacks"])
    assert list(callback_factory(config.callbacks)()) == list(config.callbacks)


def test_available_lists_the_files() -> None:
    for kind in ("exp", "data"):
        assert available(kind) == sorted(path.stem for path in (SHIPPED / kind).glob("*.yaml"))
    assert "market_layout" in available("data") and "fedpav_rw" in available("exp")


@pytest.mark.parametrize("path", sorted((SHIPPED / "exp").glob("*.yaml")), ids=lambda path: path.stem)
def test_an_experiment_file_contains_its_command(path: Path) -> None:
    head = path.read_text().splitlines()[:3]
    assert all(line.startswith("#") for line in head[:2]) and f"EXP={path.stem}" in " ".join(head)


def test_the_papers_setting() -> None:
    config = compose(["exp=fedpav", "data=market_layout"])
    assert (config.rounds, config.batch_size, config.local_epochs) == (300, 32, 1)
    assert (config.optim.lr_backbone, config.optim.lr_head) == (0.005, 0.05)
    assert (config.optim.momentum, config.optim.weight_decay, config.optim.schedule) == (0.9, 5e-4, "constant")
    assert (config.optim.step, config.optim.gamma) == (40, 0.1), "the paper's values under optim.schedule=step"
    assert config.optimizer_state == "reset"
    assert {compose([f"exp={exp}"]).optimizer_state for exp in ("local", "centralized")} == {"keep"}
    assert (config.model.name, config.model.feature_dim, config.model.dropout) == ("resnet50", 512, 0.5)
    assert (config.data.height, config.data.width, config.data.pad) == (256, 128, 10)


@pytest.mark.parametrize("word", ["optim.step=10", "optim.gamma=0.5"])
def test_a_decay_without_effect_under_the_schedule_is_refused(word: str) -> None:
    for schedule in ("constant", "cosine"):
        with pytest.raises(FedReIDError, match=f"{word}: has no effect under optim.schedule={schedule}"):
            compose([word, f"optim.schedule={schedule}"])
    compose([word, "optim.schedule=step"])


def test_a_saved_run_contains_the_number_of_its_defaults(tmp_path: Path) -> None:
    new = compose([])
    with pytest.raises(FedReIDError, match="defaults=1: this version of fedreid_pl uses defaults=2"):
        compose(["defaults=1"])
    saved = tmp_path / "config.yaml"
    saved.write_text(to_yaml(new))
    assert load_config(saved) == new
    saved.write_text("".join(line for line in to_yaml(new).splitlines(True) if not line.startswith("defaults:")))
    old = load_config(saved)
    assert old.defaults == 1 and differences(old, new) == ["defaults"]
    assert "defaults" not in " ".join(reproducing_words(old))


def test_lineages_of_old_runs_do_not_change_and_differ_from_new_ones() -> None:
    """The expected digest is computed as before the number existed, from the values that differ from the old schema."""

    def digits(**values: object) -> str:
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    old = Config(defaults=1)
    assert lineage(old) == digits(**{"optim.schedule": "constant"}), "not an old default"
    old.optim.schedule = "step"
    assert lineage(old) == digits()
    assert lineage(Config()) == digits(defaults=2)


# precedence


def test_later_sources_have_precedence(tmp_path: Path) -> None:
    data, exp = tmp_path / "mine.yaml", tmp_path / "trial.yaml"
    data.write_text("rounds: 7\nseed: 3\nbatch_size: 9\noptim: {momentum: 0.5}\ndata: {height: 40, width: 30}\n")
    exp.write_text("rounds: 8\nseed: 4\ndata: {width: 31}\n")
    assert Config().rounds == 300 and Config().local_epochs == 1
    words = [f"exp={exp}", "rounds=9", f"data={data}"]
    config = compose(words)
    assert config.rounds == 9, "words have precedence"
    assert config.seed == 4, "the experiment has precedence over the data file"
    assert config.batch_size == 9, "the data file has precedence over the base"
    assert config.model.name == "resnet50", "from the base"
    assert (config.data.height, config.data.width, config.optim.momentum) == (40, 31, 0.5)
    assert (config.name, config.data.name, config.callbacks) == ("trial", "mine", {})
    assert compose([*words, "rounds=10"]).rounds == 10 and compose(["rounds=10", *words]).rounds == 9
    assert compose([*words, "name=other"]).name == "other"


def test_words_may_come_before_or_after_exp_and_data() -> None:
    words = ["exp=local", "data=market_layout", "rounds=3", "seed=2"]
    assert compose(words) == compose(words[::-1])
    assert compose([]) == compose(["exp=fedpav", "data=minireid"])


def test_callbacks_are_added_changed_and_removed() -> None:
    assert compose(["exp=fedpav_rw"]).callbacks == {"backbone_sync": {}, "reweighting": {}}
    assert compose(["exp=fedpav_rw", "callbacks.reweighting=null"]).callbacks == {"backbone_sync": {}}
    changed = compose(["exp=fedpav", "callbacks.backbone_sync.batch_norm=first", "callbacks.reweighting={}"])
    assert changed.callbacks == {"backbone_sync": {"batch_norm": "first"}, "reweighting": {}}
    assert list(changed.callbacks) == ["backbone_sync", "reweighting"]
    assert compose(["callbacks.reweighting="]).callbacks["reweighting"] == {}
    with pytest.raises(FedReIDError, match="reweighting=False: expected options"):
        callback_factory(compose(["exp=fedpav_rw", "callbacks.reweighting=false"]).callbacks)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("optim.lr_backbone=1e-3", 0.001),
        ("optim.weight_decay=0", 0.0),
        ("optim.lr_head=5E-2", 0.05),
        ("clients_per_round=null", None),
        ("clients_per_round=4", 4),
        ("model.channels_last=false", False),
        ("data.datasets=[a,b]", ["a", "b"]),
        ("data.datasets=[]", []),
        ("data.datasets=[1501,x y]", ["1501", "x y"]),
        ("data.root=/a=b", "/a=b"),
        ("data.root=007", "007"),
        ("data.root=1e3", "1e3"),
        ("data.root=null", None),
        ("output_dir=2026-01-31", "2026-01-31"),
        ("output_dir=1_000", "1_000"),
        ("output_dir='a b'", "'a b'"),
        ('output_dir="null"', '"null"'),
        ("output_dir=#run1", "#run1"),
        ("output_dir=???", "???"),
        ("output_dir=${nowhere}", "${nowhere}"),
        ("wandb.project=${oc.env:HOME}", "${oc.env:HOME}"),
        ("output_dir=a #b", "a #b"),
        ("output_dir= a ", " a "),
        ("output_dir=None", None),
        ("output_dir=none", "none"),
        ("output_dir=./null", "./null"),
        ("output_dir=12:30", "12:30"),
        ("output_dir=" + "1" * 400, "1" * 400),
        ("callbacks.x.n=" + "1" * 400, "1" * 400),
        ("output_dir=on", "on"),
        ("output_dir=0x10", "0x10"),
        ("output_dir=true", "true"),
        ("data.public=~", None),
        ("data.layout=null", "null"),
        ("name=010", "010"),
        ("batch_size=032", 32),
        ("rounds=010", 10),
        ("rounds=+3", 3),
        ("rounds= 3 ", 3),
        ("clients_per_round=None", None),
        ("clients_per_round=~", None),
        ("optim.lr_head=010.5", 10.5),
        ("optim.lr_head=.5", 0.5),
        ("optim.lr_head=5.", 5.0),
        ("optim.lr_head=1", 1.0),
        ("trainer.deterministic=True", True),
        ("data.datasets=[007, 1_0, null, 12:30, on, '#a']", ["007", "1_0", "null", "12:30", "on", "#a"]),
        ("callbacks.x.n=010", 10),
        ("callbacks.x.n=1_0", "1_0"),
        ("callbacks.x.n=0x10", "0x10"),
        ("callbacks.x.n='010'", "010"),
        ('callbacks.x.n="null"', "null"),
        ("callbacks.x.n=None", None),
        ("callbacks.x.n=#a", "#a"),
        ("callbacks.x.n=a: b", "a: b"),
        ("callbacks.x.y=???", "???"),
        ("callbacks.x.n=[010, 1e-2, on, 12:30, null]", [10, 0.01, "on", "12:30", None]),
        ("output_dir=a: b", "a: b"),
        ("output_dir=[x", "[x"),
        ("output_dir=~nobody-of-this-name/runs", "~nobody-of-this-name/runs"),
        ("model.weights=none", "none"),
        ("logger=none", "none"),
        ("trainer.precision=bf16-mixed", "bf16-mixed"),
        ("callbacks.x.power=1e-2", 0.01),
        ("callbacks.x.word=two words", "two words"),
    ],
)
def test_values_of_words(word: str, value: Any) -> None:
    found = get(compose([word]), word.partition("=")[0])
    assert found == value and type(found) is type(value)


# mistakes


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("round=3", "unknown key 'round', did you mean 'rounds'?"),
        ("optim.lr_backbon=1", "unknown key 'optim.lr_backbon', did you mean 'optim.lr_backbone'?"),
        ("model.zzz=1", "unknown key 'model.zzz'; known: channels_last, "),
        ("rounds.x=1", "rounds.x=1"),
        ("trainer=ddp", "'trainer' is a section, set trainer.KEY=VALUE"),
        ("exp=fedpaw", "exp=fedpaw: no such configuration, did you mean 'fedpav'?"),
        ("data=minreid", "did you mean 'minireid'?"),
        ("exp=../base", "no such configuration"),
        ("rounds", "'rounds': expected key=value"),
        ("=3", "expected key=value"),
        ("", "expected key=value"),
        ("rounds=many", "rounds=many"),
        ("rounds=2.5", "rounds=2.5"),
        ("rounds=true", "rounds=true"),
        ("rounds=null", "rounds=null"),
        ("rounds=[1]", "rounds=[1]"),
        ("rounds=-", "rounds=-"),
        ("optim.momentum=fast", "optim.momentum"),
        ("model.channels_last=maybe", "model.channels_last"),
        ("data.datasets=one", "data.datasets"),
        ("data.datasets=[[a]]", "expected a list of names"),
        ("callbacks=5", "callbacks=5"),
        ("callbacks=[backbone_sync]", "'callbacks' is a section"),
        ("rounds=0", "rounds=0: must be at least 1"),
        ("seed=-1", "seed=-1: must be at least 0"),
        ("batch_size=1", "batch_size=1: must be at least 2"),
        ("clients_per_round=0", "must be at least 1"),
        ("optim.lr_head=0", "optim.lr_head=0.0: must be above 0.0"),
        ("optim.lr_head=-1", "must be above 0.0"),
        ("optim.gamma=1.5", "optim.gamma=1.5: must be at most 1.0"),
        ("data.flip=1.01", "must be at most 1.0"),
        ("model.last_stride=3", "must be at most 2"),
        ("data.scenario=by_camera_angle", "must be one of by_dataset"),
        ("logger=Wandb", "must be one of wandb"),
        ("trainer.precision=16", "must be one of auto, 32-true"),
        *((f"optim.{key}={value}", f"optim.{key}") for key in ("lr_head", "weight_decay") for value in (".nan", "nan")),
        *(
            (f"optim.{key}={value}", f"optim.{key}")
            for key in ("lr_head", "weight_decay")
            for value in (".inf", "1e999")
        ),
        ("callbacks.x.power=.nan", "must be finite"),
        ("output_dir=a\nb", "line break"),
        ("a\u2028b", "line break"),
        ("exp=a\0.yaml", "control character"),
        ("output_dir=", "output_dir=: no value"),
        ("data.root=", "write data.root=null where"),
        ("rounds=", "rounds=: no value"),
        ("callbacks.x.y=", "callbacks.x.y=: no value"),
        ("rounds=1_0", "rounds=1_0: expected a whole number in decimal digits"),
        ("rounds=0x10", "expected a whole number"),
        ("rounds=0o17", "expected a whole number"),
        ("rounds=1e2", "expected a whole number"),
        ("rounds=3.0", "expected a whole number"),
        ("rounds=12:30", "expected a whole number"),
        ("rounds=\u0663", "expected a whole number"),
        ("rounds=None", "expected a whole number"),
        ("rounds=~", "expected a whole number"),
        ("rounds=${seed}", "expected a whole number"),
        ("seed=" + "9" * 5000, "at most 300 digits"),
        ("optim.lr_head=1_0.5", "expected a number"),
        ("optim.lr_head=0,05", "expected a number"),
        ("optim.lr_head=5%", "expected a number"),
        ("trainer.deterministic=on", "expected true or false"),
        ("trainer.deterministic=yes", "expected true or false"),
        ("trainer.deterministic=1", "expected true or false"),
        ("data.datasets=a,b", "expected a list, [ONE,TWO]"),
        ("data.datasets=[a,#b]", "not valid YAML"),
        ("data.datasets=[&x a]", "anchors and aliases"),
        ("data.datasets=[a,,b]", "not valid YAML"),
        ("data.datasets=[!!str a]", "tags such as"),
        ("output_dir=\udce9", "not valid UTF-8"),
        ("callbacks..x=1", "empty part"),
        ("callbacks.x={1: 2}", "the key 1 is not text"),
        ("callbacks.x.y=[!!binary aGVsbG8=]", "tags such as"),
        ("callbacks.x={a: 1, a: 2}", "the key 'a' occurs twice"),
        ("callbacks." + "a." * 3000 + "a=1", "nested too deeply"),
        ("rounds=&a [*a]", "expected a whole number"),
        ("callbacks.x.y=[&a [*a]]", "anchors and aliases"),
        ("rounds=" + "[" * 1200, "rounds=[[["),
    ],
)
def test_one_error_line_names_the_mistake(word: str, wanted: str) -> None:
    assert wanted in refused(word)


def test_words_with_punctuation_in_the_middle_of_a_run() -> None:
    assert "zzz" in refused("rounds=3", "zzz=1") and "seed" in refused("rounds=3", "seed=x")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("roundz: 3", "unknown key 'roundz', did you mean 'rounds'?"),
        ("optim: {lr_bakbone: 0.1}", "unknown key 'optim.lr_bakbone', did you mean 'optim.lr_backbone'?"),
        ("model: small", "'model' is a section"),
        ("model:", "'model' is a section"),
        ("rounds: many", "many"),
        ("1: 2", "unknown key '1'"),
        ("callbacks: {1: {}}", "the key 1 is not text"),
        ("callbacks: [backbone_sync]", "'callbacks' is a section"),
        ("rounds: -1", "rounds=-1: must be at least 1"),
        ("optim: {lr_head: .nan}", "optim.lr_head=nan"),
        ("- a\n- b", "expected keys and values, found a list"),
        ("text", "expected keys and values, found text"),
        ("a: [", "not valid YAML"),
        ("a: b: c", "not valid YAML"),
        ("a: !!python/object/apply:os.getcwd []", "tags such as"),
        ("seed: " + "9" * 5000, "at most 300 digits"),
        ("rounds: 3\nseed: 1\nrounds: 30", "mine.yaml, line 3: the key 'rounds' occurs twice"),
        ("seed: 1\noptim:\n  momentum: fast", "mine.yaml, line 3: optim.momentum=fast: expected a number"),
        ("seed: 1\nrounds: 0", "rounds=0: must be at least 1 (set in"),
        ("rounds: 0x10", "line 1: rounds=0x10: expected a whole number"),
        ("trainer: {deterministic: on}", "expected true or false"),
        ("rounds: !!int 3", "tags such as"),
        ("<<: {rounds: 3}", "unknown key '<<'"),
        ("rounds: 3\n---\nrounds: 4", "a second document"),
        ('output_dir: "a\\nb"', "line break"),
        ("seed: " + "[" * 1200, "nested too deeply"),
        ("rounds: &x [*x]", "anchors and aliases"),
    ],
)
@pytest.mark.parametrize("kind", ["exp", "data"])
def test_one_error_line_names_the_file_and_the_mistake(tmp_path: Path, text: str, wanted: str, kind: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    message = refused(f"{kind}={path}")
    assert wanted in message
    assert "mine.yaml" in message or "must be" in message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in refused(f"exp={tmp_path / 'none.yaml'}")
    (tmp_path / "folder.yaml").mkdir()
    assert "cannot be read" in refused(f"exp={tmp_path / 'folder.yaml'}")
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    assert "not a text file in UTF-8" in refused(f"exp={tmp_path / 'latin.yaml'}")
    (tmp_path / "empty.yml").write_text("# nothing\n")
    assert compose([f"exp={tmp_path / 'empty.yml'}"]).name == "empty"


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("rounds: 010", "rounds", 10),
        ("output_dir: 010", "output_dir", "010"),
        ("output_dir: 2026-02-31", "output_dir", "2026-02-31"),
        ("output_dir: on", "output_dir", "on"),
        ("output_dir: 12:30", "output_dir", "12:30"),
        ("output_dir: 1_0", "output_dir", "1_0"),
        ("output_dir: ???", "output_dir", "???"),
        ("output_dir: ${oc.env:HOME}", "output_dir", "${oc.env:HOME}"),
        ("output_dir: '#run1'", "output_dir", "#run1"),
        ("output_dir: None", "output_dir", None),
        ('output_dir: "None"', "output_dir", "None"),
        ("output_dir: null", "output_dir", None),
        ("output_dir:", "output_dir", None),
        ("wandb: {project: ~}", "wandb.project", None),
        ("clients_per_round: ~", "clients_per_round", None),
        ("rounds: '3'", "rounds", 3),
        ("optim: {lr_head: 1e-2}", "optim.lr_head", 0.01),
        ("data: {datasets: [007, 1e3, on]}", "data.datasets", ["007", "1e3", "on"]),
        (
            "callbacks: {x: {a: 010, b: on, c: 1_0, d: '010', e: 1e-2, f: ~}}",
            "callbacks.x",
            {"a": 10, "b": "on", "c": "1_0", "d": "010", "e": 0.01, "f": None},
        ),
        ("callbacks:\n  backbone_sync:\n  fedprox: null", "callbacks", {"backbone_sync": {}}),
        ("\ufeffrounds: 3\r\nseed: 4\r\n", "seed", 4),
    ],
)
def test_values_of_files(tmp_path: Path, text: str, key: str, value: Any) -> None:
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    found = get(compose([f"exp={tmp_path / 'mine.yaml'}"]), key)
    assert found == value and type(found) is type(value)


def test_a_tilde_in_a_path_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for key in ("data.root", "data.cache_dir", "output_dir", "resume", "model.weights"):
        assert get(compose([f"{key}=~"]), key) == str(tmp_path)
        assert get(compose([f"{key}=~/a b"]), key) == f"{tmp_path}/a b"
        assert get(compose([f"{key}=a/~"]), key) == "a/~"
    (tmp_path / "mine.yaml").write_text("data: {root: ~}\noutput_dir: ~/runs\n")
    config = compose(["exp=~/mine.yaml"])
    assert (config.data.root, config.output_dir) == (str(tmp_path), f"{tmp_path}/runs")


def test_every_bound_of_the_schema_is_checked() -> None:
    """Sets each field to the nearest value beyond each of its bounds."""

    def walk(section: Any, prefix: str) -> int:
        tried = 0
        for item in fields(section):
            value = getattr(section, item.name)
            if is_dataclass(value):
                tried += walk(value, f"{prefix}{item.name}.")
                continue
            number = float if "float" in str(item.type) else int
            beyond: list[Any] = []
            if item.metadata["at_least"] is not None:
                low = item.metadata["at_least"]
                beyond.append(math.nextafter(low, -math.inf) if number is float else low - 1)
            if item.metadata["at_most"] is not None:
                high = item.metadata["at_most"]
                beyond.append(math.nextafter(high, math.inf) if number is float else high + 1)
            if item.metadata["above"] is not None:
                beyond.append(item.metadata["above"])
            if item.metadata["choices"]:
                beyond.append(f"{item.metadata['choices'][0]}x")
            if number is float:
                assert beyond, f"{prefix}{item.name} is a number without bounds"
                beyond += [math.nan, math.inf]
            for bad in beyond:
                setattr(section, item.name, bad)
                with pytest.raises(FedReIDError, match=f"^{prefix}{item.name}="):
                    check_bounds(config)
                tried += 1
            setattr(section, item.name, value)
        return tried

    config = Config()
    assert walk(config, "") > 50
    check_bounds(config)


def test_every_key_has_a_description() -> None:
    rows = {name: (default, text) for name, default, text in describe()}
    for name, (default, text) in rows.items():
        assert len(text) > 3, name
        value = get(Config(), name)
        assert default == ("null" if value is None else str(value))
    assert len(rows) > 50 and "optim.lr_head" in rows and "optim" not in rows


# saved and compared


WORDS = ["exp=fedpav_rw", "rounds=4", "data.root=/x y/é", "optim.lr_head=1e-5", "callbacks.reweighting.a=[1, x, null]"]


def test_a_saved_configuration_reads_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    for words in (
        WORDS,
        [],
        ["exp=local"],
        ["output_dir=" + "1" * 400, "callbacks.x.n=" + "1" * 400, "name=1e3", "data.public=0o17"],
        ["output_dir='1e-3'", "data.datasets=['007', 'null', 'a: b', '2026-01-01']"],
    ):
        config = compose(words)
        path.write_text(to_yaml(config), encoding="utf-8")
        again = load_config(path)
        assert again == config and asdict(again) == asdict(config)
        assert differences(again, config) == [] and fingerprint(again) == fingerprint(config)


def test_words_on_top_of_a_saved_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(compose([*WORDS, "data.height=99"])))
    assert load_config(path, ["data.root=/b", "trainer.devices=2"]).data.root == "/b"
    other = load_config(path, ["data.root=/c", "data=market_layout"])
    assert (other.data.name, other.data.root, other.data.height, other.data.synthetic) == (
        "market_layout",
        "/c",
        99,  # of the model
        False,
    )
    assert load_config(path, ["data.height=77", "data=market_layout"]).data.height == 77
    assert other.rounds == 4 and other.callbacks == compose(WORDS).callbacks
    for words in (["rounds"], ["exp=local"], ["roundz=3"], ["rounds=0"], ["data=nowhere"], ["a\nb=1"]):
        with pytest.raises(FedReIDError) as caught:
            load_config(path, words)
        assert "\n" not in str(caught.value)
    with pytest.raises(FedReIDError, match="No such file"):
        load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "word",
    [
        "seed=1",
        "rounds=31",
        "batch_size=33",
        "optim.lr_head=0.051",
        "data.datasets=[mini-viper]",
        "data.jitter=0.1",
        "model.last_stride=1",
        "trainer.precision=bf16-mixed",
        "callbacks.backbone_sync.batch_norm=first",
        "callbacks.reweighting={}",
        "callbacks.backbone_sync=null",
    ],
)
def test_relevant_settings_change_the_fingerprint(word: str) -> None:
    one, other = compose([]), compose([word])
    assert fingerprint(one) != fingerprint(other)
    changed = differences(one, other)
    assert changed and changed == differences(other, one)
    section, _, _ = word.partition("=")[0].partition(".")
    assert {name.partition(".")[0] for name in changed} == {section}


def test_folders_do_not_change_the_fingerprint() -> None:
    words = ["output_dir=/x", "resume=never", "logger=none", "data.workers=4", "data.cache=none"]
    assert fingerprint(compose(words)) == fingerprint(compose([]))
    assert differences(compose(words), compose([])) == []
    assert len(fingerprint(compose([]))) == 12


# random words

KEYS = st.sampled_from([name for name, _, _ in describe()] + ["exp", "data", "callbacks.x", "callbacks.x.y", "optim"])
VALUES = st.one_of(
    st.text(max_size=12),
    st.text("0123456789.e+-_:[]{}&*!'\"~?,$ ", max_size=12),
    st.sampled_from(["null", "true", ".inf", "!!set {a}", "!!python/name:os.system", "${seed}", "2026-99-99", "[*a]"]),
    st.integers().map(str),
    st.floats().map(repr),
)
ANYTHING = st.one_of(st.text(max_size=20), st.builds("{}={}".format, st.one_of(KEYS, st.text(max_size=8)), VALUES))


@settings(deadline=None, max_examples=150)
@given(st.lists(ANYTHING, min_size=1, max_size=2))
def test_any_words_give_a_configuration_or_one_line(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> None:
    try:
        config = compose(words)
    except FedReIDError as error:
        assert len(str(error).splitlines()) == 1
        return
    assert isinstance(config, Config)
    check_bounds(config)
    assert len(fingerprint(config)) == 12
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(path) == config
