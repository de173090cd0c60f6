"""The typed configuration: every key that a YAML file or the command line may set, with its unit and bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fedreid_pl.config.keys import key
from fedreid_pl.config.schema_data import DataConfig
from fedreid_pl.config.schema_model import LossConfig, ModelConfig, OptimConfig

DEFAULTS = 2
"""Version of the default values. It increases whenever the default of a key or of a callback's option changes.

Runs with different versions cannot be confused. 1: the defaults before runs saved this number. 2: see
`lineage.FORMER` and docs/decisions.md.
"""


@dataclass
class TrainerConfig:
    """Settings that are passed to each client's Lightning Trainer."""

    accelerator: str = key("auto", "Lightning accelerator: auto, cpu, gpu, mps or tpu.")
    devices: int = key(1, "Number of devices per machine (processes on CPU).", at_least=1)
    num_nodes: int = key(1, "Number of machines (Lightning's num_nodes).", at_least=1)
    strategy: str = key(
        "auto", "Lightning strategy: auto (ddp with several devices), ddp, or the name of another strategy."
    )
    precision: str = key(
        "32-true",
        "Numerical precision: 32-true, bf16-mixed, 16-mixed, or auto: bf16-mixed if the hardware supports it, else "
        "32-true.",
        choices=("auto", "32-true", "bf16-mixed", "16-mixed"),
    )
    compile: str = key(
        "none",
        "torch.compile mode of the backbone: default, reduce-overhead (CUDA graphs) or max-autotune. none: no "
        "compilation.",
        choices=("none", "default", "reduce-overhead", "max-autotune"),
    )
    sync_batchnorm: bool = key(
        True,
        "Computes BatchNorm statistics over the images of all devices. false: each device uses its own part of the "
        "batch (ghost batches).",
    )
    deterministic: bool = key(False, "Uses only deterministic algorithms of torch.")
    benchmark: bool = key(True, "Lets cuDNN select the fastest convolution algorithm for the image size.")


@dataclass
class EngineConfig:
    """Settings of the engine that runs the clients' jobs. They do not change results.

    `engine=NAME` is the short form of `engine.name=NAME`.
    """

    name: str = key(
        "sequential",
        "Engine that runs the clients' jobs. sequential: one client after the other in this process; ray: clients in "
        "parallel on this machine or on a Ray cluster (docs/parallel.md); silos: every client on the machines of the "
        "party that owns its pictures, over the network (engine.federation).",
        choices=("sequential", "ray", "silos"),
    )
    address: str | None = key(
        None, "ray: address of the Ray cluster, auto or HOST:PORT. null: start Ray on this machine for the run."
    )
    slots: int | None = key(
        None,
        "ray: number of clients that train at the same time. null: as many as the processors and GPUs allow.",
        at_least=1,
    )
    cpus_per_client: int = key(1, "ray: processors per slot, also the number of threads of a client.", at_least=1)
    gpus_per_client: float | None = key(
        None, "ray: GPUs per slot; fractions are allowed. null: one if the machine has GPUs.", at_least=0.0, at_most=1.0
    )
    client_state: str = key(
        "auto",
        "ray: how a slot gets a client's saved state. folder: read from the run folder, on a disk that all machines "
        "share; driver: sent with every job; auto: folder on the driver's own machine, else driver.",
        choices=("auto", "folder", "driver"),
    )
    federation: str | None = key(
        None,
        "silos: folder of the federation, created by fedreid-pl federation init. federation=FOLDER is the short form.",
        path=True,
    )
    deadline: float | None = key(
        None,
        "silos: seconds that a silo may take for a job. After that the round continues without the silo. null: no "
        "limit.",
        above=0.0,
    )


@dataclass
class ReportConfig:
    """Settings of report.html and inspection.json. They do not change results."""

    images: bool | None = key(
        None, "Whether the report shows ranked lists, identities and the feature plot. null: only for synthetic data."
    )
    queries: int = key(
        6,
        "Number of queries per test set with a ranked list. Half of them are the hardest queries.",
        at_least=2,
        at_most=50,
    )
    rerank: bool = key(
        False, "Evaluates the test sets also after k-reciprocal re-ranking, as separate scores (slower)."
    )
    embedding: str = key(
        "pca",
        "Two-dimensional projection of the query features: pca, or tsne (requires scikit-learn).",
        choices=("pca", "tsne"),
    )


