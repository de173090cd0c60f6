"""Initial weights: seeds, valid and invalid files, and ImageNet weights with and without network access."""

from __future__ import annotations

import hashlib
import pickle
from collections import OrderedDict
from email.message import Message
from io import BytesIO
from pathlib import Path
from urllib.error import HTTPError, URLError

import pytest
import torch
from torch import nn
from torchvision.models import ResNet18_Weights, resnet18

from fedreid_pl.config import ModelConfig
from fedreid_pl.errors import FedReIDError
from fedreid_pl.models.trunks import build_trunk
from fedreid_pl.models.weights import build_backbone, copy_state, load_trunk


def config(weights="none", name="small", **options) -> ModelConfig:
    return ModelConfig(name=name, weights=str(weights), **{"channels_last": False, **options})


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def trunk_state(seed=0, name="small") -> dict[str, torch.Tensor]:
    """Returns a trunk's state dict of random numbers, including running statistics."""
    torch.manual_seed(seed)
    state = build_trunk(name).state_dict()
    return {key: torch.rand_like(value) if value.is_floating_point() else value + 7 for key, value in state.items()}


def refused(weights, *parts: str, name="small") -> None:
    with pytest.raises(FedReIDError) as caught:
        build_backbone(config(weights, name))
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"model.weights={weights}: ")
    for part in parts:
        assert part in text


# seeds


def test_equal_seeds_equal_weights():
    models = []
    for seed in (5, 5, 6):
        torch.manual_seed(len(models))
        models.append(build_backbone(config(), seed))
    assert same(models[0], models[1])
    for key, value in models[0].named_parameters():
        if value.unique().numel() > 1:
            assert not torch.equal(value, models[2].get_parameter(key)), key


