"""Defines the typed configuration: every key of a YAML file or of the command line, with its unit and bounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

DEFAULTS = 2
"""Version of the default values. It increases whenever the default of a key or of a callback's option changes.

Runs with different versions cannot be confused. 1: the defaults before runs saved this number. 2: see
`lineage.FORMER` and docs/decisions.md.
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
    """Returns a dataclass field with a help text and bounds.

    Args:
        default: the default value. If it is a type, the field calls it to create the default.
        text: the help text of the key.
        choices: the allowed values; empty allows every value.
        at_least: the smallest allowed value.
        above: an exclusive lower bound.
        at_most: the largest allowed value.
        path: whether the value is a path, in which a leading `~` becomes the home folder.
    """
    limits = {"help": text, "choices": choices, "at_least": at_least, "above": above, "at_most": at_most, "path": path}
    if isinstance(default, type):  # a section, or an empty list or dict
        return field(default_factory=default, metadata=limits)
    return field(default=default, metadata=limits)


@dataclass
class ModelConfig:
    """Settings of the network of every client. docs/backbones.md lists the backbones and the weights file formats."""

    name: str = key(
        "resnet50",
        "Backbone: small; resnet18, 34, 50 or 101, with the suffix _ibn_a for ResNet-IBN-a; mobilenet_v2; "
        "convnext_tiny, small, base or large; osnet_x1_0, osnet_ain_x1_0 and their other widths; timm:NAME; or the "
        "import path package.module:callable of your own network.",
    )
    weights: str | None = key(
        "imagenet",
        "Initial weights. imagenet: pretrained on ImageNet; drawn: pretrained on synthetic pictures (small only); "
        "none or null: random; a path: a weights file; RUN, RUN@best or RUN@ROUND: the global model saved in the run "
        "folder RUN.",
        path=True,
    )
    feature_dim: int = key(
        512,
        "Size of the feature vector that is compared. With model.neck=bnneck the size is the backbone's own.",
        at_least=1,
    )
    dropout: float = key(
        0.5, "Dropout probability after the bottleneck. model.neck=bnneck uses no dropout.", at_least=0.0, at_most=0.99
    )
    last_stride: int = key(
        2, "Stride of the last stage of a ResNet, of small and of mobilenet_v2: 1 or 2.", at_least=1, at_most=2
    )
    patch_stride: int | None = key(
        None,
        "Distance in pixels between the centres of neighbouring patches of a ViT (timm:vit_...). null: the patch size.",
        at_least=1,
    )
    pooling: str = key(
        "auto",
        "Pooling over positions. avg: mean; gem: generalised mean with a trained power; auto: the pooling of the timm"
        " model, else avg.",
        choices=("auto", "avg", "gem"),
    )
    neck: str = key(
        "bottleneck",
        "Layer after pooling. bottleneck: linear layer and BatchNorm (the paper); bnneck: BatchNorm without bias, at "
        "the size of the backbone's output.",
        choices=("bottleneck", "bnneck"),
    )
    snr_stages: int = key(
        0,
        "Number of first residual stages that are followed by style normalisation and restitution (SNR). For small, "
        "ResNets and OSNets.",
        at_least=0,
        at_most=4,
    )
    channels_last: bool = key(
        True, "Stores images and weights in channels-last memory order. The results are the same, training is faster."
    )


