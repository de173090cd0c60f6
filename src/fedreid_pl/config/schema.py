"""The typed configuration: every key that a YAML file or the command line may set, with its unit and bounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

DEFAULTS = 2
"""Rises whenever a default changes, of a key or of a callback's option, so that old runs and new are not mixed up.

1: the defaults before this number was saved. 2: see `lineage.FORMER` and docs/decisions.md.
"""


def key(
    default: Any,
    text: str,
    *,
    choices: tuple[str, ...] = (),
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    path: bool = False,
) -> Any:
    """Returns a documented field of the schema with its bounds; a type stands for what it makes.

    `path`: the text is a path, and `~` at its beginning becomes the home folder.
    """
    limits = {"help": text, "choices": choices, "at_least": at_least, "above": above, "at_most": at_most, "path": path}
    if isinstance(default, type):  # a section, or an empty list or dict
        return field(default_factory=default, metadata=limits)
    return field(default=default, metadata=limits)


@dataclass
class ModelConfig:
    """The network of every client; docs/backbones.md lists the backbones and the forms of weights files."""

    name: str = key(
        "resnet50",
        "backbone: small; resnet18, 34, 50 or 101, with _ibn_a behind it for ResNet-IBN-a; mobilenet_v2; "
        "convnext_tiny, small, base or large; osnet_x1_0, osnet_ain_x1_0 and their other widths; timm:NAME; or the "
        "import path package.module:callable of an own network",
    )
    weights: str | None = key(
        "imagenet",
        "initial weights: imagenet; drawn (this program pretrains the small backbone on drawn pictures); none or null; "
        "the path of a weights file; or RUN, the folder of a run, whose global model is taken (RUN@best, RUN@ROUND)",
        path=True,
    )
    feature_dim: int = key(512, "size of the feature that is compared (bnneck has the trunk's)", at_least=1)
    dropout: float = key(0.5, "dropout probability after the bottleneck (bnneck has none)", at_least=0.0, at_most=0.99)
    last_stride: int = key(
        2, "stride of the last stage, 2 or 1 (ResNets, small and mobilenet_v2)", at_least=1, at_most=2
    )
    patch_stride: int | None = key(
        None, "pixels between the centres of a ViT's patches (timm:vit_...); null: the size of a patch", at_least=1
    )
    pooling: str = key(
        "auto",
        "pooling over positions: avg: mean; gem: generalised mean with a trained power; auto: avg, or what timm does",
        choices=("auto", "avg", "gem"),
    )
    neck: str = key(
        "bottleneck",
        "bottleneck: linear layer and BatchNorm (the paper); bnneck: BatchNorm without bias, the trunk's own size",
        choices=("bottleneck", "bnneck"),
    )
    snr_stages: int = key(
        0,
        "style normalisation and restitution (SNR) behind this many first residual stages (small, ResNets, OSNets)",
        at_least=0,
        at_most=4,
    )
    channels_last: bool = key(True, "keep images and weights in channels-last memory order (same results, faster)")


@dataclass
class DataConfig:
    """Where the pictures are and how they are read."""

    name: str = key("minireid", "name of the data configuration (set by data=NAME)")
    synthetic: bool = key(
        False, "this program drew the pictures (found out from the files and its manifest); every table says so"
    )
    source: str = key(
        "folder", "folder: read data.root; minireid: draw the benchmark first", choices=("folder", "minireid")
    )
    version: int = key(1, "version of the benchmark under data.source=minireid, 1 or 2 (the newest)", at_least=1)
    root: str | None = key(None, "folder that holds one folder per dataset", path=True)
    minireid_dir: str | None = key(
        None,
        "folder of the embedded benchmark, which is drawn there; null: in ~/.cache/fedreid_pl ($FEDREID_PL_CACHE)",
        path=True,
    )
    layout: str = key("market1501", "how a dataset folder is laid out; auto: every folder is recognised by itself")
    name_pattern: str | None = key(
        None,
        "regular expression with groups person, camera, frame, searched in file names; null: known spellings",
    )
    split: int = key(0, "which split of a dataset that has several, official or drawn", at_least=0)
    split_seed: int = key(0, "seed of drawn splits and of groups of identities", at_least=0)
    test_ids: float = key(
        0.5, "share of the persons seen by several cameras that is tested (data=crops)", above=0.0, at_most=0.95
    )
    datasets: list[str] = key(
        list, "dataset folders under data.root, or NAME=FOLDER, in order; empty: every folder of that layout"
    )
    leave_out: str | None = key(
        None,
        "dataset that no client trains on, NAME or NAME,NAME: the global model is tested on its query and gallery, as "
        "on an unseen place; nothing of it reaches training, validation, BatchNorm or the public set",
    )
    public: str | None = key(None, "folder of the unlabelled public set; never a client")
    public_overlap: str = key(
        "refuse",
        "public images of persons whom a client is tested on (CUHK02's P1 and CUHK01): refuse, drop or keep them",
        choices=("refuse", "drop", "keep"),
    )
    overlap: str = key(
        "auto",
        "pictures or persons in two places: refuse, warn, or auto: refuse a picture that is in the training and in the "
        "test set of one dataset, or in the test set of data.leave_out and anywhere else; warn otherwise",
        choices=("auto", "refuse", "warn"),
    )
    scenario: str = key(
        "by_dataset",
        "clients: one per dataset, per camera, per group of identities, or one with everything",
        choices=("by_dataset", "by_camera", "by_identity", "merged"),
    )
    clients: str = key(
        "all",
        "clients that take part: all; large: those with at least the median number of training images; small: those "
        "with fewer",
        choices=("all", "large", "small"),
    )
    parts: int | None = key(
        None, "groups of identities per dataset under by_identity; null: as many as it has cameras", at_least=1
    )
    height: int = key(256, "image height in pixels", at_least=8)
    width: int = key(128, "image width in pixels", at_least=8)
    pad: int = key(10, "black border in pixels before the random crop", at_least=0)
    flip: float = key(0.5, "probability of a mirrored training image", at_least=0.0, at_most=1.0)
    erasing: float = key(0.0, "probability that a rectangle of a training image is erased", at_least=0.0, at_most=1.0)
    jitter: float = key(0.0, "strength of random brightness, contrast and saturation", at_least=0.0, at_most=1.0)
    cache: str = key(
        "auto",
        "keep decoded images: memory, disk (in data.cache_dir, for later runs too), none, or auto: memory if they fit",
        choices=("auto", "memory", "disk", "none"),
    )
    cache_dir: str | None = key(
        None,
        "folder of decoded images and of indexes of large datasets; null: ~/.cache/fedreid_pl ($FEDREID_PL_CACHE)",
        path=True,
    )
    workers: int | None = key(
        None,
        "threads that read images ahead where they are not in memory, shared by all clients; null: one per processor",
        at_least=0,
    )
    on_bad_image: str = key(
        "error",
        "an image that cannot be read: error ends the run and names it, skip leaves such images out from the start",
        choices=("error", "skip"),
    )
    instances: int | None = key(
        None, "images per identity in a batch (P x K sampling); null: batches of shuffled images", at_least=2
    )
    hold_out: str = key(
        "none",
        "first: the first image of every identity is not trained on (the published code without --train_all)",
        choices=("none", "first"),
    )
    incomplete_batches: str = key(
        "train",
        "an epoch's last batch where it has fewer than batch_size images: train on it, or skip it (the published code; "
        "a client with fewer images in all then never trains)",
        choices=("train", "skip"),
    )
    val_ids: float = key(
        0.0,
        "share of a client's training identities that is held out for validation, which then chooses the best round",
        at_least=0.0,
        at_most=0.5,
    )
    single_shot: int = key(
        0,
        "random galleries of one image per person to average the single-shot CMC over (usual: 10); 0: none",
        at_least=0,
    )
    keep_unmatched: bool = key(
        False, "count queries without a match in another camera as failures (the published code); false: leave them out"
    )
    test_batch_size: int = key(128, "images per batch at evaluation", at_least=1)
    probe_size: int = key(32, "training images in the probe batch of the cosine distance weight", at_least=1)


@dataclass
class OptimConfig:
    """Local SGD; `optimizer_state` says whether its momentum lasts from one round to the next."""

    lr_backbone: float = key(0.005, "learning rate of the exchanged part", above=0.0)
    lr_head: float = key(0.05, "learning rate of the local classifier", above=0.0)
    momentum: float = key(0.9, "SGD momentum", at_least=0.0, at_most=0.999)
    nesterov: bool = key(False, "Nesterov's momentum (the published code)")
    weight_decay: float = key(5e-4, "L2 penalty", at_least=0.0)
    schedule: str = key(
        "constant",
        "learning rates over the run: constant; step: times optim.gamma every optim.step epochs; "
        "cosine: down to zero at the last round",
        choices=("constant", "step", "cosine"),
    )
    warmup: int = key(0, "epochs in which the rates rise to their value", at_least=0)
    step: int = key(40, "step schedule: epochs between two reductions of the rates; 0: never", at_least=0)
    milestones: list[int] = key(
        list, "step schedule: epochs after which the rates are reduced, [20,30], in place of every optim.step epochs"
    )
    gamma: float = key(0.1, "factor of the step schedule", above=0.0, at_most=1.0)
    scope: str = key(
        "run", "epochs of the schedule are counted over the run or anew in every round", choices=("run", "round")
    )
    bottleneck: str = key(
        "backbone", "whose rate the bottleneck has (the published code: the head's)", choices=("backbone", "head")
    )


@dataclass
class LossConfig:
    """What a client minimises: cross-entropy over its identities, and options that practitioners expect."""

    label_smoothing: float = key(0.0, "share of the target spread over all identities", at_least=0.0, at_most=0.99)
    triplet: float = key(0.0, "weight of the batch-hard triplet loss; wants data.instances", at_least=0.0)
    margin: float | None = key(0.3, "triplet margin; null: soft margin", at_least=0.0)


@dataclass
class TrainerConfig:
    """What is handed to each client's Lightning Trainer."""

    accelerator: str = key("auto", "auto, cpu, gpu, mps, tpu")
    devices: int = key(1, "processes (CPU) or devices per node", at_least=1)
    num_nodes: int = key(1, "machines", at_least=1)
    strategy: str = key("auto", "auto (ddp for several devices), ddp, or another Lightning strategy by name")
    precision: str = key(
        "32-true",
        "32-true, bf16-mixed, 16-mixed, or auto: bf16-mixed where the device computes it in hardware, else 32-true",
        choices=("auto", "32-true", "bf16-mixed", "16-mixed"),
    )
    compile: str = key(
        "none",
        "torch.compile the trunk: default, reduce-overhead (CUDA graphs) or max-autotune; none: do not",
        choices=("none", "default", "reduce-overhead", "max-autotune"),
    )
    sync_batchnorm: bool = key(
        True, "BatchNorm's statistics are over the images of all devices; false: each device's own part (ghost batches)"
    )
    deterministic: bool = key(False, "ask torch for deterministic algorithms only")
    benchmark: bool = key(True, "let cuDNN choose the fastest convolution for the image size")


