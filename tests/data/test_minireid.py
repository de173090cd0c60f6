"""MiniReID: counts compared with an independent parse of the file names, bits, interrupted and concurrent writers."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fedreid_pl
from fedreid_pl.data.minireid import (
    DOMAINS,
    PUBLIC,
    VERSIONS,
    Domain,
    cache_folder,
    check_complete,
    contact_sheet,
    domains_of,
    ensure_minireid,
    verify,
    write_benchmark,
)
from fedreid_pl.data.minireid.camera import Studio
from fedreid_pl.data.minireid.schedule import Shot, schedule
from fedreid_pl.errors import FedReIDError

TRAIN, GALLERY, QUERY = "bounding_box_train", "bounding_box_test", "query"

# name: cameras, train ids / images, query ids / images, gallery ids / images (junk and distractors apart)
FIRST = {
    "mini-msmt17": (15, 104, 3262, 306, 1166, 306, 8216),
    "mini-dukemtmcreid": (8, 70, 1652, 70, 223, 111, 1766),
    "mini-market1501": (6, 75, 1294, 75, 337, 75, 1973),
    "mini-cuhk03np": (2, 77, 737, 70, 140, 70, 533),
    "mini-prid2011": (2, 29, 374, 40, 40, 65, 65),
    "mini-cuhk01": (2, 49, 194, 49, 97, 49, 97),
    "mini-viper": (2, 32, 63, 40, 40, 40, 40),
    "mini-3dpes": (2, 9, 45, 40, 110, 46, 140),
    "mini-ilids": (2, 6, 25, 40, 65, 40, 87),
}
SECOND = {
    "mini-msmt17": (15, 104, 3262, 306, 918, 306, 3060),
    "mini-dukemtmcreid": (8, 70, 1652, 300, 600, 474, 2400),
    "mini-market1501": (6, 75, 1294, 300, 600, 300, 2400),
    "mini-cuhk03np": (2, 77, 737, 300, 600, 300, 1500),
    "mini-prid2011": (2, 29, 374, 300, 300, 650, 650),
    "mini-cuhk01": (2, 49, 194, 300, 600, 300, 600),
    "mini-viper": (2, 32, 63, 316, 316, 316, 316),
    "mini-3dpes": (2, 9, 45, 300, 600, 349, 750),
    "mini-ilids": (2, 6, 25, 300, 490, 300, 650),
}
SIZES = {1: FIRST, 2: SECOND}
NAMES = list(SECOND)

MINIATURE = Domain("mini-test", 3, 5, 30, 4, 10, 30, gallery_only_ids=2, junk=3, distractors=4)
VIPER = DOMAINS["mini-viper"].scaled(0.2)
PIXELS = {
    1: "60e63b8cc2192e7e334f69824f3f8991f0e3a16bdc2c3923bf3b5a16353c6946",
    2: "c0674ec2991cb857bb4c2a01a15605f81ce1e04ce6d9d227769c5c6fdcfe06df",
}
"""SHA-256 over the drawn pixels of MINIATURE in each version, before JPEG. Neither may ever change."""

SCRIPT = """
import sys
from fedreid_pl.data.minireid import DOMAINS, ensure_minireid
domain = DOMAINS[sys.argv[3]].scaled(float(sys.argv[4]))
ensure_minireid(sys.argv[1], int(sys.argv[2]), lambda text: print(text, flush=True), [domain])
assert "torch" not in sys.modules
"""


def parse(names: list[str]) -> list[tuple[int, int]]:
    """Returns (person, camera) of file names, split at the separators."""
    fields = []
    for name in names:
        assert name.endswith(".jpg")
        person, camera_and_sequence, frame, box = name[: -len(".jpg")].split("_")
        camera, sequence = camera_and_sequence[1:].split("s")
        assert camera_and_sequence[0] == "c" and sequence.isdigit() and len(frame) == 6 and len(box) == 2
        assert person == "-1" or len(person) == 4
        fields.append((int(person), int(camera)))
    return fields


def planned(domain: Domain, folder: str) -> list[tuple[int, int]]:
    return parse([shot.path.split("/")[1] for shot in schedule(domain) if shot.path.startswith(folder + "/")])


def launch(root: Path, processes: int, domain: str, factor: float = 0.2) -> subprocess.Popen[str]:
    source = str(Path(fedreid_pl.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(root), str(processes), domain, str(factor)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": source},
    )  # fmt: skip


def digest(root: Path) -> str:
    return json.loads((root / "manifest.json").read_text())["sha256"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes two domains in one process, like the default run."""
    root = tmp_path_factory.mktemp("minireid") / "root"
    return ensure_minireid(root, processes=1, domains=[VIPER, MINIATURE])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", NAMES)
