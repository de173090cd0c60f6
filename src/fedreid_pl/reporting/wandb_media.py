"""Data of a whole run for wandb: tables, ranked lists as pictures, the best checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import wandb
from PIL import Image

from fedreid_pl.config import Config
from fedreid_pl.federation.server.checkpoint import Checkpoints
from fedreid_pl.federation.server.context import RoundContext
from fedreid_pl.federation.server.history import SCORED, TESTS, History, best_round, summarize
from fedreid_pl.reporting.inspection import read_inspection
from fedreid_pl.reporting.ranked_strip import ranked_strip
from fedreid_pl.reporting.thumbnails import open_thumbnail

WEIGHTS = ("weight", "cosine_distance", "cluster")
STATISTICS = ("untrained", "last", "best", "best3", "fluctuation")


def last_media(federation: RoundContext, folder: Path) -> dict[str, Any]:
    """Returns tables of scores and weights, and pictures and confusions if the configuration allows sending them."""
    history, config = federation.history, federation.config
    media: dict[str, Any] = {"tables/scores": score_table(history)}
    weights = weight_table(history)
    if weights.data:
        media["tables/weights"] = weights
        curves = {client: history.series("weights", client, "weight") for client in history.names("weights", "weight")}
        media["charts/weights"] = wandb.plot.line_series(
            xs=[list(curve) for curve in curves.values()],
            ys=[list(curve.values()) for curve in curves.values()],
            keys=list(curves),
            title="aggregation weight by client",
            xname="round",
        )
    if sends_images(config):
        media |= _pictures(config, folder)
    return media


def sends_images(config: Config) -> bool:
    """Returns whether pictures may be sent: `wandb.images`, by default only those of synthetic data."""
    return config.data.synthetic if config.wandb.images is None else config.wandb.images


def score_table(history: History) -> wandb.Table:
    """Returns a table with one row per section, test set (or mean) and metric, with the statistics of summary.json."""
    rows = [
        [section, test, metric, *(numbers.get(name) for name in STATISTICS)]
        for section in SCORED
        for test, metrics in summarize(history, section).items()
        for metric, numbers in metrics.items()
    ]
    return wandb.Table(columns=["models", "test set", "metric", *STATISTICS], data=rows)


def weight_table(history: History) -> wandb.Table:
    """Returns a table with one row per round and client: weight, and distance and cluster if they were measured."""
    cells = {
        (record.round, record.name, record.metric): record.value
        for record in history.records
        if record.section == "weights"
    }
    rows = [
        [round, client, *(cells.get((round, client, metric)) for metric in WEIGHTS)]
        for round, client in _unique((round, client) for round, client, _ in cells)
    ]
    return wandb.Table(columns=["round", "client", *WEIGHTS], data=rows)


def run_summary(federation: RoundContext) -> dict[str, Any]:
    """Returns the main results of the run, as columns of wandb's table of runs."""
    best, best_by = best_round(federation.history)
    values: dict[str, Any] = {"best_round": best, "best_by": best_by}
    for section in TESTS:
        for metric, numbers in summarize(federation.history, section).get("mean", {}).items():
            if metric in ("rank1", "mAP"):
                values |= {f"summary/{section}/{metric}/{name}": value for name, value in numbers.items()}
    return values


def log_artifact(run: Any, federation: RoundContext, folder: Path) -> None:
    """Uploads the checkpoint of the best round, or of the last round without an evaluation; it contains no heads."""
    chosen, _ = best_round(federation.history)
    number = federation.round if chosen is None else chosen
    config = federation.config
    name = "".join(mark if mark.isalnum() or mark in "-_." else "-" for mark in f"{config.name}-seed{config.seed}")
    artifact = wandb.Artifact(name, type="model", metadata={"round": number, "data": config.data.name})
    artifact.add_file(str(Checkpoints(folder / "checkpoints").path(number)))
    run.log_artifact(artifact, aliases=["best", f"round-{number}"])


def _pictures(config: Config, folder: Path) -> dict[str, Any]:
    inspection = read_inspection(folder)
    if inspection is None:
        return {}
    media: dict[str, Any] = {}
    confusions = []
    for test, found in inspection["tests"].items():
        strips = [_strip(folder, entry) for entry in found.get("ranked", ())]
        if strips:
            media[f"ranked/{test}"] = strips
        confusions += [
            [test, entry["identity"], entry["mistaken_for"], entry["count"]] for entry in found.get("confusions", ())
        ]
    if confusions:
        media["tables/confusions"] = wandb.Table(
            columns=["test set", "identity", "mistaken for", "queries"], data=confusions
        )
    return media


def _strip(folder: Path, entry: dict[str, Any]) -> wandb.Image:
    query, gallery = entry["query"], entry["gallery"]
    with_images = [(_picture(folder, item["image"]), item["correct"]) for item in gallery]
    picture = ranked_strip(_picture(folder, query["image"]), with_images)
    found = next((rank for rank, item in enumerate(gallery, 1) if item["correct"]), None)
    caption = (
        f"person {query['identity']}, camera {query['camera']}; "
        f"{f'first hit at rank {found}' if found else f'no hit in {len(gallery)}'}, "
        f"AP {100 * entry['average_precision']:.1f}; gallery cameras "
        + " ".join(str(item["camera"]) for item in gallery)
    )
    return wandb.Image(picture, caption=caption)


def _picture(folder: Path, name: str) -> Image.Image:
    return open_thumbnail(folder, name) or Image.new("RGB", (1, 2), (128, 128, 128))


def _unique(items: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(items))
