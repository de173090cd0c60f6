"""Run folders that released formats have left: each is read, and a run goes on from each.

`formats/formatN.tar.gz` holds a run of one round that the last code of format N wrote (`exp=fedpav`, two datasets of
the tiny benchmark, `model.feature_dim=8`). The server's weights were set to a repeating pattern before that code saved
them, so that the archive is small.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
import support

from fedreid_pl.cli import main
from fedreid_pl.federation.storage import VERSION, read_state

FORMATS = sorted((Path(__file__).parent / "formats").glob("*.tar.gz"))


@pytest.fixture(params=FORMATS, ids=lambda path: path.name.partition(".")[0])
def released(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The folder of a run of one released format."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = (item for item in tmp_path.iterdir() if item.is_dir())
    return folder


def test_every_earlier_format_has_a_run() -> None:
    assert [path.name for path in FORMATS] == [f"format{number}.tar.gz" for number in range(1, VERSION)]


def test_a_released_run_is_read_and_goes_on(
    released: Path, tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["report", str(released)]) == 0
    assert "mini-ilids" in (released / "report.html").read_text()
    assert main(["evaluate", f"run={released}", f"data.root={tiny_root}"]) == 0
    assert "mini-ilids" in capsys.readouterr().out
    words = ["model.feature_dim=8", "report.images=false", "data.datasets=[mini-viper,mini-ilids]"]
    words = support.quick(tiny_root, tmp_path / "new", "exp=fedpav", "trainer.accelerator=cpu", *words)
    code = main(["train", *words, f"resume={released}"])
    said = capsys.readouterr().err
    if code:  # a default has changed since, and the run would no longer be one experiment
        assert code == 2 and "was made with defaults=" in said and "Traceback" not in said
    else:
        head = read_state(tmp_path / "new" / "clients" / "mini-viper" / "round-00001.pt")["head"]
        kept = read_state(released / "clients" / "mini-viper" / "round-00001.pt")["head"]
        assert all((head[name] == kept[name]).all() for name in kept), "what the clients kept is taken over"
        assert read_state(tmp_path / "new" / "checkpoints" / "round-00002.ckpt")["round"] == 2