@dataclass
class DataConfig:
    """Settings of the datasets: where the pictures are, how they are read, and how they are divided into clients."""

    name: str = key("minireid", "Name of the data configuration. Set by data=NAME.")
    synthetic: bool = key(
        False,
        "Whether this program generated the pictures. The program sets this key from the files and their manifest. "
        'Every table then says "synthetic".',
    )
    source: str = key(
        "folder",
        "Source of the pictures. folder: read data.root; minireid: generate the MiniReID benchmark first.",
        choices=("folder", "minireid"),
    )
    version: int = key(
        1, "Version of the MiniReID benchmark: 1 or 2 (the newest). Used with data.source=minireid.", at_least=1
    )
    root: str | None = key(None, "Folder that contains one folder per dataset.", path=True)
    minireid_dir: str | None = key(
        None,
        "Folder in which the MiniReID benchmark is generated. null: a folder in ~/.cache/fedreid_pl "
        "($FEDREID_PL_CACHE).",
        path=True,
    )
    layout: str = key("market1501", "Layout of the dataset folders. auto: recognise the layout of each folder.")
    name_pattern: str | None = key(
        None,
        "Regular expression with the groups person, camera and frame, searched in file names. null: the naming "
        "schemes that the program knows.",
    )
    split: int = key(0, "Number of the split, for a dataset with several official or random splits.", at_least=0)
    split_seed: int = key(0, "Seed of random splits and of random groups of identities.", at_least=0)
    test_ids: float = key(
        0.5,
        "Share of the persons seen by several cameras that is used for testing (data=crops).",
        above=0.0,
        at_most=0.95,
    )
    datasets: list[str] = key(
        list, "Dataset folders in data.root, or NAME=FOLDER, in order. Empty: every folder with the layout data.layout."
    )
    leave_out: str | None = key(
        None,
        "Datasets that no client trains on: NAME or NAME,NAME. The global model is tested on their query and gallery "
        "sets as on an unseen domain. Training, validation, BatchNorm statistics and the public set use none of their"
        " pictures.",
    )
    public: str | None = key(None, "Folder of the unlabelled public set for distillation. It is never a client.")
    public_overlap: str = key(
        "refuse",
        "Action for public images that show test persons of a client (CUHK02's P1 and CUHK01). refuse: stop with an "
        "error; drop: remove the images; keep: use them.",
        choices=("refuse", "drop", "keep"),
    )
    overlap: str = key(
        "auto",
        "Action when a picture or a person occurs in two places. refuse: stop with an error; warn: print a warning; "
        "auto: refuse a picture that is in the training set and in the test set of one dataset, or in the test set of"
        " data.leave_out and anywhere else, and warn about other cases.",
        choices=("auto", "refuse", "warn"),
    )
    scenario: str = key(
        "by_dataset",
        "Division of the datasets into clients: one client per dataset, per camera or per group of identities, or one"
        " client with all data (merged).",
        choices=("by_dataset", "by_camera", "by_identity", "merged"),
    )
    clients: str = key(
        "all",
        "Clients that take part. all: every client; large: clients with at least the median number of training "
        "images; small: clients with fewer.",
        choices=("all", "large", "small"),
    )
    parts: int | None = key(
        None,
        "Number of identity groups per dataset with data.scenario=by_identity. null: the number of cameras of the "
        "dataset.",
        at_least=1,
    )
    height: int = key(256, "Image height in pixels.", at_least=8)
    width: int = key(128, "Image width in pixels.", at_least=8)
    pad: int = key(10, "Width in pixels of the black border that is added before the random crop.", at_least=0)
    flip: float = key(0.5, "Probability that a training image is mirrored.", at_least=0.0, at_most=1.0)
    erasing: float = key(
        0.0,
        "Probability that a random rectangle of a training image is erased (random erasing).",
        at_least=0.0,
        at_most=1.0,
    )
    jitter: float = key(
        0.0, "Strength of the random changes of brightness, contrast and saturation.", at_least=0.0, at_most=1.0
    )
    cache: str = key(
        "auto",
        "Cache of decoded images. memory; disk: in data.cache_dir, shared with later runs; none; auto: memory if the "
        "images fit.",
        choices=("auto", "memory", "disk", "none"),
    )
    cache_dir: str | None = key(
        None,
        "Folder of decoded images and of the indexes of large datasets. null: ~/.cache/fedreid_pl ($FEDREID_PL_CACHE).",
        path=True,
    )
    workers: int | None = key(
        None,
        "Number of threads that load images ahead when the images are not cached in memory. All clients share the "
        "threads. null: one per processor.",
        at_least=0,
    )
    on_bad_image: str = key(
        "error",
        "Action for an image that cannot be read. error: stop the run and name the image; skip: leave the image out "
        "of the dataset before training.",
        choices=("error", "skip"),
    )
    instances: int | None = key(
        None, "Images per identity in a batch (K in P x K sampling). null: batches of shuffled images.", at_least=2
    )
    hold_out: str = key(
        "none",
        "Training images that are left out. none: use all; first: leave out the first image of every identity (the "
        "published code without --train_all).",
        choices=("none", "first"),
    )
    incomplete_batches: str = key(
        "train",
        "Last batch of an epoch when it has fewer than batch_size images. train: train on it; skip: skip it (the "
        "published code). With skip, a client with fewer than batch_size images never trains.",
        choices=("train", "skip"),
    )
    val_ids: float = key(
        0.0,
        "Share of each client's training identities that is held out for validation. Above 0, the validation score "
        "selects the best round.",
        at_least=0.0,
        at_most=0.5,
    )
    single_shot: int = key(
        0,
        "Number of random single-shot galleries (one image per person) over which the CMC is averaged; 10 is usual. "
        "0: no single-shot CMC.",
        at_least=0,
    )
    keep_unmatched: bool = key(
        False,
        "Counts a query without a match in another camera as a failure (the published code). false: leave such "
        "queries out.",
    )
    test_batch_size: int = key(128, "Images per batch in evaluation.", at_least=1)
    probe_size: int = key(
        32, "Number of training images in the probe batch that measures the cosine distance weight.", at_least=1
    )


