"""Decrypts all traffic of silos at a proxy: it contains no image, name, folder or head."""

from __future__ import annotations

from pathlib import Path

import pytest
from reliability.canaries import PLACE, Canaries, mark, watch
from silos.parties import coordinator_words, make_parties
from silos.wire import Proxy, frames, free_port, serving
from support import TINY, write_tiny

from fedreid_pl.cli import main

SECRET_FOLDER = f"{PLACE}-ward"
USER = "canary-user-Hx55"


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny benchmark with names, persons and folders that a search of the traffic can find."""
    root = write_tiny(tmp_path_factory.mktemp("data") / PLACE)
    mark(root)
    for name in TINY:
        (root / name).rename(root / f"{SECRET_FOLDER}-{name}")
    return root


SLOW = [pytest.param(exp, marks=pytest.mark.system) for exp in ("fedpav_cc_rw", "scaffold")]


@pytest.mark.parametrize("exp", ["fedpav_kd_rw", *SLOW])
def test_bytes_at_the_proxy_contain_no_private_data_of_a_silo(
    exp: str, marked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canaries = Canaries()
    for name in TINY:
        canaries.add_pictures(marked / f"{SECRET_FOLDER}-{name}", every=5)
    canaries.add_text("a user", USER)
    canaries.add_text("a path", SECRET_FOLDER)
    for variable in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(variable, USER)
    watch(monkeypatch, canaries)
    federation, silos = make_parties(tmp_path / PLACE, ["a", "b", "c"], port=free_port())
    folders = {name: f"{SECRET_FOLDER}-{folder}" for name, folder in zip(silos, TINY, strict=True)}
    monkeypatch.setattr(
        "silos.parties.silo_words",
        lambda root, name: ["data.source=folder", f"data.root={root}", f"data.datasets=[{folders[name]}]"],
    )
    proxy = Proxy(federation, silos, tmp_path / "proxy")
    words = coordinator_words(
        marked, tmp_path / "run", federation, f"exp={exp}", "rounds=2", "min_clients=3", "report.images=false"
    )
    try:
        with serving(silos, marked, f"https://localhost:{proxy.port}"):
            assert main(["train", *words]) == 0
    finally:
        proxy.close()

    from_silos = {name: bytes(data) for name, data in proxy.seen.items() if name.endswith("from a silo")}
    streams = {f"{name}, {number}": data for name, raw in from_silos.items() for number, data in frames(raw).items()}
    updates = [data for data in streams.values() if b'"kind":"update"' in data or b"update" in data[:20_000]]
    assert len(from_silos) >= 3 and len(updates) >= 6, "the proxy decrypted the updates"
    kinds = set(canaries.needles.values())
    assert kinds == {"a path", "a user", "an identity", "an image file", "pixels", "a feature", "logits", "a head"}
    assert len(canaries.needles) > 3000
    assert canaries.find({**from_silos, **streams}) == []
    weights = next(data for data in updates if len(data) > 100_000)
    planted = next(needle for needle, what in canaries.needles.items() if what == "a head")
    assert canaries.find({"planted": weights[:5000] + planted + weights[5000:]}) == [("a head", "planted")]
