"""Ten kills at random instants; `make soak` makes a hundred with the same script."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import support
from reliability.kills import PHASES, differences, table

from fedreid_pl.cli import main
from fedreid_pl.federation.storage import read_state, write_state

pytestmark = pytest.mark.system


def test_ten_kills_and_every_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    script, report = Path(__file__).with_name("kills.py"), tmp_path / "report.json"
    command = [sys.executable, str(script), "kills=10", "seed=0", f"json={report}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    found = json.loads(report.read_text())
    assert len(found["kills"]) == 10 and found["wrong"] == []
    assert {kill["how"] for kill in found["kills"]} == {"point", "time"}
    assert len({kill["exp"] for kill in found["kills"]}) == 2
    assert len({kill["point"].split(":")[0] for kill in found["kills"]}) >= 5, "kills in at least five phases"


def test_a_difference_is_found(tiny_root: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        assert main(["train", "exp=fedpav", *support.quick(tiny_root, folder, "rounds=1")]) == 0
    assert differences(one, other) == []
    file = other / "clients" / support.TINY[0] / "round-00001.pt"
    state, whole = read_state(file), file.read_bytes()
    state["head"]["weight"][0, 0] += 1e-6
    write_state(file, state)
    assert differences(one, other) == [str(file.relative_to(other))]
    file.write_bytes(whole)
    (other / ".metrics.csv.7.tmp").write_text("left over")
    shutil.copyfile(one / "splits.json", other / "summary-of-another.txt")
    text = (other / "metrics.csv").read_text()
    (other / "metrics.csv").write_text(text.replace("0", "1", 1))
    wanted = [".metrics.csv.7.tmp (only once)", "metrics.csv", "summary-of-another.txt (only once)"]
    assert differences(one, other) == wanted


def test_the_table_counts_every_kill() -> None:
    kills = [{"exp": "a", "how": "point", "point": f"{phase}: here"} for phase in PHASES]
    kills += [{"exp": "b", "how": "time", "point": "fit: a batch"}] * 3
    lines = table({"kills": kills}).splitlines()
    assert lines[-1] == "| sum | 9 | 0 | 0 | 3 | 12 |"
    assert next(line for line in lines if line.startswith("| fit")) == "| fit | 1 | 0 | 0 | 3 | 4 |"


@pytest.mark.parametrize("phase", PHASES)
def test_every_phase_has_a_point(phase: str) -> None:
    from reliability.points import CALLS, WRITES

    assert any(point.startswith(f"{phase}:") for point in CALLS) or phase in WRITES.values()