@dataclass
class EngineConfig:
    """Where the clients' jobs run; changes no number of the run. `engine=NAME` is short for `engine.name=NAME`."""

    name: str = key(
        "sequential",
        "sequential: one client after the other in this process; ray: clients in parallel on this machine or a Ray "
        "cluster (docs/parallel.md); silos: each client at a party of its own, with its pictures, over the network "
        "(engine.federation)",
        choices=("sequential", "ray", "silos"),
    )
    address: str | None = key(
        None, "ray: the cluster to join, auto or HOST:PORT; null: start Ray on this machine for the run"
    )
    slots: int | None = key(
        None, "ray: clients that train at once; null: as many as the processors and GPUs allow", at_least=1
    )
    cpus_per_client: int = key(1, "ray: processors of a slot, and threads that a client computes with", at_least=1)
    gpus_per_client: float | None = key(
        None, "ray: GPUs of a slot, fractions allowed; null: one where there are GPUs", at_least=0.0, at_most=1.0
    )
    client_state: str = key(
        "auto",
        "ray: how a slot gets what a client kept: folder: from the run's folder, on a disk that all machines share; "
        "driver: with every job; auto: folder on the driver's own machine, else driver",
        choices=("auto", "folder", "driver"),
    )
    federation: str | None = key(
        None, "folder of a federation, made by fedreid-pl federation init; federation=FOLDER is short for it", path=True
    )
    deadline: float | None = key(
        None, "seconds that a silo may take for a job before the round goes on without it; null: any", above=0.0
    )


