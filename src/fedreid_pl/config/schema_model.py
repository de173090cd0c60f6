"""The sections `model`, `optim` and `loss` of the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from fedreid_pl.config.keys import key


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
        at_most=16_384,
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
