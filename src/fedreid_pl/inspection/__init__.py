"""What is behind the scores of a run's last round: CMC curves, and what single images show if that is allowed."""

from fedreid_pl.inspection.inspector import Inspector
from fedreid_pl.inspection.observer import InspectionFiles, check_report

__all__ = ["InspectionFiles", "Inspector", "check_report"]
