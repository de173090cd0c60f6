"""The observer that writes inspection.json in a run's last round."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from fedreid_pl.config import Config
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.server.context import RoundContext
from fedreid_pl.federation.server.observer import Observer
from fedreid_pl.inspection.inspector import Inspector


def check_report(config: Config) -> None:
    """Raises an error before the run if the feature plot cannot be computed on this machine.

    Raises:
        FedReIDError: if `report.embedding=tsne` and scikit-learn is not installed.
    """
    if config.report.embedding == "tsne" and importlib.util.find_spec("sklearn") is None:
        raise FedReIDError(
            "report.embedding=tsne: install scikit-learn with `pip install scikit-learn`, or set report.embedding=pca"
        )


class InspectionFiles(Observer):
    """Writes inspection.json before the checkpoint of its round, because a resumed run does not evaluate it again.

    A failure issues a warning and does not stop the run.
    """

    def __init__(self, inspector: Inspector, folder: Path) -> None:
        self.inspector, self.folder = inspector, folder

    def on_checkpoint(self, federation: RoundContext) -> None:
        """Writes inspection.json, if this is the inspector's round."""
        if federation.round != self.inspector.round:
            return
        problem = self.inspector.problem
        try:
            self.inspector.write(self.folder)
        except Exception as error:
            problem = problem or " ".join(str(error).split())
        if problem:
            federation.warn(f"inspection.json is not complete ({problem}); fedreid-pl report makes it again")