@dataclass
class WandbConfig:
    """Settings of logger=wandb: the project, and what is sent in addition to the metrics."""

    project: str | None = key(None, "wandb project. null: $WANDB_PROJECT, else fedreid_pl-DATA.")
    entity: str | None = key(None, "User or team that owns the wandb project. null: the default entity of the account.")
    images: bool | None = key(
        None,
        "Sends pictures of the ranked lists to wandb, if report.images writes the lists. null: only for synthetic "
        "data, never pictures of people.",
    )
    artifact: bool = key(False, "Sends the best checkpoint (server models without heads) to wandb as an artifact.")


@dataclass
class Config:
    """Configuration of one experiment."""

    name: str = key("", "Name of the experiment. Set by exp=NAME.")
    defaults: int = key(
        DEFAULTS,
        "Version of the default values that the configuration was composed with. Set by the program.",
        at_least=1,
    )
    fidelity: str = key(
        "paper",
        "paper: follow the paper; code: follow the published code wherever it departs from the paper.",
        choices=("paper", "code"),
    )
    rounds: int = key(300, "Number of federated rounds.", at_least=1, at_most=10**6)
    seed: int = key(0, "Seed of all random numbers of the run.", at_least=0)
    batch_size: int = key(32, "Training images per step, over all devices together.", at_least=2)
    local_epochs: int = key(1, "Epochs that a client trains per round.", at_least=1)
    local_steps: int | None = key(
        None,
        "Optimizer steps that a client trains per round, in place of local_epochs. The client repeats passes over its"
        " images until the steps are done. null: train local_epochs.",
        at_least=1,
    )
    optimizer_state: str = key(
        "reset",
        "SGD momentum of a client at the start of a round. reset: zero (the paper); keep: the momentum from the "
        "client's last round.",
        choices=("reset", "keep"),
    )
    clients_per_round: int | None = key(
        None, "Number of clients that are drawn at random per round. null: all clients.", at_least=1
    )
    min_clients: int = key(
        1, "Minimum number of valid client updates per round. With fewer, the run stops.", at_least=1
    )
    client_timeout: float | None = key(
        None,
        "Seconds that a client may train in a round. After that the round continues without the client. null: no "
        "limit.",
        above=0.0,
    )
    client_retries: int = key(
        1, "Number of retries per round for a client that failed or sent an invalid update.", at_least=0
    )
    ties: str = key(
        "expected",
        "Scoring of gallery images with equal scores. expected: mean over all orders; order: the earlier image ranks "
        "first (torchreid).",
        choices=("expected", "order"),
    )
    evaluate_every: int = key(10, "Rounds between evaluations. The last round is always evaluated.", at_least=1)
    output_dir: str | None = key(None, "Folder of the run. null: runs/DATA/EXP/seedN.", path=True)
    resume: str = key(
        "auto",
        "auto: resume from the last checkpoint in the run folder; never: start again; a path: resume from this "
        "checkpoint.",
        path=True,
    )
    logger: str = key(
        "wandb",
        "Logger in addition to metrics.csv: wandb, tensorboard, csv (metrics.csv only) or none.",
        choices=("wandb", "tensorboard", "csv", "none"),
    )
    wandb: WandbConfig = key(WandbConfig, "Settings of the wandb logger.")
    model: ModelConfig = key(ModelConfig, "Network.")
    data: DataConfig = key(DataConfig, "Pictures.")
    optim: OptimConfig = key(OptimConfig, "Optimizer of the clients.")
    loss: LossConfig = key(LossConfig, "Training loss.")
    trainer: TrainerConfig = key(TrainerConfig, "Lightning Trainer.")
    engine: EngineConfig = key(EngineConfig, "Engine that runs the clients.")
    report: ReportConfig = key(ReportConfig, "Report.")
    callbacks: dict[str, Any] = key(
        dict, "Algorithms of the experiment, by file name, with their options. NAME=null removes one."
    )

    @property
    def epochs_per_round(self) -> int:
        """Returns the epochs per round that the learning rate schedule counts; with `local_steps`, one."""
        return 1 if self.local_steps is not None else self.local_epochs

    @property
    def role(self) -> str:
        """Returns `standalone` or `centralized` for a run without callbacks, else `federated`."""
        if self.callbacks:
            return "federated"
        return "centralized" if self.data.scenario == "merged" else "standalone"