@dataclass
class OptimConfig:
    """Settings of a client's SGD. The key `optimizer_state` selects whether the momentum lasts across rounds."""

    lr_backbone: float = key(0.005, "Learning rate of the backbone, the part that clients exchange.", above=0.0)
    lr_head: float = key(0.05, "Learning rate of the head, the client's own classifier.", above=0.0)
    momentum: float = key(0.9, "Momentum of SGD.", at_least=0.0, at_most=0.999)
    nesterov: bool = key(False, "Uses Nesterov momentum (the published code).")
    weight_decay: float = key(5e-4, "Weight decay (L2 penalty) of SGD.", at_least=0.0)
    schedule: str = key(
        "constant",
        "Learning rate schedule. constant; step: multiply by optim.gamma every optim.step epochs; cosine: decay to "
        "zero at the last round.",
        choices=("constant", "step", "cosine"),
    )
    warmup: int = key(0, "Number of epochs in which the learning rates rise linearly to their full value.", at_least=0)
    step: int = key(40, "Step schedule: epochs between two decays of the learning rates. 0: no decay.", at_least=0)
    milestones: list[int] = key(
        list, "Step schedule: epochs after which the learning rates decay, such as [20,30]. Replaces optim.step."
    )
    gamma: float = key(
        0.1, "Step schedule: factor by which each decay multiplies the learning rates.", above=0.0, at_most=1.0
    )
    scope: str = key(
        "run",
        "Where the schedule starts to count epochs. run: once, at the start of the run; round: again at the start of "
        "every round.",
        choices=("run", "round"),
    )
    bottleneck: str = key(
        "backbone",
        "Learning rate of the bottleneck. backbone: optim.lr_backbone; head: optim.lr_head (the published code).",
        choices=("backbone", "head"),
    )


@dataclass
class LossConfig:
    """Settings of the training loss: cross-entropy over a client's identities, plus optional terms."""

    label_smoothing: float = key(
        0.0, "Label smoothing: share of the target that is spread over all identities.", at_least=0.0, at_most=0.99
    )
    triplet: float = key(
        0.0, "Weight of the batch-hard triplet loss. 0: no triplet loss. Requires data.instances.", at_least=0.0
    )
    margin: float | None = key(0.3, "Margin of the triplet loss. null: soft margin.", at_least=0.0)


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
    rounds: int = key(300, "Number of federated rounds.", at_least=1)
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
