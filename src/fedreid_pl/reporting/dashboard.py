"""Builds a wandb workspace that compares the algorithms of a project, with wandb's own library."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from fedreid_pl.config import Config
from fedreid_pl.data.naming import dataset_names
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.server.costs import PHASES
from fedreid_pl.federation.server.history import TESTS
from fedreid_pl.federation.storage import write_text
from fedreid_pl.reporting.run_folder import read_history
from fedreid_pl.reporting.terminal import clip

AXIS = "round"


class Names(NamedTuple):
    """Test sets of the global models and of the local models, and clients, in the order of the panels."""

    tests: list[str]
    local: list[str]
    clients: list[str]


def names_of_run(folder: Path) -> Names:
    """Returns the names in a run's metrics.csv.

    Raises:
        FedReIDError: if there is no metrics.csv, or it has another format.
    """
    history = read_history(folder, Config())
    found = {section: history.names(section) for section in TESTS}
    return Names(found["global"] or found["local"], found["local"], history.names("train", "loss"))


def names_of_data(config: Config) -> Names:
    """Returns the names that follow from a configuration: one client per dataset.

    Raises:
        FedReIDError: if the names do not follow from the configuration but only from a run.
    """
    if config.data.scenario != "by_dataset" or not config.data.datasets:
        raise FedReIDError(
            f"dashboard: the clients of data={config.data.name} are known only after a run; give a run with run=FOLDER"
        )
    names = dataset_names(config.data.datasets)
    return Names(names, names, names)


def build_workspace(names: Names, project: str, entity: str, title: str) -> Any:
    """Returns a `wandb_workspaces.workspaces.Workspace` with runs grouped by experiment, mean and deviation over seeds.

    Args:
        names: test sets and clients.
        project, entity: project and owner of the workspace in wandb.
        title: name of the workspace.

    Raises:
        FedReIDError: if wandb's library for workspaces is not installed.
    """
    ws, wr = _library()

    def plot(title: str, keys: Iterable[str], axis: str = AXIS, **options: Any) -> Any:
        grouped = {"groupby": "Group", "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
        return wr.LinePlot(title=title, x=axis, y=list(keys), **{**grouped, **options})

    def of_one_run(title: str, keys: Iterable[str], **options: Any) -> Any:
        return wr.LinePlot(title=f"{title} (first run shown)", x=AXIS, y=list(keys), max_runs_to_show=1, **options)

    def each(what: str, prefix: str, over: Iterable[str], metric: str) -> list[Any]:
        return [plot(f"{what}: {name}", [f"{prefix}/{name}/{metric}"]) for name in over]

    def section(name: str, panels: list[Any], is_open: bool = False) -> Any:
        return ws.Section(name=name, panels=panels, is_open=is_open)

    clients, local = names.clients, ["mean", *names.local]
    drifts = {"bn_mean_drift": "BatchNorm means", "bn_var_drift": "BatchNorm variances"}
    sections = [
        section("Global models: Rank-1", each("Rank-1", "global", ["mean", *names.tests], "rank1"), is_open=True),
        section("Global models: mAP", each("mAP", "global", ["mean", *names.tests], "mAP"), is_open=True),
        section("Local models: Rank-1", each("Rank-1", "local", local, "rank1")),
        section("Local models: mAP", each("mAP", "local", local, "mAP")),
        section(
            "Aggregation",
            [
                of_one_run("weights", [f"weights/{name}/weight" for name in clients], plot_type="stacked-area"),
                of_one_run("clusters", [f"weights/{name}/cluster" for name in clients]),
                *each("weight", "weights", clients, "weight"),
                *each("cosine distance", "weights", clients, "cosine_distance"),
            ],
        ),
        section(
            "Training",
            [
                plot("distillation loss", ["train/server/distillation_loss"]),
                *each("loss", "train", clients, "loss"),
                *(panel for metric, what in drifts.items() for panel in each(what, "train", clients, metric)),
            ],
        ),
        section(
            "Cost",
            [
                plot("Rank-1 by bytes sent", ["global/mean/rank1"], axis="cost/total/bytes"),
                plot("bytes sent", ["cost/total/bytes"]),
                of_one_run(
                    "seconds by phase",
                    [f"system/{phase}/seconds" for phase in (*PHASES, "other")],
                    plot_type="stacked-area",
                ),
                plot("seconds per round", ["system/total/seconds"]),
                plot("peak memory", ["system/process/peak_memory_bytes", "system/gpu/peak_memory_bytes"]),
            ],
        ),
        section("Ranked lists", [wr.MediaBrowser(title=name, media_keys=[f"ranked/{name}"]) for name in names.tests]),
    ]
    return ws.Workspace(
        name=title,
        entity=entity,
        project=project,
        sections=sections,
        settings=ws.WorkspaceSettings(x_axis=AXIS, max_runs=100, group_by_prefix="first"),
        runset_settings=ws.RunsetSettings(
            groupby=[_metric("Group")],
            pinned_columns=[f"summary:summary/{models}/rank1/last" for models in ("global", "local")],
        ),
    )


def write_workspace(workspace: Any, path: Path) -> None:
    """Writes the definition of the workspace as JSON, in the form that wandb's server receives.

    Raises:
        FedReIDError: if the file cannot be written.
    """
    view = workspace._to_model()
    content = json.loads(view.model_dump_json(by_alias=True, exclude_none=True))
    write_text(path, json.dumps(content, indent=2) + "\n")


def save_workspace(workspace: Any) -> str:
    """Saves the workspace with the wandb account that is logged in; returns its address.

    Raises:
        FedReIDError: if saving fails; the message has the server's reason.
    """
    os.environ["WANDB_SILENT"] = "true"
    try:
        return str(workspace.save().url)
    except Exception as error:  # the library raises many types for a refusal or a missing network
        reason = clip(" ".join(str(error).split()), 200) or type(error).__name__
        raise FedReIDError(
            f"dashboard: the workspace of {workspace.entity}/{workspace.project} could not be saved ({reason}); "
            "add out=FILE.json to write it to a file instead"
        ) from error


def _library() -> tuple[Any, Any]:
    try:
        from wandb_workspaces import workspaces
        from wandb_workspaces.reports import v2
    except ImportError as error:
        raise FedReIDError(
            "dashboard: needs wandb's library for workspaces; install it with `pip install 'fedreid-pl[dashboard]'`"
        ) from error
    return workspaces, v2


def _metric(name: str) -> Any:
    from wandb_workspaces import expr

    return expr.Metric(name)
