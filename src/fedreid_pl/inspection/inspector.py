"""The inspector: it collects the inspection data of the clients for one round and writes inspection.json."""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from fedreid_pl.client import ReIDClient
from fedreid_pl.config import Config
from fedreid_pl.data.augmentation import normalize
from fedreid_pl.data.federated import VALIDATION, FederatedData
from fedreid_pl.data.images import ImagePool
from fedreid_pl.errors import FedReIDError
from fedreid_pl.federation.client.worker import Look
from fedreid_pl.functional.pca import principal_components
from fedreid_pl.inspection.choice import RankedList
from fedreid_pl.inspection.open_set import calibrated, open_set_entry
from fedreid_pl.reporting.inspection import IMAGES, VERSION, read_inspection, shows_images, write_inspection
from fedreid_pl.reporting.tables import TransferScores

THUMBNAIL = (64, 128)  # largest width and height in pixels

Key = tuple[str, str, int]
"""An image: test set, `query` or `gallery`, row."""


class _Seen(NamedTuple):
    """The inspection data of one test set, stored until the run ends."""

    model: str
    lists: list[RankedList]
    confusions: list[dict[str, int]]
    rows: list[int]  # queries in the feature plot
    features: Tensor  # features of these queries, float32 on the CPU


class Inspector:
    """Collects inspection data of one round: a limited number of queries per test set. It does not evaluate again.

    If several models are tested on one test set, the lists are those of the server's model (of several server models,
    the first one). All models have a CMC curve.

    Args:
        config: configuration of the run; `report` selects the data.
        data, pool: the images.
        backbone: a network with the architecture of the clients' backbones.
        initial: initial weights of the run, for the features before federation.
        round: the round to inspect.
        device: device on which these features are computed.

    Attributes:
        curves, persons, open_set, reranked: CMC curve, scores by person, open-set measures and scores after re-ranking,
            by test set and model.
        thresholds: thresholds by model, calibrated on validation persons.
        problem: the first error. It is stored instead of raised, because an inspection must not stop a run.
    """

    def __init__(
        self,
        config: Config,
        data: FederatedData,
        pool: ImagePool,
        backbone: nn.Module,
        initial: Mapping[str, Tensor],
        round: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config, self.data, self.pool = config, data, pool
        self.backbone, self.initial = backbone, initial
        self.round, self.device = round, torch.device(device)
        self.images = shows_images(config)
        self.curves: dict[str, dict[str, list[float]]] = {}
        self.persons: dict[str, dict[str, dict[str, list[float]]]] = {}
        self.thresholds: dict[str, dict[str, Any]] = {}
        self.open_set: dict[str, dict[str, dict[str, float | None]]] = {}
        self.reranked: dict[str, dict[str, dict[str, float]]] = {}
        self.problem: str | None = None
        self._validation: dict[tuple[str, str, str], Look] = {}
        self._looks: dict[tuple[str, str, str], Look] = {}
        self._seen: dict[str, _Seen] = {}

    def add(self, look: Look) -> None:
        """Adds inspection data that an engine received together with an update."""
        if look["round"] != self.round:
            return
        if "problem" in look:
            self.problem = self.problem or str(look["problem"])
            return
        looks = self._validation if look["test"].startswith(VALIDATION) else self._looks
        looks[look["test"], look["model"], look["client"]] = look

    def measured(self) -> list[TransferScores]:
        """Returns open-set measures and scores after re-ranking of every model and test set, for tables."""
        self.choose()
        found = []
        for test, models in self.open_set.items():
            for model, entry in models.items():
                again = self.reranked[test].get(model, {})
                numbers = {**entry, **{f"reranked_{name}": value for name, value in again.items()}}
                known = {name: [value] for name, value in numbers.items() if value is not None}
                found.append(TransferScores(model, test, known))
        return found

    def write(self, folder: Path) -> None:
        """Writes inspection.json and, if allowed, images; writes nothing without inspection data.

        Raises:
            FedReIDError: if the folder cannot be written or an image cannot be read.
        """
        self.choose()
        if self._seen:
            self._keep_numbers(folder)
            write_inspection(folder, self.content(), self._thumbnails())

    def content(self) -> dict[str, Any]:
        """Returns the content of inspection.json, see `reporting.inspection`."""
        tests = {}
        for test, seen in self._seen.items():  # test sets with a failed inspection are missing
            curves = self.curves[test]
            tests[test] = {
                "model": seen.model,
                "cmc": curves[seen.model],
                "cmcs": curves,
                "persons": self.persons[test],
                "open_set": self.open_set[test],
                "reranked": self.reranked[test],
                "ranked": [self._ranked(test, entry) for entry in seen.lists],
                "confusions": seen.confusions,
            }
        embedding = self._embedding() if self.images else None
        return {
            "version": VERSION,
            "round": self.round,
            "images": self.images,
            "tests": tests,
            "thresholds": self.thresholds,
            "embedding": embedding,
        }

    def choose(self) -> None:
        """Selects the model to show for every test set; the result does not depend on the order of arrival."""
        self._seen, self.curves, self.persons, self.open_set, self.reranked = {}, {}, {}, {}, {}
        tests, names = list(self.data.tests), [*self.data.clients, "global"]
        self.thresholds = calibrated(self._validation[key] for key in sorted(self._validation))
        for key in sorted(self._looks, key=lambda key: (tests.index(key[0]), *map(names.index, key[1:]))):
            (test, model, _), look = key, self._looks[key]
            self.curves.setdefault(test, {}).setdefault(model, look["curve"])
            self.persons.setdefault(test, {}).setdefault(model, look["persons"])
            self.open_set.setdefault(test, {}).setdefault(model, open_set_entry(look, self.thresholds))
            self.reranked.setdefault(test, {})
            if look["reranked"]:
                self.reranked[test].setdefault(model, look["reranked"])
            if test not in self._seen or (model == "global" and self._seen[test].model != "global"):
                lists = [RankedList(**entry) for entry in look["lists"]]
                self._seen[test] = _Seen(model, lists, look["confusions"], look["rows"], look["features"])

    def _ranked(self, test: str, entry: RankedList) -> dict[str, Any]:
        query, gallery = self.data.tests[test].query, self.data.tests[test].gallery
        identity = int(query.identities[entry.query])
        return {
            "query": {
                "identity": identity,
                "camera": int(query.cameras[entry.query]),
                "image": f"{IMAGES}/{self._file((test, 'query', entry.query))}",
            },
            "hardest": entry.hardest,
            "average_precision": entry.average_precision,
            "gallery": [
                {
                    "identity": int(gallery.identities[row]),
                    "camera": int(gallery.cameras[row]),
                    "score": score,
                    "correct": int(gallery.identities[row]) == identity,
                    "image": f"{IMAGES}/{self._file((test, 'gallery', row))}",
                }
                for row, score in zip(entry.gallery, entry.scores, strict=False)
            ],
        }

    def _thumbnails(self) -> dict[str, bytes]:
        keys: dict[Key, None] = {}
        for test, seen in self._seen.items():
            for entry in seen.lists:
                keys |= {(test, "query", entry.query): None}
                keys |= {(test, "gallery", row): None for row in entry.gallery}
        return {self._file(key): self._thumbnail(key) for key in keys}

    def _file(self, key: Key) -> str:
        test, side, row = key
        number = list(self.data.tests).index(test)  # two names may become equal by the substitution below
        return f"{number:02d}-{re.sub(r'[^A-Za-z0-9_-]', '_', test)}-{side}-{row}.jpg"

    def _thumbnail(self, key: Key) -> bytes:
        test, side, row = key
        pixels = self.pool.source(getattr(self.data.tests[test], side)).read([row])[0]
        image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
        image.thumbnail(THUMBNAIL)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=85)
        return buffer.getvalue()

    def _embedding(self) -> dict[str, Any] | None:
        points = [(test, row) for test, seen in self._seen.items() for row in seen.rows]
        if not points:
            return None
        after = torch.cat([seen.features for seen in self._seen.values()])
        places, explained = {}, {}
        for name, features in (("before", self._initial_features()), ("after", after)):
            places[name], explained[name] = _plane(features, self.config.report.embedding)
        tables = {test: self.data.tests[test].query for test in self._seen}
        models = {seen.model for seen in self._seen.values()}
        return {
            "method": {"pca": "PCA", "tsne": "t-SNE"}[self.config.report.embedding],
            "model": "global" if models == {"global"} else "own",
            "explained": explained,
            "points": [
                {
                    "test": test,
                    "identity": int(tables[test].identities[row]),
                    "camera": int(tables[test].cameras[row]),
                    "before": places["before"][index],
                    "after": places["after"][index],
                }
                for index, (test, row) in enumerate(points)
            ],
        }

    @torch.no_grad()
    def _initial_features(self) -> Tensor:
        """Returns features of the same queries by the initial network of the run, `[N, D]`."""
        backbone = copy.deepcopy(self.backbone)  # the weights of the given backbone must not change
        backbone.load_state_dict(self.initial)
        network = ReIDClient(backbone, nn.Identity(), self.config.optim).to(self.device).eval()
        found = []
        for test, seen in self._seen.items():
            source = self.pool.source(self.data.tests[test].query)
            for start in range(0, len(seen.rows), self.config.data.test_batch_size):
                rows = seen.rows[start : start + self.config.data.test_batch_size]
                found.append(network(normalize(source.read(rows).to(self.device))).cpu())
        return torch.cat(found)

    def _keep_numbers(self, folder: Path) -> None:
        """Keeps the scores of models that were not tested now, from an earlier inspection of the same round."""
        try:
            before = read_inspection(folder) or {}
        except FedReIDError:  # the unreadable file is replaced
            return
        if before.get("round") != self.round:
            return
        self.thresholds = {**before.get("thresholds", {}), **self.thresholds}
        numbers: dict[str, dict[str, dict[str, Any]]] = {
            "cmcs": self.curves,
            "persons": self.persons,
            "open_set": self.open_set,
            "reranked": self.reranked,
        }
        for test, entry in before["tests"].items():
            if test in self.curves:
                for name, by_test in numbers.items():
                    by_test[test] = {**entry.get(name, {}), **by_test[test]}


def _plane(features: Tensor, method: str) -> tuple[list[list[float]], float | None]:
    """Returns two coordinates per feature, and their share of the variance (`None` for t-SNE)."""
    if method == "tsne" and len(features) > 3:
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (len(features) - 1) / 3)
        found = TSNE(2, init="pca", perplexity=perplexity, random_state=0).fit_transform(features.numpy())
        return [[round(float(x), 5), round(float(y), 5)] for x, y in found], None
    coordinates, share = principal_components(features)
    return [[round(x, 5), round(y, 5)] for x, y in coordinates.tolist()], float(share.sum())
