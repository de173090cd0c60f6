"""The cache of decoded images: its pixels compared with `decode`, and damaged, moved and missing files."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fedreid_pl.data import decoding, image_cache
from fedreid_pl.data.decoding import decode
from fedreid_pl.data.image_cache import ImageCache
from fedreid_pl.data.images import ImagePool
from fedreid_pl.data.samples import TRAIN, SampleTable, concatenate
from fedreid_pl.errors import FedReIDError

HEIGHT, WIDTH = 12, 6


def table(root: Path, count: int = 5, first: int = 0) -> SampleTable:
    """Writes noise images of different sizes."""
    root.mkdir(parents=True, exist_ok=True)
    paths = tuple(f"{number}.png" for number in range(count))
    for number, path in enumerate(paths):
        size = (14 + number % 5, 7 + number % 3, 3)
        pixels = np.random.default_rng(first + number).integers(0, 256, size, dtype=np.uint8)
        Image.fromarray(pixels).save(root / path)
    zeros = np.zeros(count, np.int64)
    return SampleTable("set", root, paths, zeros, zeros, np.full(count, TRAIN, np.uint8))


def images(cache: Path, of: SampleTable, **said) -> torch.Tensor:
    return ImageCache(cache, HEIGHT, WIDTH).images(of, **said)


def check(found: torch.Tensor, of: SampleTable) -> None:
    expected = np.stack([decode(file, HEIGHT, WIDTH) for file in of.files()])
    assert found.dtype == torch.uint8 and np.array_equal(found.numpy(), expected)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Records the files that are decoded."""
    paths: list[str] = []
    monkeypatch.setattr(image_cache, "decode", lambda path, *size: paths.append(path) or decode(path, *size))
    return paths


def packs(cache: Path) -> list[Path]:
    return sorted(cache.glob("*.u8"))


def left(cache: Path) -> set[str]:
    """Returns the endings of the files in the cache."""
    return {path.suffix for path in cache.iterdir()}


def test_pixels_are_decoded_once_and_announced(tmp_path: Path, decoded: list[str]) -> None:
    whole, said, progress = table(tmp_path / "data", 150), [], []
    check(images(tmp_path / "cache", whole, say=said.append, progress=progress.append), whole)
    assert sorted(decoded) == sorted(whole.files())
    assert said == [f"set: 150 images are decoded once into 0.00 GB in {tmp_path / 'cache'}"]
    assert progress[-1] == "set: 150 of 150 images"
    check(images(tmp_path / "cache", whole, say=said.append), whole)
    assert len(decoded) == 150 and len(said) == 1
    assert packs(tmp_path / "cache")[0].stat().st_size == 150 * HEIGHT * WIDTH * 3
    assert left(tmp_path / "cache") == {".u8", ".json"}


def test_the_next_process_uses_the_cache_also_for_moved_and_copied_data(tmp_path: Path, decoded: list[str]) -> None:
    whole = table(tmp_path / "data")
    images(tmp_path / "cache", whole)
    shutil.copytree(whole.root, tmp_path / "copy")
    (tmp_path / "data").rename(tmp_path / "moved")
    for place in ("copy", "moved"):
        check(images(tmp_path / "cache", table_at(whole, tmp_path / place)), table_at(whole, tmp_path / place))
    assert len(decoded) == 5 and len(packs(tmp_path / "cache")) == 1


def table_at(whole: SampleTable, root: Path) -> SampleTable:
    return SampleTable(whole.name, root, whole.paths, whole.identities, whole.cameras, whole.splits)


def test_changed_content_with_the_same_name_and_size(tmp_path: Path) -> None:
    whole = table(tmp_path / "data")
    before = images(tmp_path / "cache", whole).clone()
    path = Path(whole.files()[2])
    raw = path.read_bytes()
    Image.fromarray(np.full((14, 7, 3), 9, np.uint8)).save(path)
    state = path.stat()
    path.write_bytes(path.read_bytes().ljust(len(raw), b"\0"))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    found = images(tmp_path / "cache", whole)
    check(found, whole)
    assert not torch.equal(found[2], before[2]) and torch.equal(found[1], before[1])


