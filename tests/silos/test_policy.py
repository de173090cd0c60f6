"""The operator's policy, and the audit log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedreid_pl.config import compose
from fedreid_pl.engines.silos.audit import AuditLog, check_log
from fedreid_pl.engines.silos.policy import TEXT, Policy, PolicyRefusal, read_policy
from fedreid_pl.errors import FedReIDError


def test_the_written_policy_file_contains_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(TEXT)
    (tmp_path / "empty.yaml").write_text("")
    assert read_policy(tmp_path / "policy.yaml") == read_policy(tmp_path / "empty.yaml") == Policy()


@pytest.mark.parametrize(
    ("policy", "words", "key"),
    [
        (Policy(algorithms=("fedpav*",)), ["exp=scaffold"], "algorithms"),
        (Policy(), ["exp=scaffold"], "callbacks"),
        (Policy(callbacks=("*",)), ["exp=scaffold", "min_clients=1"], "minimum_silos"),
        (Policy(), ["exp=fedpav", "clients_per_round=1", "min_clients=1"], "minimum_silos"),
        (Policy(minimum_silos=5), ["exp=fedpav", "min_clients=4"], "minimum_silos"),
        (Policy(secure_aggregation="required"), ["exp=fedpav"], "secure_aggregation"),
        (Policy(dp_noise_at_least=0.5), ["exp=fedpav"], "dp_noise_at_least"),
        (Policy(callbacks=("*",), dp_noise_at_least=2), ["exp=fedpav_dp"], "dp_noise_at_least"),
        (
            Policy(callbacks=("*",), dp_noise_at_least=0.5),
            ["exp=fedpav_dp", "callbacks.differential_privacy.noise=seed"],
            "dp_noise_at_least",
        ),
        (Policy(rounds_at_most=10), ["exp=fedpav", "rounds=11"], "rounds_at_most"),
    ],
)
def test_each_key_refuses(policy: Policy, words: list[str], key: str) -> None:
    if not any(word.startswith("min_clients") for word in words):
        words = [*words, "min_clients=3"]
    with pytest.raises(PolicyRefusal) as refusal:
        policy.check(compose(words), silos=5)
    assert refusal.value.key == key and key in str(refusal.value)


def test_an_allowed_experiment_passes() -> None:
    Policy().check(compose(["exp=fedpav_kd_rw", "min_clients=2"]), silos=3)
    noisy = Policy(callbacks=("*",), dp_noise_at_least=0.5)
    noisy.check(compose(["exp=fedpav_dp", "min_clients=2", "callbacks.differential_privacy.noise_multiplier=0.5"]), 3)
    Policy().check_metrics(["train/loss", "test/a/rank1", "cosine_distance", "cost/cloned_bytes"])
    with pytest.raises(PolicyRefusal, match="metrics"):
        Policy().check_metrics(["train/loss", "names/of/persons"])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("callback: [x]", "line 1: unknown key 'callback', did you mean 'callbacks'"),
        ("\nminimum_silos: many", "line 2: minimum_silos"),
        ("minimum_silos: 0", "minimum_silos=0"),
        ("secure_aggregation: maybe", "must be no or required"),
        ("metrics: all", "expected a list"),
        ("largest_change: .nan", "largest_change"),
        ("a: &a [*a]", "policy.yaml"),
    ],
)
def test_the_error_names_the_mistake_in_the_file(text: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(text)
    with pytest.raises(FedReIDError, match=named):
        read_policy(tmp_path / "policy.yaml")


def logged(folder: Path) -> Path:
    log = AuditLog(folder)
    for number in range(4):
        log.add("update", round=number, numbers=["train/loss"])
    return log.path


def test_the_log_continues_after_a_restart(tmp_path: Path) -> None:
    path = logged(tmp_path)
    last = AuditLog(tmp_path).add("joined")
    assert check_log(path) == (5, last)
    assert [json.loads(line)["number"] for line in path.read_text().splitlines()] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("how", ["altered", "removed", "put in", "swapped", "first removed", "hash redone"])
def test_changes_of_the_log_are_detected(how: str, tmp_path: Path) -> None:
    path = logged(tmp_path)
    lines = path.read_text().splitlines()
    if how in ("altered", "hash redone"):
        line = {**json.loads(lines[1]), "round": 9}
        if how == "hash redone":
            import hashlib

            line.pop("hash")
            text = json.dumps(line, sort_keys=True, separators=(",", ":"))
            line["hash"] = hashlib.sha256(text.encode()).hexdigest()
        lines[1] = json.dumps(line, sort_keys=True, separators=(",", ":"))
    elif how == "removed":
        del lines[1]
    elif how == "first removed":
        del lines[0]
    elif how == "put in":
        lines.insert(1, lines[1])
    else:
        lines[1], lines[2] = lines[2], lines[1]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(
        FedReIDError, match=f"line {1 if how == 'first removed' else 3 if how in ('put in', 'hash redone') else 2}"
    ):
        AuditLog(tmp_path)


def test_a_half_written_line_is_removed_and_the_removal_is_logged(tmp_path: Path) -> None:
    path = logged(tmp_path)
    with open(path, "a") as file:
        file.write('{"event":"upd')
    log = AuditLog(tmp_path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert log.lines == 5 and lines[-1]["event"] == "recovered" and lines[-1]["bytes_cut"] == 13
    check_log(path)
