"""Updates stored on the disk equal the received ones, and averaging them loads one tensor at a time."""

from __future__ import annotations

import gc
import json
import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import support
import torch
from torch import Tensor

from fedreid_pl.config import compose
from fedreid_pl.errors import FedReIDError
from fedreid_pl.experiment import train
from fedreid_pl.federation.messages import ClientUpdate, from_bytes, to_bytes
from fedreid_pl.federation.server import inbox as module
from fedreid_pl.federation.server.inbox import StoredState, UpdateInbox
from fedreid_pl.functional.aggregation import weighted_average


def make_update(client: str = "a", seed: int = 0, size: int = 1000) -> ClientUpdate:
    draws = torch.Generator().manual_seed(seed)
    backbone = {
        "conv": torch.randn(8, 4, 3, 3, generator=draws).to(memory_format=torch.channels_last),
        "linear": torch.randn(size, generator=draws),
        "wide": torch.randn(3, 5, generator=draws, dtype=torch.float64).T,
        "half": torch.randn(7, generator=draws).bfloat16(),
        "count": torch.tensor(seed + 3),
        "empty": torch.empty(0, 4),
        "view": torch.arange(20.0)[::2],
    }
    return ClientUpdate(1, client, backbone, 5, {"train/loss": 0.5}, {"c": torch.ones(2, 2)})


def test_a_stored_update_equals_the_received_one(tmp_path: Path) -> None:
    update = make_update()
    kept = UpdateInbox(tmp_path, in_memory=0).keep(update)
    assert isinstance(kept.backbone, StoredState) and isinstance(kept.extras, StoredState)
    support.assert_equal(dict(kept.backbone), dict(update.backbone))
    support.assert_equal(dict(kept.extras), dict(update.extras))
    for name, value in update.backbone.items():
        assert kept.backbone[name].dtype == value.dtype
        if name != "view":  # stored without its gaps
            assert kept.backbone[name].stride() == value.stride(), name
    assert (kept.nbytes, kept.num_samples, kept.metrics) == (update.nbytes, 5, {"train/loss": 0.5})
    sent = from_bytes(to_bytes(kept))
    assert isinstance(sent, ClientUpdate)
    support.assert_equal(dict(sent.backbone), dict(update.backbone))


def test_a_change_of_a_loaded_tensor_does_not_change_the_file(tmp_path: Path) -> None:
    kept = UpdateInbox(tmp_path, in_memory=0).keep(make_update())
    kept.backbone["linear"].zero_()
    assert torch.equal(kept.backbone["linear"], make_update().backbone["linear"])


def test_small_updates_stay_in_memory_up_to_a_limit(tmp_path: Path) -> None:
    updates = [make_update(name, seed) for seed, name in enumerate("abc")]
    inbox = UpdateInbox(tmp_path, in_memory=2 * updates[0].nbytes)
    for _ in range(2):  # `clear` frees the space
        kept = [inbox.keep(update) for update in updates]
        assert kept[0] is updates[0] and kept[1] is updates[1]
        assert isinstance(kept[2].backbone, StoredState)
        inbox.clear()
    support.assert_equal(dict(kept[2].backbone), dict(updates[2].backbone))  # references stay readable
    assert UpdateInbox(None, in_memory=0).keep(updates[0]) is updates[0]


def test_no_file_is_left_on_the_disk(tmp_path: Path) -> None:
    inbox = UpdateInbox(tmp_path / "new", in_memory=0)
    kept = inbox.keep(make_update())
    assert os.listdir(tmp_path / "new") == []
    descriptors = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    inbox.clear()
    del kept
    gc.collect()
    if descriptors:
        assert len(os.listdir("/proc/self/fd")) == descriptors - 1


def test_an_average_loads_one_tensor_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live: list[int] = []
    most = [0]

    class Counted(mmap.mmap):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            live.append(1)
            most[0] = max(most[0], len(live))

        def __del__(self) -> None:
            live.pop()

    inbox = UpdateInbox(tmp_path, in_memory=0)
    updates = [make_update(str(seed), seed) for seed in range(7)]
    weights = {update.client: (seed + 1) / 28 for seed, update in enumerate(updates)}
    expected = weighted_average(((update.client, update.backbone) for update in updates), weights)
    kept = [inbox.keep(update) for update in updates]
    monkeypatch.setattr(module.mmap, "mmap", Counted)
    average = weighted_average(((update.client, update.backbone) for update in kept), weights)
    assert 1 <= most[0] <= 2  # the previous tensor is freed after the next one is loaded
    assert not live
    support.assert_equal(average, expected)


class FullDisk:
    """A file that cannot be written."""

    def seek(self, *place: int) -> int:
        return 0

    def write(self, data: memoryview) -> int:
        raise OSError(28, "No space left on device")


def test_a_full_disk_gives_one_error_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **options: FullDisk())
    with pytest.raises(FedReIDError, match="No space left") as error:
        UpdateInbox(tmp_path, in_memory=0).keep(make_update())
    assert str(tmp_path) in str(error.value)


def test_a_file_with_partial_writes(tmp_path: Path) -> None:
    class Slow:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def write(self, data: memoryview) -> int:
            return self.file.write(data[:100])

    with tempfile.TemporaryFile(dir=tmp_path, buffering=0) as file:
        state = StoredState({"w": torch.arange(200.0)}, Slow(file))  # type: ignore[arg-type]
        assert torch.equal(state["w"], torch.arange(200.0))


def models(summary: Path) -> Iterator[tuple[str, Tensor]]:
    from fedreid_pl.federation.storage import read_state

    newest = sorted((summary.parent / "checkpoints").glob("*.ckpt"))[-1]
    for model, state in read_state(newest)["models"].items():
        for name, value in state.items():
            yield f"{model}/{name}", value


@pytest.mark.parametrize("experiment", ["fedpav_kd_rw", "fedpav_cc_rw", "scaffold", "fednova", "median"])
def test_runs_do_not_depend_on_where_updates_are_stored(
    experiment: str, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for place, limit in (("memory", 2**30), ("disk", 0)):
        stored = []
        monkeypatch.setattr(UpdateInbox.__init__, "__defaults__", (None, limit))
        append = module._append
        monkeypatch.setattr(module, "_append", lambda *args: stored.append(1) or append(*args))  # noqa: B023
        words = support.quick(tiny_root, tmp_path / place, f"exp={experiment}", "trainer.accelerator=cpu")
        train(compose(words), tmp_path / place)
        monkeypatch.setattr(module, "_append", append)
        assert bool(stored) == (place == "disk")
        summary = support.without_times(json.loads((tmp_path / place / "summary.json").read_text()))
        found.append((dict(models(tmp_path / place / "summary.json")), summary))
    support.assert_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
