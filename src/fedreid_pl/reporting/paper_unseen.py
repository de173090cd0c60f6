"""Published figures of federated domain generalisation and of clients by camera, printed next to the figures of a run.

Leave one domain out over MSMT17, CUHK02, CUHK03 (old protocol) and Market-1501: Yang et al. (DACS), AAAI 2024, Table 1,
ResNet-50. The authors chose the checkpoints by the target's own test set. Rows marked `second hand` come from a
summary of the paper, not from the paper itself.
"""

from __future__ import annotations

from typing import NamedTuple

from fedreid_pl.config import Config
from fedreid_pl.data.catalogue import plain


class Published(NamedTuple):
    """A row of a published table: mAP and Rank-1 of each unseen target, in percent."""

    label: str
    targets: dict[str, tuple[float, float]]


def _row(label: str, *pairs: float) -> Published:
    names = ("Market-1501", "MSMT17", "CUHK03")
    return Published(label, {name: (pairs[2 * at], pairs[2 * at + 1]) for at, name in enumerate(names)})


LEFT_OUT = (
    _row("best single source", 23.3, 47.5, 3.3, 10.0, 21.6, 22.5),
    _row("SCAFFOLD", 26.0, 50.5, 5.3, 15.8, 22.9, 26.0),
    _row("MOON", 26.8, 51.1, 4.8, 14.5, 20.9, 22.5),
    _row("FedPav", 25.4, 49.4, 5.2, 15.5, 22.5, 24.3),
    _row("Decentralised FedReID", 30.1, 53.7, 4.5, 13.7, 26.4, 26.5),
    _row("MixStyle", 31.2, 53.5, 5.5, 16.0, 28.6, 31.5),
    _row("CrossStyle", 32.5, 59.6, 4.6, 14.0, 27.8, 28.0),
    _row("SNR", 32.7, 59.4, 5.1, 15.3, 28.5, 30.0),
    _row("centralized", 32.2, 58.6, 5.6, 16.3, 29.5, 29.0),
    _row("DACS", 36.3, 61.2, 10.4, 27.5, 30.7, 34.1),
    _row("DACS + SNR", 37.7, 65.9, 11.6, 29.4, 33.6, 37.5),
    _row("SSCU (second hand)", 39.5, 66.4, 11.9, 32.3, 32.8, 34.1),
)
"""mAP and Rank-1 of Market-1501, MSMT17 and CUHK03, one row per method."""

BY_CAMERA: dict[str, dict[str, tuple[float, float]]] = {
    "Market-1501": {
        "centralized": (77.3, 90.0),
        "baseline": (36.6, 59.4),
        "MOON": (33.2, 55.7),
        "DACS": (40.0, 63.1),
        "PEFL": (45.9, 66.4),
    },
    "MSMT17": {
        "centralized": (42.3, 69.5),
        "baseline": (11.3, 25.5),
        "MOON": (13.2, 31.2),
        "DACS": (11.4, 29.3),
        "PEFL": (14.5, 32.7),
    },
}
"""mAP and Rank-1 by dataset and method, with one client per camera (Oh et al., PEFL, CVPR 2026), second hand."""

WANTED = {"rounds": 40, "local_steps": 200, "batch_size": 64, "data.instances": 4, "model.name": "resnet50"}
SETS = ("MSMT17", "CUHK02", "CUHK03", "Market-1501")


def left_out_name(test: str) -> str | None:
    """Returns the published name of an unseen test set, `None` if there are no published figures.

    >>> left_out_name("Market-1501-v15.09.15"), left_out_name("CUHK03"), left_out_name("CUHK03-NP")
    ('Market-1501', 'CUHK03', None)
    """
    names = {"market1501": "Market-1501", "market1501v150915": "Market-1501", "cuhk03": "CUHK03", "msmt17": "MSMT17"}
    names |= {"msmt17v1": "MSMT17", "msmt17v2": "MSMT17", "market": "Market-1501"}
    return names.get(plain(test))


def departures_from_paper(config: Config, clients: dict[str, int], target: str) -> list[str]:
    """Returns the differences between a run and the published setting, one short text each.

    Args:
        config: configuration of the run.
        clients: number of training images by client.
        target: the unseen test set.

    >>> departures_from_paper(Config(), {"mine": 10}, "Market-1501")[0]
    'rounds=300'
    """
    found = []
    for key, wanted in WANTED.items():
        value: object = config
        for part in key.split("."):
            value = getattr(value, part)
        if value != wanted:
            found.append(f"{key}={value}")
    expected = {name for name in SETS if name != left_out_name(target)}
    names = {"CUHK02" if plain(name) == "cuhk02" else left_out_name(name) for name in clients}
    if names != expected:
        found.append(f"clients {', '.join(clients)}")
    if left_out_name(target) == "CUHK03":
        found.append("query and gallery of CUHK03 (in the papers only the last image of each camera is a query)")
    return found