def test_counts_persons_and_cameras(name: str, version: int) -> None:
    domain, (cameras, *sizes) = domains_of(version)[name], SIZES[version][name]
    found: list[int] = []
    for folder in (TRAIN, QUERY, GALLERY):
        pairs = planned(domain, folder)
        assert {camera for _, camera in pairs} <= set(range(1, cameras + 1))
        found += [len({person for person, _ in pairs if person > 0}), len(pairs)]
    assert found == sizes
    seen = {camera for folder in (TRAIN, QUERY, GALLERY) for _, camera in planned(domain, folder)}
    assert seen == set(range(1, cameras + 1))
    assert len({shot.path for shot in schedule(domain)}) == domain.images


@pytest.mark.parametrize("version", VERSIONS)
def test_order_and_imbalance(version: int) -> None:
    assert list(domains_of(version)) == [*NAMES, PUBLIC.name]
    sizes = [domain.train_images for domain in domains_of(version).values() if domain.labelled]
    assert sum(sizes) == 7646
    assert round(100 * max(sizes) / sum(sizes), 1) == 42.7
    assert round(100 * min(sizes) / sum(sizes), 2) == 0.33


def test_junk_distractors_and_persons_of_one_camera() -> None:
    market = [person for person, _ in planned(DOMAINS["mini-market1501"], GALLERY)]
    assert (market.count(-1), market.count(0)) == (464, 340)
    cameras = defaultdict(set)
    for person, camera in planned(DOMAINS["mini-dukemtmcreid"], GALLERY):
        cameras[person].add(camera)
    asked = {person for person, _ in planned(DOMAINS["mini-dukemtmcreid"], QUERY)}
    others = [cameras[person] for person in cameras if person not in asked]
    assert len(others) == 174 and all(len(seen) == 1 for seen in others)


def test_public_domain_is_unlabelled() -> None:
    pairs = planned(PUBLIC, TRAIN)
    assert len(pairs) == 726 and {person for person, _ in pairs} == {-1}
    assert {camera for _, camera in pairs} == set(range(1, 11))
    assert not planned(PUBLIC, QUERY) and not planned(PUBLIC, GALLERY)


@pytest.mark.parametrize("domain", [*DOMAINS.values(), MINIATURE, DOMAINS["mini-market1501"].scaled(0.05)])
def test_every_query_has_an_answer_and_splits_are_disjoint(domain: Domain) -> None:
    train, query, gallery = (set(planned(domain, folder)) for folder in (TRAIN, QUERY, GALLERY))
    for person, camera in query:
        assert any(other == person and place != camera for other, place in gallery)
    assert not {person for person, _ in train} & {person for person, _ in query | gallery}


def test_large_domains_are_uneven() -> None:
    counts = defaultdict(int)
    for pair in planned(DOMAINS["mini-msmt17"], TRAIN):
        counts[pair[0]] += 1
    assert max(counts.values()) > 3 * min(counts.values())