def test_every_image_size_has_a_separate_cache(tmp_path: Path) -> None:
    whole = table(tmp_path / "data")
    first = images(tmp_path / "cache", whole)
    other = ImageCache(tmp_path / "cache", WIDTH, HEIGHT).images(whole)
    assert first.shape == (5, HEIGHT, WIDTH, 3) and other.shape == (5, WIDTH, HEIGHT, 3)
    assert np.array_equal(other[3].numpy(), decode(whole.files()[3], WIDTH, HEIGHT))


def test_the_cache_depends_on_the_order_of_rows(tmp_path: Path) -> None:
    whole = table(tmp_path / "data")
    images(tmp_path / "cache", whole)
    turned = whole.take([4, 3, 2, 1, 0])
    check(images(tmp_path / "cache", turned), turned)


@pytest.mark.parametrize("damage", ["truncated", "gone", "not json", "elsewhere"])
def test_a_damaged_cache_is_rebuilt(tmp_path: Path, damage: str, decoded: list[str]) -> None:
    whole, cache = table(tmp_path / "data"), tmp_path / "cache"
    images(cache, whole)
    state = next(cache.glob("*.json"))
    if damage == "truncated":
        packs(cache)[0].write_bytes(b"\0" * 10)
    elif damage == "gone":
        packs(cache)[0].unlink()
    else:
        state.write_text("{" if damage == "not json" else json.dumps({"content": "0" * 64}))
    check(images(cache, whole), whole)
    assert len(decoded) == (10 if damage in ("truncated", "gone") else 5)
    assert json.loads(state.read_text())["images"] == 5


def test_the_error_names_the_first_damaged_file_and_no_cache_is_left(tmp_path: Path) -> None:
    whole = table(tmp_path / "data", 200)
    for row in (170, 3):
        Path(whole.files()[row]).write_bytes(b"no image")
    with pytest.raises(FedReIDError) as caught:
        images(tmp_path / "cache", whole)
    assert str(caught.value).startswith(whole.files()[3]) and "data.on_bad_image=skip" in str(caught.value)
    assert left(tmp_path / "cache") <= {".lock"}
    table(tmp_path / "data", 200)
    check(images(tmp_path / "cache", whole), whole)


def test_the_error_names_a_missing_file(tmp_path: Path) -> None:
    whole = table(tmp_path / "data")
    Path(whole.files()[1]).unlink()
    with pytest.raises(FedReIDError, match=r"1\.png: No such file"):
        images(tmp_path / "cache", whole)


def test_free_space_is_checked_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[str]
) -> None:
    whole = table(tmp_path / "data")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        image_cache.shutil, "disk_usage", lambda folder: usage._replace(free=5 * HEIGHT * WIDTH * 3 - 1)
    )
    with pytest.raises(FedReIDError, match=r"5 images of set need 0\.0 GB, but .* data\.cache_dir"):
        images(tmp_path / "cache", whole)
    assert decoded == [] and not packs(tmp_path / "cache")


def test_a_full_disk_gives_one_error_line(tmp_path: Path) -> None:
    """A limit on the size of files simulates the full disk, in a separate process."""
    whole = table(tmp_path / "data", 100)
    script = (
        "import resource, signal, sys, pickle\n"
        "from pathlib import Path\n"
        "from fedreid_pl.data.image_cache import ImageCache\n"
        "from fedreid_pl.errors import FedReIDError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))\n"
        "table = pickle.loads(sys.stdin.buffer.read())\n"
        f"try: ImageCache(Path({str(tmp_path / 'cache')!r}), {HEIGHT}, {WIDTH}).images(table)\n"
        "except FedReIDError as error: print(error)\n"
    )

    done = subprocess.run([sys.executable, "-c", script], input=pickle.dumps(whole), capture_output=True, check=True)
    said = done.stdout.decode()
    assert said.startswith("data.cache=disk: ") and said.count("\n") == 1 and "File too large" in said
    assert left(tmp_path / "cache") <= {".lock"}


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FedReIDError, match=r"data\.cache=disk: .*choose another folder with data\.cache_dir"):
        images(tmp_path / "file" / "cache", table(tmp_path / "data"))


