"""Exported files give the model's features in other programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cosine_similarity

import fedreid_pl
from fedreid_pl.errors import FedReIDError
from fedreid_pl.retrieval.export import export
from fedreid_pl.retrieval.quantization import quantize, rank1


@pytest.fixture(scope="module")
def pictures(run: Path, tiny_root: Path) -> torch.Tensor:
    """Returns 256 random images as network input."""
    files = sorted(tiny_root.glob("*/bounding_box_t*/*"))[:256]
    assert len(files) == 256
    return fedreid_pl.load(run).read(files)


def test_onnx_in_onnxruntime_alone(run: Path, pictures: torch.Tensor, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = fedreid_pl.load(run)
    done = export(model, tmp_path / "small.onnx", flip=True, pictures=pictures[:3])
    session = onnxruntime.InferenceSession(str(done.files[0]))
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.shape) == ("images", ["batch", 3, 64, 32]) and given.name == "output0"
    found = torch.from_numpy(session.run(None, {"images": pictures.numpy()})[0])
    assert float(cosine_similarity(found, model.embed(pictures)).min()) > 0.9999
    about = json.loads((tmp_path / "small.onnx.metadata.json").read_text())
    assert about["img_size"] == [64, 32] and about["preprocess"] == "resize" and about["fedreid_pl"]["flip"] is True
    held = session.get_modelmeta().custom_metadata_map
    assert {key: json.loads(value) for key, value in held.items() if key in about} == about


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("flip", [False, True])
def test_torch_formats(run: Path, pictures: torch.Tensor, tmp_path: Path, flip: bool) -> None:
    model = fedreid_pl.load(run)
    wanted = model.embed(pictures[:9], flip=flip)
    export(model, tmp_path / "m.torchscript", flip)
    torch.testing.assert_close(torch.jit.load(tmp_path / "m.torchscript")(pictures[:9]), wanted)
    export(model, tmp_path / "m.pt2", flip)
    torch.testing.assert_close(torch.export.load(tmp_path / "m.pt2").module()(pictures[:9]), wanted)


def test_a_safetensors_file_contains_the_weights(run: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model = fedreid_pl.load(run)
    export(model, tmp_path / "m.safetensors")
    held = load_file(tmp_path / "m.safetensors")
    assert held.keys() == model.backbone.state_dict().keys()
    assert all(torch.equal(held[name], value) for name, value in model.backbone.state_dict().items())


def test_eight_bits(run: Path, tiny_root: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = fedreid_pl.load(run)
    done, cost = quantize(model, tmp_path / "m.onnx", False, tiny_root / "mini-market1501" / "bounding_box_train")
    assert cost.startswith("int8: mean cosine similarity with the model 0.9") and "Rank-1 among" in cost
    session = onnxruntime.InferenceSession(str(done.files[0]))
    inputs = model.read(sorted((tiny_root / "mini-viper" / "query").glob("*"))[:4])
    found = torch.from_numpy(session.run(None, {"images": inputs.numpy()})[0])
    assert float(cosine_similarity(found, model.embed(inputs, flip=False)).min()) > 0.9
    assert done.files[0].stat().st_size < 250_000  # 78 thousand weights and a bottleneck, one byte each


def test_rank1_by_hand() -> None:
    features = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.8, 0.2], [0.1, 0.9]]))
    assert rank1(features, ["a", "a", "b", "b", "c"]) == 0.5  # a finds a twice; b finds c and a
    assert rank1(features, list("abcde")) is None


def test_other_suffixes_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(FedReIDError, match=r"must end with \.onnx"):
        export(fedreid_pl.load(run), tmp_path / "m.tflite")
    with pytest.raises(FedReIDError, match="there is no folder"):
        export(fedreid_pl.load(run), tmp_path / "none" / "m.onnx")
    with pytest.raises(FedReIDError, match="give at least 32"):
        (tmp_path / "few").mkdir()
        from PIL import Image

        Image.new("RGB", (8, 8)).save(tmp_path / "few" / "1.png")
        quantize(fedreid_pl.load(run), tmp_path / "m.onnx", False, tmp_path / "few")
    assert not list(tmp_path.glob("*.onnx*"))
