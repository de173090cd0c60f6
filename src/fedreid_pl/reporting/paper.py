"""Published figures of the paper, printed next to the figures of a run on the same datasets.

Zhuang et al., "Optimizing Performance of Federated Person Re-identification: Benchmarking and Analysis", ACM TOMM
19(1s), 2023 (arXiv 2205.12144), Tables 2 to 5. Rank-1 and mAP in percent, the mean of the three best evaluations.
"""

from __future__ import annotations

import re

PATTERNS = {
    "MSMT17": r"msmt17(v[12])?",
    "Duke": r"duke(mtmc)?(reid)?",
    "Market": r"market(1501)?(v\d{6})?",
    "CUHK03": r"cuhk03(np)?(detected)?",
    "PRID": r"prid(2011)?",
    "CUHK01": r"cuhk01",
    "VIPeR": r"viper(v10)?",
    "3DPeS": r"3dpes",
    "iLIDS": r"(qmul)?ilids",
}
"""The nine datasets of Table 1 by short name, with patterns of their folder names.

A pattern must match the whole name in lower case without punctuation: DukeMTMC-VideoReID, PRID 450S and iLIDS-VID are
other datasets.
"""

NINE = tuple(PATTERNS)

# dataset, clients, setting: Rank-1, Rank-5, Rank-10, mAP of the global model
TABLE2: dict[tuple[str, str, str], tuple[float, float, float, float]] = {
    ("CUHK03", "2", "federated-by-camera"): (11.21, 19.14, 25.71, 11.11),
    ("CUHK03", "2", "federated-by-identity"): (51.71, 69.50, 76.79, 47.39),
    ("CUHK03", "-", "centralized"): (49.29, 68.86, 76.57, 44.52),
    ("Market", "6", "federated-by-camera"): (61.13, 74.88, 80.55, 36.57),
    ("Market", "6", "federated-by-identity"): (85.69, 93.44, 95.81, 66.36),
    ("Market", "-", "centralized"): (88.93, 95.34, 96.88, 72.62),
}

# Rank-1 of the nine datasets, in their order above
TABLE3: dict[str, tuple[float, ...]] = {
    "centralized": (54.6, 84.2, 91.7, 64.0, 80.0, 89.7, 65.5, 82.1, 80.6),
    "standalone": (49.6, 80.1, 88.9, 49.3, 55.0, 69.0, 27.5, 65.4, 52.0),
    "FedPav, global model": (41.0, 74.3, 83.4, 31.7, 37.7, 73.4, 48.1, 69.2, 79.9),
    "FedPav, local models": (48.3, 78.1, 83.6, 39.5, 50.7, 80.7, 52.0, 80.6, 84.7),
}

# Rank-1 of the local models, difference to standalone training in points
TABLE4: dict[str, tuple[float, ...]] = {
    "FedPav": (-1.3, -2.0, -5.4, -9.8, -4.3, 11.6, 24.5, 15.2, 32.7),
    "FedNova": (-2.1, -2.8, -4.4, -14.6, 0.0, 9.9, 24.4, 12.6, 35.8),
    "FedProx": (-0.1, -1.6, 1.0, -6.4, -1.0, 12.5, 24.1, 7.7, 34.7),
    "CC": (2.4, -1.3, 0.1, 3.9, 6.0, 9.3, 4.1, -1.2, 16.3),
    "CDW": (4.0, 1.3, 1.4, 1.2, 7.3, 13.8, 26.0, 16.3, 30.3),
    "CC & CDW": (4.1, 3.8, 2.0, 2.2, 13.0, 6.1, 28.2, 6.5, 28.6),
}

# Rank-1 on sets that no client trains on
TABLE5: dict[str, dict[str, float]] = {
    "CC & CDW": {"CAVIAR4REID": 46.8, "GRID": 30.0},
    "KD & CDW": {"CAVIAR4REID": 53.2, "GRID": 36.8},
}


def paper_name(test: str) -> str | None:
    """Returns the paper's short name of a test set, `None` if the test set is not among the paper's nine datasets.

    >>> paper_name("Market-1501-v15.09.15"), paper_name("i-LIDS"), paper_name("iLIDS-VID")
    ('Market', 'iLIDS', None)
    """
    plain = re.sub(r"[^a-z0-9]", "", test.lower())
    return next((name for name, pattern in PATTERNS.items() if re.fullmatch(pattern, plain)), None)


def paper_figure(row: tuple[float, ...], test: str) -> float | None:
    """Returns the figure of a test set in a row of Table 3 or 4, `None` for an unknown test set.

    >>> paper_figure(TABLE4["CC"], "VIPeR"), paper_figure(TABLE4["CC"], "mine")
    (4.1, None)
    """
    name = paper_name(test)
    return None if name is None else row[NINE.index(name)]