@pytest.mark.parametrize("factor", [0.02, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("domain", [*DOMAINS.values(), PUBLIC])
def test_scaled(domain: Domain, factor: float) -> None:
    small = domain.scaled(factor)
    assert len(schedule(small)) == small.images <= max(domain.images, 24)
    assert small.cameras == domain.cameras and small.look == domain.look
    assert factor < 1 or small == domain


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="mini-test"):
        replace(MINIATURE, query_images=13)
    with pytest.raises(ValueError, match="gallery"):
        replace(MINIATURE, gallery_images=16)


@pytest.mark.parametrize("version", VERSIONS)
def test_pixels_are_the_stored_ones(version: int) -> None:
    miniature = replace(MINIATURE, version=version)
    pixels, studio = hashlib.sha256(), Studio(miniature)
    for shot in schedule(miniature):
        pixels.update(studio.take(shot).tobytes())
    assert pixels.hexdigest() == PIXELS[version]


def test_every_domain_has_enough_queries_for_a_third_of_a_point() -> None:
    persons = {name: len({person for person, _ in planned(domain, QUERY)}) for name, domain in DOMAINS.items()}
    assert min(persons.values()) >= 300, persons


def test_versions_share_no_image() -> None:
    shots = schedule(MINIATURE)[:20]
    drawn = [
        {Studio(replace(MINIATURE, version=version)).take(shot).tobytes() for shot in shots} for version in VERSIONS
    ]
    assert not drawn[0] & drawn[1]


def test_an_image_does_not_depend_on_earlier_images() -> None:
    shots = schedule(MINIATURE)
    studio = Studio(MINIATURE)
    forward = [studio.take(shot).tobytes() for shot in shots]
    backward = [Studio(MINIATURE).take(shot).tobytes() for shot in reversed(shots)]
    assert forward == backward[::-1]
    assert len(set(forward)) == len(forward)


def test_persons_cameras_indices_and_domains_differ() -> None:
    def picture(domain: Domain, person: int, camera: int, index: int) -> bytes:
        return Studio(domain).take(Shot("", "person", person, camera, index)).tobytes()

    renamed = replace(MINIATURE, name="mini-other")
    pictures = {
        picture(domain, person, camera, index)
        for domain in (MINIATURE, renamed)
        for person in (1, 2)
        for camera in (1, 2)
        for index in (0, 1)
    }
    assert len(pictures) == 16


def test_files_are_jpeg_of_the_domains_size(written: Path) -> None:
    for file in (written / "mini-viper" / TRAIN).iterdir():
        with Image.open(file) as picture:
            assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", DOMAINS["mini-viper"].size)
    names = os.listdir(written / "mini-test" / GALLERY)
    assert sorted(parse(names)) == sorted(planned(MINIATURE, GALLERY))


def test_same_bytes_with_two_processes_and_a_fresh_interpreter(written: Path, tmp_path: Path) -> None:
    domains = [VIPER, MINIATURE]
    messages: list[str] = []
    manifest = write_benchmark(tmp_path / "two", domains, processes=2, progress=messages.append)
    assert manifest["sha256"] == digest(written)
    assert messages[-1].endswith("209 of 209 images")  # 139 of mini-viper, 70 of the miniature
    assert manifest["synthetic"] is True
    fresh = launch(tmp_path / "fresh", 1, "mini-viper")
    fresh.communicate()
    assert fresh.returncode == 0
    own = json.loads((tmp_path / "fresh" / "manifest.json").read_text())["domains"]["mini-viper"]
    assert own == manifest["domains"]["mini-viper"]


def test_without_workers_images_are_drawn_in_this_process(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    domains = [VIPER, MINIATURE]
    assert write_benchmark(tmp_path / "root", domains, processes=2)["sha256"] == digest(written)


def test_a_killed_writer_leaves_no_complete_looking_dataset(tmp_path: Path) -> None:
    root = tmp_path / "cache" / "minireid"
    process = launch(root, 2, "mini-cuhk03np", 1.0)
    assert process.stdout is not None
    process.stdout.readline()  # drawing has begun
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not root.exists()
    assert [path.name for path in root.parent.iterdir()] != []
    files, before = -1, -2
    while files != before:  # the workers detect the broken pipe and end
        time.sleep(1.0)
        files, before = sum(1 for _ in root.parent.rglob("*.jpg")), files
    assert files < DOMAINS["mini-cuhk03np"].images
    assert ensure_minireid(root, domains=[MINIATURE]) == root
    assert [path.name for path in root.parent.iterdir()] == ["minireid"]
    verify(root)


def test_two_writers_at_once(tmp_path: Path) -> None:
    root = tmp_path / "minireid"
    both = [launch(root, 1, "mini-viper") for _ in range(2)]
    for process in both:
        process.communicate()
    assert [process.returncode for process in both] == [0, 0]
    assert os.listdir(tmp_path) == ["minireid"]
    verify(root)


def test_later_calls_only_verify(written: Path) -> None:
    before = (written / "manifest.json").stat().st_mtime_ns
    assert ensure_minireid(written, domains=[MINIATURE]) == written
    assert (written / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", ["file", "folder", "manifest", "version", "domain"])
def test_damaged_cache_is_refused(tmp_path: Path, damage: str) -> None:
    root, wanted = tmp_path / "minireid", [MINIATURE]
    ensure_minireid(root, domains=[MINIATURE])
    manifest = root / "manifest.json"
    if damage == "file":
        next((root / "mini-test" / QUERY).iterdir()).unlink()
    elif damage == "folder":
        (root / "mini-test" / QUERY).rename(tmp_path / "gone")
    elif damage == "manifest":
        manifest.write_text(manifest.read_text()[:40])
    elif damage == "version":
        manifest.write_text(manifest.read_text().replace('"version": 2', '"version": 999'))
    else:
        wanted = [VIPER]
    with pytest.raises(FedReIDError, match="move the folder elsewhere to draw it again") as caught:
        ensure_minireid(root, domains=wanted)
    assert str(root) in str(caught.value) and "\n" not in str(caught.value)


def test_another_version_is_refused(tmp_path: Path) -> None:
    root = ensure_minireid(tmp_path / "minireid", domains=[replace(MINIATURE, version=1)])
    check_complete(root)
    assert ensure_minireid(root, domains=[replace(MINIATURE, version=1)]) == root
    with pytest.raises(FedReIDError, match=r"version 1 of MiniReID, not version 2.*data=minireid_v1") as caught:
        ensure_minireid(root, domains=[MINIATURE])
    assert "\n" not in str(caught.value)
    with pytest.raises(FedReIDError, match=r"data\.version=3: no such version of MiniReID; there are 1, 2"):
        ensure_minireid(tmp_path / "third", version=3)
    with pytest.raises(ValueError, match="different versions"):
        write_benchmark(tmp_path / "mixed", [MINIATURE, replace(MINIATURE, name="mini-other", version=1)])


def test_verify_names_the_differing_domain(tmp_path: Path) -> None:
    root = ensure_minireid(tmp_path / "minireid", domains=[MINIATURE, replace(MINIATURE, name="mini-other")])
    verify(root)
    file = next((root / "mini-other" / TRAIN).iterdir())
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(bytes(data))
    check_complete(root)
    with pytest.raises(FedReIDError, match="mini-other"):
        verify(root)


def test_unwritable_folder(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(FedReIDError, match="FEDREID_PL_CACHE") as caught:
        ensure_minireid(blocked / "minireid", domains=[MINIATURE])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_full_disk_leaves_no_files(tmp_path: Path, processes: int) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    # files of more than 900 bytes fail; the workers inherit both settings
    resource.setrlimit(resource.RLIMIT_FSIZE, (900, before[1]))
    try:
        with pytest.raises(FedReIDError, match=r"data\.minireid_dir"):
            ensure_minireid(tmp_path / "minireid", processes, domains=[VIPER, MINIATURE])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert os.listdir(tmp_path) == []


def test_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDREID_PL_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache_folder() == Path("/a")
    monkeypatch.delenv("FEDREID_PL_CACHE")
    assert cache_folder() == Path("/b/fedreid_pl")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "fedreid_pl"


def test_contact_sheet(written: Path, tmp_path: Path) -> None:
    path = contact_sheet(written, tmp_path / "new" / "sheet.png", identities=4)
    with Image.open(path) as sheet:
        sheet.load()
        assert sheet.format == "PNG" and sheet.width > 800
        assert len(set(sheet.convert("L").tobytes())) > 100
    with pytest.raises(FedReIDError, match="contains no folder <domain>"):
        contact_sheet(tmp_path, tmp_path / "sheet.png")


def test_raw_pixels_do_not_solve_a_large_domain() -> None:
    # a trained model exceeds 0.6 there, because it learns invariance to cameras
    domain = DOMAINS["mini-cuhk03np"]
    studio = Studio(domain)

    def rows(folder: str) -> tuple[np.ndarray, np.ndarray]:
        shots = [shot for shot in schedule(domain) if shot.path.startswith(folder + "/")]
        pictures = np.stack([np.asarray(studio.take(shot).resize((32, 64))).ravel() for shot in shots])
        pixels = pictures.astype(np.float32)
        pixels -= pixels.mean(axis=1, keepdims=True)
        return pixels / np.linalg.norm(pixels, axis=1, keepdims=True), np.array(planned(domain, folder))

    (asked, query), (offered, gallery) = rows(QUERY), rows(GALLERY)
    similarity = asked @ offered.T
    same = query[:, None, 0] == gallery[None, :, 0]
    similarity[same & (query[:, None, 1] == gallery[None, :, 1])] = -2
    rank1 = np.take_along_axis(same, similarity.argmax(axis=1)[:, None], axis=1).mean()
    assert rank1 < 0.2


def test_names_match_the_real_pattern() -> None:
    pattern = re.compile(r"^(\d{4}|-1)_c\d{1,2}s\d_\d{6}_\d{2}\.jpg$")
    for domain in (*DOMAINS.values(), PUBLIC):
        assert all(pattern.match(shot.path.split("/")[1]) for shot in schedule(domain))
