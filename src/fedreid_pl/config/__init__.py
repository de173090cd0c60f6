"""Typed configuration composed from YAML files and command-line words."""

from fedreid_pl.config.bounds import describe
from fedreid_pl.config.command import portable_words, reproducing_words
from fedreid_pl.config.compose import (
    available,
    check_run_folder,
    compose,
    differences,
    fingerprint,
    load_config,
    to_yaml,
)
from fedreid_pl.config.fidelity import departures
from fedreid_pl.config.lineage import lineage, may_change
from fedreid_pl.config.places import absolute, without_places
from fedreid_pl.config.schema import Config, ReportConfig, TrainerConfig
from fedreid_pl.config.schema_data import DataConfig
from fedreid_pl.config.schema_model import LossConfig, ModelConfig, OptimConfig

__all__ = [
    "Config",
    "DataConfig",
    "LossConfig",
    "ModelConfig",
    "OptimConfig",
    "ReportConfig",
    "TrainerConfig",
    "absolute",
    "available",
    "check_run_folder",
    "compose",
    "departures",
    "describe",
    "differences",
    "fingerprint",
    "lineage",
    "load_config",
    "may_change",
    "portable_words",
    "reproducing_words",
    "to_yaml",
    "without_places",
]
