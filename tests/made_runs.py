"""Makes run folders from given numbers, with the files and the summary that the real code writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fedreid_pl.config import compose, to_yaml
from fedreid_pl.federation.server.history import TESTS, History, best_round, summarize
from fedreid_pl.reporting.run_folder import setting

Score = Callable[[str, int, str], float]
"""A function of section, round and test set that returns Rank-1."""


def history_of(rounds: int, tests: tuple[str, ...], score: Score, weights: bool = True, every: int = 1) -> History:
    """Returns a history with scores of both sections (only `local` without weights), unequal weights, and bytes."""
    history = History()
    for round in range(rounds + 1):
        for section in TESTS if weights else ("local",):
            if (round % every and round != rounds) or (round == 0 and section == "local"):
                continue
            for test in tests:
                value = score(section, round, test)
                for metric, factor in (("rank1", 1.0), ("rank5", 1.1), ("rank10", 1.2), ("mAP", 0.8)):
                    history.add(round, section, test, metric, min(1.0, factor * value))
        if round and weights:
            share = 1 / (len(tests) + 1)
            for index, test in enumerate(tests):
                history.add(round, "weights", test, "weight", share * (2 if index == 0 else 1))
                history.add(round, "cost", test, "bytes_up", 1000)
    return history


def write_run(
    folder: Path, words: list[str], history: History, tests: tuple[str, ...], inspection: dict[str, Any] | None = None
) -> Path:
    """Writes the run folder of the configuration that `words` compose."""
    config = compose(words)
    best, best_by = best_round(history)
    rounds = max((record.round for record in history.records), default=0)
    summary: dict[str, Any] = {
        "name": config.name,
        "complete": rounds == config.rounds,
        "rounds": rounds,
        "setting": setting(config),
        "clients": dict.fromkeys(tests, 100),
        **{section: summarize(history, section) for section in TESTS},
        "best_round": best,
        "best_by": best_by,
        "costs": {
            "backbone_bytes": 1000,
            "bytes_down": 2_000_000,
            "bytes_up": 1_000_000,
            "seconds": {"fit": 30.0, "aggregate": 2.0, "evaluate": 7.0, "checkpoint": 1.0, "other": 0.5, "total": 40.5},
            "peak_memory_bytes": 500_000_000,
        },
        "versions": {"fedreid_pl": "0"},
    }
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(config))
    (folder / "metrics.csv").write_text(history.to_csv())
    (folder / "summary.json").write_text(json.dumps(summary))
    if inspection is not None:
        (folder / "inspection.json").write_text(json.dumps(inspection))
    return folder


def curves_of(tests: tuple[str, ...], first: float, models: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Returns an inspection without images whose curves rise from `first` to 1."""
    levels = {"global": first, **(models or {})}
    curves = {model: [level + (1 - level) * rank / 49 for rank in range(50)] for model, level in levels.items()}
    entry = {"model": "global", "cmc": curves["global"], "cmcs": curves, "ranked": [], "confusions": []}
    return {"version": 1, "round": 1, "images": False, "tests": dict.fromkeys(tests, entry), "embedding": None}
