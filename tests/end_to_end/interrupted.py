"""Compares a run that is stopped in its second round and resumed with an uninterrupted run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import support
from end_to_end.remote_clients import Interruption

from fedreid_pl.engines import sequential
from fedreid_pl.engines.sequential import SequentialEngine
from fedreid_pl.federation.storage import read_state


class Stopped(SequentialEngine):
    """Stops after five training turns: in the second round, after two of three clients."""

    turns = 0

    def fit(self, jobs: Iterable[Any]) -> Iterator[Any]:
        for outcome in super().fit(jobs):
            yield outcome
            type(self).turns += 1
            if self.turns == 5:
                raise Interruption


def assert_resumes(run: Callable[[Path], Any], place: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Asserts equal bits of models, numbers and client states; returns the loop of the uninterrupted run.

    Args:
        run: a function that trains two rounds of three clients in a folder.
        place: an empty folder.
    """
    straight = run(place / "straight")
    with monkeypatch.context() as patched:
        patched.setattr(sequential, "SequentialEngine", Stopped)
        patched.setattr(Stopped, "turns", 0)
        with pytest.raises(Interruption):
            run(place / "resumed")
    assert not (place / "resumed" / "checkpoints" / "round-00002.ckpt").exists()
    resumed = run(place / "resumed")
    support.assert_equal(resumed.context.models, straight.context.models)
    assert resumed.context.history.to_csv() == straight.context.history.to_csv()
    kept = [{path.relative_to(folder): path for path in folder.rglob("clients/*/*.pt")} for folder in place.iterdir()]
    assert kept[0].keys() == kept[1].keys() and len(kept[0]) >= 3
    for name, path in kept[0].items():
        states = [read_state(path), read_state(kept[1][name])]
        for state in states:
            state.pop("turn")
        support.assert_equal(*states, str(name))
    return straight


def assert_distance_weights(weights: dict[str, float]) -> None:
    """Asserts that the cosine-distance weights of three clients differ and add up to one."""
    assert sum(weights.values()) == pytest.approx(1) and len(set(weights.values())) == 3
