"""A loaded model gives the run's scores and accepts images in all supported forms."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import support
import torch
from PIL import Image

import fedreid_pl
from fedreid_pl.errors import FedReIDError
from fedreid_pl.functional.ranking import retrieval_results, summarize
from fedreid_pl.retrieval.model import ReIDModel


def market(folder: Path) -> tuple[list[Path], torch.Tensor, torch.Tensor]:
    """Returns the files of a folder in Market-1501's layout, with person and camera from their names."""
    files = sorted(file for file in folder.glob("*") if not file.name.startswith("-1"))
    persons = torch.tensor([int(file.name.split("_")[0]) for file in files])
    cameras = torch.tensor([int(file.name.split("_c")[1].split("s")[0].split("_")[0]) for file in files])
    return files, torch.where(persons == 0, -2, persons), cameras


def rank1(model: ReIDModel, dataset: Path) -> float:
    """Computes a dataset's test scores from its files."""
    query, gallery = market(dataset / "query"), market(dataset / "bounding_box_test")
    results = retrieval_results(model.embed(query[0]), *query[1:], model.embed(gallery[0]), *gallery[1:])
    return summarize(results)["rank1"]


@pytest.mark.parametrize("test", support.TINY)
def test_the_global_model_gives_the_runs_scores(run: Path, tiny_root: Path, test: str) -> None:
    summary = json.loads((run / "summary.json").read_text())
    assert rank1(fedreid_pl.load(run), tiny_root / test) == summary["global"][test]["rank1"]["last"]


def test_a_standalone_client_gives_the_runs_scores(local_run: Path, tiny_root: Path) -> None:
    summary = json.loads((local_run / "summary.json").read_text())
    test = support.TINY[1]
    assert rank1(fedreid_pl.load(local_run, client=test), tiny_root / test) == summary["local"][test]["rank1"]["last"]
    with pytest.raises(FedReIDError, match=f"client=NAME, one of .*{test}"):
        fedreid_pl.load(local_run)


def test_a_clients_local_norm_is_restored(own_norm_run: Path, tiny_root: Path) -> None:
    summary = json.loads((own_norm_run / "summary.json").read_text())
    test = support.TINY[1]
    model = fedreid_pl.load(own_norm_run, client=test)
    assert rank1(model, tiny_root / test) == summary["global"][test]["rank1"]["last"]


def test_all_supported_forms_of_an_image(run: Path, tiny_root: Path) -> None:
    folder = tiny_root / "mini-viper" / "query"
    model = fedreid_pl.load(run, checkpoint=1)
    files = sorted(folder.glob("*"))[:5]
    arrays = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    wanted = model.embed(files)
    assert wanted.dtype == torch.float32 and wanted.shape == (5, model.card.dim)
    torch.testing.assert_close(wanted.norm(dim=1), torch.ones(5))
    stacked = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
    for other in ([str(file) for file in files], arrays, np.stack(arrays), stacked, model.preprocess(arrays)):
        assert torch.equal(model.embed(other), wanted)
    torch.testing.assert_close(model.embed(folder)[:5], wanted)
    torch.testing.assert_close(model.embed(files, batch_size=2), wanted)
    assert torch.equal(model.embed(files[0]), model.embed(files[:1]))
    assert model.embed([]).shape == (0, model.card.dim)


def test_flip_is_the_mirror_image(run: Path, tiny_root: Path) -> None:
    model = fedreid_pl.load(run)
    inputs = model.read(sorted((tiny_root / "mini-viper" / "query").glob("*"))[:3])
    plain, mirrored = (model.backbone(part).detach() for part in (inputs, inputs.flip(3)))
    torch.testing.assert_close(model.embed(inputs, flip=False), torch.nn.functional.normalize(plain))
    torch.testing.assert_close(model.embed(inputs), torch.nn.functional.normalize(plain + mirrored))
    assert torch.equal(model.embed(inputs), model.embed(inputs.flip(3)))


def test_a_warning_names_damaged_images(run: Path, tiny_root: Path, tmp_path: Path) -> None:
    good = sorted((tiny_root / "mini-viper" / "query").glob("*"))[0]
    shutil.copy(good, tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(good.read_bytes()[:60])
    model = fedreid_pl.load(run)
    with pytest.warns(UserWarning, match=r"1 unreadable picture with rows of NaN: .*b\.png"):
        found = model.embed([tmp_path / "b.png", tmp_path / "a.png"])
    assert found[0].isnan().all()
    torch.testing.assert_close(found[1:], model.embed([good]))
    features = model.embed_files(tmp_path)
    assert features.names == ["a.png"] and [name for name, _ in features.damaged] == ["b.png"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (torch.rand(2, 3, 64, 32), "without a negative one"),
        (torch.randn(2, 3, 128, 64), "must be normalised pictures"),
        (torch.zeros(2, 1, 64, 32, dtype=torch.uint8), "uint8 RGB"),
        ([np.zeros((4, 4, 3))], "picture 0 must be"),
        ([np.zeros((4, 4, 4), np.uint8)], "picture 0 must be"),
        ([np.zeros((0, 4, 3), np.uint8)], "picture 0 is empty"),
        (["nowhere.png"], "no such picture"),
    ],
)
def test_invalid_images_are_refused(run: Path, wrong: object, words: str) -> None:
    with pytest.raises(FedReIDError, match=words):
        fedreid_pl.load(run).embed(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"checkpoint": 7}, "saved rounds: 1"),
        ({"checkpoint": "nothing"}, "give last, best"),
        ({"client": "mini-vipe"}, "did you mean 'mini-viper'"),
        ({"device": "nonsense"}, "cannot be used"),
    ],
)
def test_unknown_options_are_refused(run: Path, options: dict, words: str) -> None:
    with pytest.raises(FedReIDError, match=words):
        fedreid_pl.load(run, **options)


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(FedReIDError, match="is not a run folder"):
        fedreid_pl.load(tmp_path)