@dataclass
class ReportConfig:
    """What report.html and inspection.json show; changes no number of the run."""

    images: bool | None = key(
        None, "write ranked lists, identities and the view of features; null: for synthetic data only"
    )
    queries: int = key(6, "queries per test set with a ranked list, half of them the hardest", at_least=2, at_most=50)
    rerank: bool = key(
        False, "measure the test sets after k-reciprocal re-ranking as well, apart from the other scores (slower)"
    )
    embedding: str = key(
        "pca", "view of query features in two dimensions: pca, tsne (wants scikit-learn)", choices=("pca", "tsne")
    )


@dataclass
class WandbConfig:
    """What logger=wandb sends beside the numbers, and where to."""

    project: str | None = key(None, "project of the run; null: WANDB_PROJECT, else fedreid_pl-DATA")
    entity: str | None = key(None, "user or team that owns the project; null: the account's default")
    images: bool | None = key(
        None,
        "send pictures of ranked lists (of what report.images wrote); null: of synthetic data only, never of people",
    )
    artifact: bool = key(False, "send the best checkpoint (the server's models, no head) as an artifact")


@dataclass
class Config:
    """One experiment."""

    name: str = key("", "name of the experiment (set by exp=NAME)")
    defaults: int = key(
        DEFAULTS, "number of the defaults that the configuration was composed with (set by the program)", at_least=1
    )
    fidelity: str = key(
        "paper", "paper, or code: all in which the published code departs from it", choices=("paper", "code")
    )
    rounds: int = key(300, "rounds of the federation", at_least=1)
    seed: int = key(0, "all randomness is derived from it", at_least=0)
    batch_size: int = key(32, "training images per step, over all devices together", at_least=2)
    local_epochs: int = key(1, "epochs that a client trains per round", at_least=1)
    local_steps: int | None = key(
        None,
        "optimizer steps that a client trains per round, in place of local_epochs: passes over its images follow each "
        "other until the steps are done; null: local_epochs",
        at_least=1,
    )
    optimizer_state: str = key(
        "reset",
        "a client's SGD momentum at the start of a round: reset to zero (the paper), or keep that of the client's "
        "last round (one continuous run)",
        choices=("reset", "keep"),
    )
    clients_per_round: int | None = key(None, "clients drawn per round; null: all", at_least=1)
    min_clients: int = key(1, "a round with fewer good updates stops the run", at_least=1)
    client_timeout: float | None = key(
        None, "seconds that a client's turn may take before it is left out of the round; null: any", above=0.0
    )
    client_retries: int = key(
        1, "how often a client that failed, or sent what was refused, is asked again in a round", at_least=0
    )
    ties: str = key(
        "expected",
        "gallery images with equal scores: expected: mean over all orders; order: the earlier image first (torchreid)",
        choices=("expected", "order"),
    )
    evaluate_every: int = key(10, "rounds between evaluations; the last round is always evaluated", at_least=1)
    output_dir: str | None = key(None, "the run's own folder; null: runs/DATA/EXP/seedN", path=True)
    resume: str = key(
        "auto", "auto: go on where the run's folder ends; never: start anew; or a checkpoint's path", path=True
    )
    logger: str = key(
        "wandb",
        "beside metrics.csv: wandb, tensorboard, csv (nothing more) or none",
        choices=("wandb", "tensorboard", "csv", "none"),
    )
    wandb: WandbConfig = key(WandbConfig, "wandb")
    model: ModelConfig = key(ModelConfig, "network")
    data: DataConfig = key(DataConfig, "pictures")
    optim: OptimConfig = key(OptimConfig, "local optimisation")
    loss: LossConfig = key(LossConfig, "what is minimised")
    trainer: TrainerConfig = key(TrainerConfig, "devices")
    engine: EngineConfig = key(EngineConfig, "where jobs run")
    report: ReportConfig = key(ReportConfig, "what is shown")
    callbacks: dict[str, Any] = key(dict, "algorithms by file name with their options; null takes one out")

    @property
    def epochs_per_round(self) -> int:
        """Epochs that the learning rates' schedule counts for a round; a round of `local_steps` is one."""
        return 1 if self.local_steps is not None else self.local_epochs

    @property
    def role(self) -> str:
        """`standalone` or `centralized` for a run without callbacks, else `federated`."""
        if self.callbacks:
            return "federated"
        return "centralized" if self.data.scenario == "merged" else "standalone"