BUILD = (
    "import sys, time\n"
    "from pathlib import Path\n"
    "import numpy as np\n"
    "from fedreid_pl.data import image_cache\n"
    "from fedreid_pl.data.samples import SampleTable\n"
    "real, log, root, cache, wait = image_cache.decode, *sys.argv[1:4], float(sys.argv[4])\n"
    "def slow(path, *size):\n"
    "    with open(log, 'a') as file: file.write(path + '\\n')\n"
    "    time.sleep(wait)\n"
    "    return real(path, *size)\n"
    "image_cache.decode = slow\n"
    "paths = tuple(f'{n}.png' for n in range(40))\n"
    "zeros = np.zeros(40, np.int64)\n"
    "table = SampleTable('set', Path(root), paths, zeros, zeros, zeros.astype(np.uint8))\n"
    f"pixels = image_cache.ImageCache(Path(cache), {HEIGHT}, {WIDTH}).images(table)\n"
    "print(int(pixels.sum()))\n"
)


def builder(tmp_path: Path, wait: float) -> subprocess.Popen:
    words = [str(tmp_path / "log"), str(tmp_path / "data"), str(tmp_path / "cache"), str(wait)]
    return subprocess.Popen([sys.executable, "-c", BUILD, *words], stdout=subprocess.PIPE, text=True)


def test_two_processes_build_it_once(tmp_path: Path) -> None:
    whole = table(tmp_path / "data", 40)
    both = [builder(tmp_path, 0.01) for _ in range(2)]
    sums = {process.communicate()[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert sums == {str(sum(int(decode(file, HEIGHT, WIDTH).sum()) for file in whole.files()))}
    assert len((tmp_path / "log").read_text().splitlines()) == 40
    assert left(tmp_path / "cache") == {".u8", ".json"}


def test_a_killed_builder_does_not_block_the_next(tmp_path: Path) -> None:
    whole = table(tmp_path / "data", 40)
    process = builder(tmp_path, 0.05)
    while not (tmp_path / "log").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not packs(tmp_path / "cache")
    check(images(tmp_path / "cache", whole), whole)
    assert len(packs(tmp_path / "cache")) == 1 and left(tmp_path / "cache") == {".u8", ".json"}


# the pool


def test_parts_of_datasets_read_from_their_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = table(tmp_path / "a", 7), table(tmp_path / "b", 6, first=50)
    pool = ImagePool(HEIGHT, WIDTH, "disk")
    assert pool.prepare([first, second], tmp_path / "cache") == 13
    assert len(packs(tmp_path / "cache")) == 2
    monkeypatch.setattr(decoding, "decode", None)
    parts = [first.take([5, 0, 2]), second.take([1]), concatenate([second.take([3, 0]), first.take([6])], "merged")]
    for part in parts:
        source = pool.source(part)
        assert len(source) == len(part) and not source.decodes and not source.memory
        rows = list(range(len(part)))[::-1] * 2
        expected = np.stack([decode(part.files()[row], HEIGHT, WIDTH) for row in rows])
        batch = source.read(rows)
        assert batch.is_contiguous(memory_format=torch.channels_last)
        assert np.array_equal(batch.permute(0, 2, 3, 1).numpy(), expected)
    assert pool.undecoded() == (0, 0) and pool.load() == 0


def test_batches_are_copies_of_the_cache(tmp_path: Path) -> None:
    whole = table(tmp_path / "data")
    pool = ImagePool(HEIGHT, WIDTH, "disk")
    pool.prepare([whole], tmp_path / "cache")
    before = packs(tmp_path / "cache")[0].read_bytes()
    pool.source(whole).read([1, 2]).zero_()
    check(images(tmp_path / "cache", whole), whole)
    assert packs(tmp_path / "cache")[0].read_bytes() == before


def test_other_modes_write_no_cache(tmp_path: Path) -> None:
    whole = table(tmp_path / "data")
    for mode in ("auto", "memory", "none"):
        pool = ImagePool(HEIGHT, WIDTH, mode)
        assert pool.prepare([whole], tmp_path / "cache") == 0
        assert pool.source(whole).decodes is (mode == "none")
    assert not (tmp_path / "cache").exists()
    assert pool.undecoded() == (5, 5 * HEIGHT * WIDTH * 3)