def test_the_global_generator_does_not_change():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    build_backbone(config(), 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_configuration_reaches_the_model():
    model = build_backbone(config(feature_dim=33, dropout=0.125, last_stride=1))
    assert model(torch.zeros(2, 3, 64, 32)).shape == (2, 33)
    assert model.trunk(torch.zeros(1, 3, 64, 32)).shape[2:] == (8, 4)
    assert model.bottleneck[2].p == 0.125


@pytest.mark.parametrize("name", ["small", "resnet18"])
def test_channels_last_gives_the_same_features(name):
    plain, last = (build_backbone(config(name=name, channels_last=value)).eval() for value in (False, True))
    assert same(plain, last)
    weights = [module.weight for module in last.modules() if isinstance(module, nn.Conv2d)]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    images = torch.randn(3, 3, 64, 32)
    with torch.inference_mode():
        expected = plain(images)
        actual = last(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)


# files


def plain(state):
    return state


def checkpoint(state):
    return {"state_dict": state, "epoch": 3, "arch": "small"}


def parallel(state):
    return {f"module.{key}": value for key, value in state.items()}


def whole_backbone(state):
    return {f"trunk.{key}": value for key, value in state.items()} | {"bottleneck.0.weight": torch.zeros(2, 2)}


def parallel_backbone(state):
    return checkpoint(parallel(whole_backbone(state)))


def with_classifier(state):
    return OrderedDict(state) | {"fc.weight": torch.zeros(1000, 64), "fc.bias": torch.zeros(1000)}


def without_counters(state):
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


FORMS = (plain, checkpoint, parallel, whole_backbone, parallel_backbone, with_classifier, without_counters)


@pytest.mark.parametrize("form", FORMS)
def test_weights_from_a_file(tmp_path, form):
    state = trunk_state()
    torch.save(form(state), tmp_path / "weights.pth")
    model = build_backbone(config(tmp_path / "weights.pth"), seed=2)
    for key, value in model.trunk.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(value, state[key]), key
        elif form is not without_counters:
            assert value == 7, key
    assert same(model.bottleneck, build_backbone(config(), seed=2).bottleneck)


def test_old_file_format_and_home(tmp_path, monkeypatch):
    state = trunk_state()
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert torch.equal(build_backbone(config("~/old.pth")).trunk.stem[0].weight, state["stem.0.weight"])


def test_torchvision_s_own_state_dict_gives_torchvision_s_features(tmp_path):
    torch.manual_seed(0)
    network = resnet18(weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "resnet18.pth")
    trunk = build_backbone(config(tmp_path / "resnet18.pth", "resnet18")).trunk.eval()
    images = torch.randn(2, 3, 64, 32)
    network.fc = nn.Identity()
    with torch.inference_mode():
        torch.testing.assert_close(trunk(images).mean(dim=(2, 3)), network(images))


def test_loading_copies(tmp_path):
    state, trunk = trunk_state(), build_trunk("small")
    load_trunk(trunk, state, "here")
    state["stem.0.weight"].zero_()
    assert trunk.stem[0].weight.abs().max() > 0


def test_missing_tensor(tmp_path):
    state = trunk_state()
    del state["stages.1.conv2.weight"]
    torch.save(state, tmp_path / "part.pth")
    refused(tmp_path / "part.pth", "'stages.1.conv2.weight' is missing", "tensors of small")


def test_another_shape(tmp_path):
    torch.save(trunk_state() | {"stem.0.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "wide.pth")
    refused(tmp_path / "wide.pth", "'stem.0.weight' has shape (32, 3, 3, 3), but in small it has shape (16, 3, 3, 3)")


def test_another_backbone(tmp_path):
    torch.save(trunk_state(), tmp_path / "small.pth")
    refused(tmp_path / "small.pth", "contains no weights of resnet18", "stem.0.weight", name="resnet18")


@pytest.mark.parametrize(
    "content",
    [
        [torch.zeros(2)],
        torch.zeros(2),
        {"epoch": 3},
        {"state_dict": {"stem.0.weight": "text"}},
        {0: torch.zeros(2)},
        "text",
        None,
    ],
    ids=["list", "tensor", "numbers", "strings", "numbered", "text", "none"],
)
def test_not_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "odd.pth")
    refused(tmp_path / "odd.pth", "contains no state dict")


@pytest.mark.parametrize("content", [b"", b"hello, world\n" * 50, b"PK\x03\x04" + bytes(40), b"\x80\x02}q\x00"])
def test_not_a_file_of_torch(tmp_path, content):
    (tmp_path / "odd.pth").write_bytes(content)
    refused(tmp_path / "odd.pth", "is not a weights file, or is damaged")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files_are_read_or_refused(tmp_path, zipped):
    """Any error of the unpickler is raised as the project's error."""
    stream, path, generator = BytesIO(), tmp_path / "damaged.pth", torch.Generator().manual_seed(0)
    torch.save(
        {"stem.0.weight": torch.zeros(4), "count": torch.ones(3, 2)}, stream, _use_new_zipfile_serialization=zipped
    )
    raw, refusals = stream.getvalue(), 0
    for number in range(200):
        data = bytearray(raw)
        if number % 3 == 0:
            data = data[: int(torch.randint(len(data), (), generator=generator))]
        else:
            for place in torch.randint(len(data), (6,), generator=generator).tolist():
                data[place] = int(torch.randint(256, (), generator=generator))
        path.write_bytes(data)
        with pytest.raises(FedReIDError) as caught:  # a readable file is not a small backbone
            build_backbone(config(path))
        refusals += "is damaged" in str(caught.value)
    assert refusals > 60


class Trap:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("save", ["torch", "torch_old", "pickle"])
def test_code_in_a_file_does_not_run(tmp_path, save):
    sprung, file = tmp_path / "sprung", tmp_path / "trap.pth"
    content = trunk_state() | {"extra": Trap(sprung)}
    if save == "pickle":
        file.write_bytes(pickle.dumps({"extra": Trap(sprung)}, protocol=2))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=save == "torch")
    refused(file, "contains more than tensors and numbers")
    assert not sprung.exists()
    torch.load(file, weights_only=False) if save != "pickle" else pickle.loads(file.read_bytes())
    assert sprung.exists()  # the trap works without protection


def test_a_whole_module_is_refused(tmp_path):
    torch.save(build_trunk("small"), tmp_path / "module.pth")
    refused(tmp_path / "module.pth", "perhaps a whole module", "torch.save(model.state_dict(), NEW)")


def test_missing_file_and_folder(tmp_path):
    refused(tmp_path / "nowhere.pth", "cannot be read (No such file or directory)")
    refused(tmp_path, "cannot be read (Is a directory)")


# ImageNet


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """Sets an empty torch.hub cache; any network request fails the test."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", lambda request: pytest.fail("a network request was made"))
    return tmp_path / "hub" / "checkpoints" / Path(ResNet18_Weights.IMAGENET1K_V1.url).name


def test_there_are_no_imagenet_weights_for_the_small_backbone(cache):
    refused("imagenet", "small", "model.weights=none")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (URLError(OSError(-3, "Temporary failure in name resolution")), "name resolution"),
        (HTTPError("https://example.org", 403, "Forbidden", Message(), None), "Forbidden"),
        (TimeoutError(), "TimeoutError"),
        (ConnectionResetError(104, "Connection reset by peer"), "Connection reset by peer"),
        (OSError("first line\nsecond line"), "first line"),
    ],
    ids=["name", "http", "timeout", "reset", "lines"],
)
def test_imagenet_without_a_network(cache, monkeypatch, error, reason):
    def fail(request):
        raise error

    monkeypatch.setattr(torch.hub, "urlopen", fail)
    refused("imagenet", "resnet18", reason, "model.weights=PATH", "model.weights=none", name="resnet18")


class Response(BytesIO):
    """A web server's response."""

    def info(self) -> Message:
        head = Message()
        head["Content-Length"] = str(len(self.getvalue()))
        return head


def test_an_altered_download_is_refused(cache, monkeypatch):
    stream = BytesIO()
    torch.save(resnet18(weights=None).state_dict(), stream)
    assert not hashlib.sha256(stream.getvalue()).hexdigest().startswith(cache.stem.split("-")[1])
    monkeypatch.setattr(torch.hub, "urlopen", lambda request: Response(stream.getvalue()))
    refused("imagenet", "resnet18", "hash", "model.weights=PATH", name="resnet18")
    assert not cache.exists()


def test_imagenet_from_the_cache(cache):
    torch.manual_seed(8)
    network = resnet18(weights=None)
    cache.parent.mkdir(parents=True)
    torch.save(network.state_dict(), cache)
    trunk = build_backbone(config("imagenet", "resnet18")).trunk
    for key, value in trunk.state_dict().items():
        assert torch.equal(value, network.state_dict()[key]), key


@pytest.mark.parametrize("content", [b"", b"half of it"])
def test_the_error_names_a_damaged_cache(cache, content):
    cache.parent.mkdir(parents=True)
    cache.write_bytes(content)
    refused("imagenet", "resnet18", "model.weights=PATH", name="resnet18")


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_copied_state_equals_a_loaded_one(channels_last: bool) -> None:
    copied, loaded = (build_backbone(config(channels_last=channels_last), seed) for seed in (1, 2))
    parameters = list(copied.parameters())
    draws = torch.Generator().manual_seed(3)
    state = {
        name: torch.rand(value.shape, generator=draws) if value.is_floating_point() else value + 5
        for name, value in copied.state_dict().items()
    }
    copy_state(state, copied)
    loaded.load_state_dict(state)
    assert same(copied, loaded)
    assert all(a is b for a, b in zip(copied.parameters(), parameters, strict=True))
    layouts = [[value.stride() for value in network.state_dict().values()] for network in (copied, loaded)]
    assert layouts[0] == layouts[1]
    state["bottleneck.0.bias"].zero_()
    assert same(copied, loaded)  # a copy, not the tensor itself


@pytest.mark.parametrize("fault", ["missing", "unknown", "shape", "number"])
def test_a_state_of_another_network_is_not_copied(fault: str) -> None:
    network = build_backbone(config())
    state = dict(network.state_dict())
    if fault == "missing":
        del state["bottleneck.0.bias"]
    else:
        key = "bottleneck.0.bias" if fault != "unknown" else "bottleneck.9.bias"
        state[key] = torch.zeros(3) if fault != "number" else 1.0  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="bottleneck"):
        copy_state(state, network)
