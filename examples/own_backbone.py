"""Trains with a network of your own as the backbone.

    python examples/own_backbone.py [KEY=VALUE ...]

The backbone is any `torch.nn.Module` that maps images `[B, 3, H, W]` to feature maps `[B, C, h, w]` or features
`[B, C]`. `model.name=MODULE:CALLABLE` names a function that returns it. The command line takes the same key:
`fedreid-pl train exp=fedpav model.name=own_backbone:narrow` in the folder of this file.
"""

from __future__ import annotations

import sys

from torch import nn

import fedreid_pl


def narrow() -> nn.Module:
    """Returns a small convolutional network with 64 channels."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


if __name__ == "__main__":
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    run = fedreid_pl.train("fedpav", **{"model.name": "own_backbone:narrow", "model.weights": "none", **given})
    print(run)
    for row in run.scores():
        print(f"{row['section']:<7} {row['test']:<18} Rank-1 {100 * row['rank1']:5.1f}  mAP {100 * row['mAP']:5.1f}")
