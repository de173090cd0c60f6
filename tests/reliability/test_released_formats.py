"""Run folders of all released formats can be read and resumed.

`formats/formatN.tar.gz` contains a run of one round, written by the last release with format N (`exp=fedpav`, two
datasets of the tiny benchmark, `model.feature_dim=8`). Before saving, the server's weights were set to a repeating
pattern to make the archive small.
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
    """Returns the folder of a run in one released format."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = (item for item in tmp_path.iterdir() if item.is_dir())
    return folder


def test_every_earlier_format_has_a_run() -> None:
    assert [path.name for path in FORMATS] == [f"format{number}.tar.gz" for number in range(1, VERSION)]


def test_a_released_run_can_be_read_and_resumed(
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
    if code:  # a default has changed since, so the run cannot be resumed
        assert code == 2 and "was made with defaults=" in said and "Traceback" not in said
    else:
        head = read_state(tmp_path / "new" / "clients" / "mini-viper" / "round-00001.pt")["head"]
        kept = read_state(released / "clients" / "mini-viper" / "round-00001.pt")["head"]
        assert all((head[name] == kept[name]).all() for name in kept), "the clients' saved heads are loaded"
        assert read_state(tmp_path / "new" / "checkpoints" / "round-00002.ckpt")["round"] == 2
