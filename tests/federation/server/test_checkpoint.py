"""Deletion of old checkpoints, damaged checkpoints, and the resume from another folder."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from fedreid_pl.config import Config, compose, lineage, to_yaml
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.client.store import ClientStore
from fedreid_pl.federation.server.checkpoint import Checkpoints, ForeignCheckpoint, check_models, read_checkpoint
from fedreid_pl.federation.server.costs import Costs
from fedreid_pl.federation.server.history import History
from fedreid_pl.federation.storage import DamagedFile, write_state
from fedreid_pl.reporting.run_folder import RunLock, write_splits
from fedreid_pl.resume import find_checkpoint, prepare_folder


def state(round: int) -> dict[str, Any]:
    parts: dict[str, Any] = {name: {} for name in ("assignment", "rejected", "callbacks")}
    parts |= {"history": History().state_dict(), "costs": Costs().state_dict()}
    return {**parts, "round": round, "models": {"global": {"w": torch.full((3,), float(round))}}}


def rounds_on_disk(folder: Path) -> list[int]:
    return sorted(int(name[6:11]) for name in os.listdir(folder) if name.endswith(".ckpt"))


def test_the_last_two_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "new")
    assert checkpoints.rounds() == [] and checkpoints.latest() == (None, [])
    history: list[tuple[int, float]] = []
    draws = random.Random(3)
    for round in range(1, 25):
        if round % 3 == 0:
            history.append((round, draws.random()))
        best = max(history, key=lambda item: item[1])[0] if history else None
        kept = checkpoints.save(round, state(round), best)
        wanted = {round, round - 1} - {0} | ({best} if best else set())
        assert set(rounds_on_disk(tmp_path / "new")) == set(kept) == wanted
        assert checkpoints.rounds() == sorted(wanted)
    latest, problems = checkpoints.latest()
    assert latest is not None and latest["round"] == 24 and problems == []


def test_a_missing_best_round_is_no_error(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.save(7, state(7), best=2) == [7]
    assert checkpoints.save(8, state(8), best=None) == [7, 8]


def test_latest_falls_back_past_damaged_ones(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=4)
    for round in (1, 2, 3, 4):
        checkpoints.save(round, state(round), None)
    (tmp_path / ".round-00005.ckpt.77.tmp").write_bytes(b"cut")
    for damaged, left in ((4, 3), (3, 2)):
        path = checkpoints.path(damaged)
        path.write_bytes(path.read_bytes()[: -damaged * 10])
        latest, problems = checkpoints.latest()
        assert latest is not None and latest["round"] == left
        assert torch.equal(latest["models"]["global"]["w"], torch.full((3,), float(left)))
        assert len(problems) == 4 - left and str(checkpoints.path(4)) in problems[0]
    for round in (1, 2):
        checkpoints.path(round).write_bytes(b"")
    with pytest.raises(DamagedFile, match=r"no checkpoint is readable.*resume=never"):
        checkpoints.latest()


def test_a_failed_write_leaves_the_earlier_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    for round in (1, 2):
        checkpoints.save(round, state(round), None)

    def fail(*parts: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(FedReIDError, match="No space left"):
        checkpoints.save(3, state(3), None)
    assert sorted(os.listdir(tmp_path)) == ["round-00001.ckpt", "round-00002.ckpt"]


def test_forget_and_processes_that_do_not_write(tmp_path: Path) -> None:
    first, second = Checkpoints(tmp_path, keep=5), Checkpoints(tmp_path, writable=False)
    for round in (1, 2, 3):
        first.save(round, state(round), None)
    assert second.save(4, state(4), None) == []
    second.forget(0)
    assert rounds_on_disk(tmp_path) == [1, 2, 3]
    first.forget(1)
    assert rounds_on_disk(tmp_path) == [1]


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    config = compose(["exp=fedpav"])
    mine = Checkpoints(tmp_path, lineage=lineage(config))
    mine.save(1, state(1), None)
    for words, same in (
        (["rounds=9", "name=other", "data.root=/elsewhere", "trainer.devices=2", "client_timeout=5"], True),
        (["seed=1"], False),
        (["optim.lr_head=0.5"], False),
        (["callbacks.backbone_sync.batch_norm=first"], False),
        (["exp=fedpav_rw"], False),
    ):
        theirs = Checkpoints(tmp_path, lineage=lineage(compose(["exp=fedpav", *words])))
        if same:
            assert theirs.latest()[0] is not None
        else:
            with pytest.raises(
                ForeignCheckpoint, match=r"round-00001\.ckpt: belongs to a run with another configuration"
            ):
                theirs.latest()
    assert Checkpoints(tmp_path).latest()[0] is not None, "without a configuration the checkpoint can be read"


@pytest.mark.parametrize("part", ["round", "models", "history", "callbacks"])
def test_a_file_that_is_not_a_server_checkpoint_is_refused(tmp_path: Path, part: str) -> None:
    for spoiled in ({**state(1), part: None}, {name: value for name, value in state(1).items() if name != part}):
        write_state(tmp_path / "file", spoiled)
        with pytest.raises(DamagedFile, match=f"is not a checkpoint of a server .'{part}'"):
            read_checkpoint(tmp_path / "file")


def test_models_must_fit_the_network() -> None:
    like = {"w": torch.zeros(3), "n": torch.tensor(1)}
    check_models({"global": {"n": torch.tensor(5), "w": torch.ones(3)}}, like)
    check_models({}, like)
    for spoiled in (
        {"w": torch.ones(3)},
        {**like, "more": torch.ones(1)},
        {**like, "w": torch.ones(4)},
        {**like, "w": torch.ones(3).double()},
        {**like, "w": [1.0, 1.0, 1.0]},
        None,
    ):
        with pytest.raises(FedReIDError, match="global model does not fit the network"):
            check_models({"global": spoiled}, like)


# resuming a run's folder


def make_run(folder: Path, *words: str, rounds: int = 3) -> Config:
    config = compose(["exp=fedpav", "rounds=5", f"output_dir={folder}", *words])
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(config))
    for round in range(1, rounds + 1):
        Checkpoints(folder / "checkpoints", keep=9).save(round, state(round), None)
        ClientStore(folder / "clients").save("a", round, {"head": {}})
    return config


def test_the_same_configuration_resumes_and_another_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    config = make_run(folder)
    lock = prepare_folder(config, folder)
    with pytest.raises(FedReIDError, match="another process"):
        prepare_folder(config, folder)
    del lock
    longer = compose(["exp=fedpav", "rounds=9", "trainer.devices=2", "data.root=/elsewhere", "logger=none"])
    del_me = prepare_folder(longer, folder)
    del del_me
    with pytest.raises(FedReIDError, match=r"seed differ"):
        prepare_folder(compose(["exp=fedpav", "rounds=5", "seed=1"]), folder)
    with pytest.raises(FedReIDError, match="already has 3 rounds"):
        prepare_folder(compose(["exp=fedpav", "rounds=2"]), folder)
    assert rounds_on_disk(folder / "checkpoints") == [1, 2, 3]


def test_only_temporary_files_of_killed_writers_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    config = make_run(folder)
    left = [folder / ".metrics.csv.12.tmp", folder / "clients" / "a" / ".round-00004.pt.7.tmp"]
    other = [folder / "notes.tmp", folder / ".mine.tmp"]
    for path in (*left, *other):
        path.write_bytes(b"half")
    prepare_folder(config, folder)
    assert not any(path.exists() for path in left) and all(path.exists() for path in other)
    assert rounds_on_disk(folder / "checkpoints") == [1, 2, 3]


def test_with_resume_never_an_earlier_run_is_renamed_unless_it_is_locked(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    config = make_run(folder, "resume=never")
    lock = RunLock(folder)
    with pytest.raises(FedReIDError, match="another process"):
        prepare_folder(config, folder)
    assert os.listdir(tmp_path) == ["run"] and rounds_on_disk(folder / "checkpoints") == [1, 2, 3]
    del lock
    prepare_folder(config, folder)
    assert sorted(os.listdir(tmp_path)) == ["run", "run.old-1"]
    assert os.listdir(folder) == [".lock"] and rounds_on_disk(tmp_path / "run.old-1" / "checkpoints") == [1, 2, 3]


def test_a_checkpoint_of_another_folder_is_copied_with_the_clients(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    make_run(source)
    checkpoint = source / "checkpoints" / "round-00002.ckpt"
    config = compose(["exp=fedpav", "rounds=5", f"resume={checkpoint}"])
    lock = prepare_folder(config, target)
    assert rounds_on_disk(target / "checkpoints") == [2]
    assert sorted(os.listdir(target / "clients" / "a")) == ["round-00001.pt", "round-00002.pt"]
    assert rounds_on_disk(source / "checkpoints") == [1, 2, 3], "the source does not change"
    assert len(os.listdir(source / "clients" / "a")) == 3
    del lock
    (target / "checkpoints" / "round-00003.ckpt").write_bytes(b"what the new run did before it was killed")
    lock = prepare_folder(config, target)
    del lock
    assert rounds_on_disk(target / "checkpoints") == [2, 3], "the repeated command resumes and deletes no round"
    for words, wanted in (
        (["seed=4"], "seed differ"),
        (["rounds=1"], "is of round 2, but rounds=1"),
        ([f"resume={tmp_path / 'nowhere'}"], "resume=.*nowhere: no such file or folder"),
    ):
        with pytest.raises(FedReIDError, match=wanted):
            prepare_folder(compose(["exp=fedpav", "rounds=5", f"resume={checkpoint}", *words]), tmp_path / "third")


def test_images_that_changed_since_the_start_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    config = make_run(folder)
    digests = {"market": {"sha256": "1", "train": 5}, "viper": {"sha256": "2"}}
    del_me = prepare_folder(config, folder, digests)  # a run from before this file existed
    del del_me
    write_splits(folder, digests)
    del_me = prepare_folder(config, folder, {**digests, "market": {"sha256": "1"}})
    del del_me
    taken_over = compose(["exp=fedpav", "rounds=5", f"resume={folder}"])
    elsewhere = compose(["exp=fedpav", "rounds=5", "data.root=/elsewhere"])
    for others, name in (
        ({**digests, "viper": {"sha256": "3"}}, "viper"),
        ({"market": digests["market"]}, "viper"),
        ({**digests, "duke": {"sha256": "4"}}, "duke"),
    ):
        for asked, target in ((elsewhere, folder), (taken_over, tmp_path / "other")):
            with pytest.raises(FedReIDError, match=f"the pictures of {name} have changed since the run in .*/run "):
                prepare_folder(asked, target, others)
    assert not (tmp_path / "other" / "checkpoints").exists()
    for checkpoint in (folder / "checkpoints").iterdir():
        checkpoint.unlink()
    prepare_folder(config, folder, {})  # the refused images left no record


def test_find_checkpoint(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / "round-00003.ckpt"
    assert find_checkpoint(tmp_path / "run") == newest and find_checkpoint(newest) == newest
    with pytest.raises(FedReIDError, match="contains no checkpoint"):
        find_checkpoint(tmp_path)
