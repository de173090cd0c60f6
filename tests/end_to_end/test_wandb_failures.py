"""wandb without network, valid key, home, disk space or service: the run continues or stops with one line."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import support
from wandb_records import assert_complete, run_file

from fedreid_pl.cli import main
from fedreid_pl.reporting.wandb_place import becomes_whole, is_whole

pytestmark = pytest.mark.system

KEY = "0" * 40


class Refusing(BaseHTTPRequestHandler):
    """A wandb server that refuses every key."""

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b'{"errors": [{"message": "user is not logged in"}]}'
        self.send_response(401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = answer

    def log_message(self, *arguments: object) -> None:
        """Prints no log line."""


@pytest.fixture
def refusing() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def train(root: Path, folder: Path, *words: str, **env: str | None) -> subprocess.CompletedProcess:
    """Trains in a separate process; the value `None` removes a variable from its environment."""
    kept = {name: value for name, value in os.environ.items() if name not in ("WANDB_SERVICE", "WANDB_MODE")}
    kept = {name: value for name, value in {**kept, "NETRC": "/dev/null", **env}.items() if value is not None}
    quick = support.quick(root, folder, "exp=fedpav", "logger=wandb", "rounds=1", *words)
    command = [sys.executable, "-m", "fedreid_pl", "train", *quick]
    return subprocess.run(
        command, env=kept, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, cwd=folder.parent
    )


def warnings(done: subprocess.CompletedProcess) -> list[str]:
    """Returns the unusual lines on stderr, such as a traceback or a service's log."""
    usual = ("fedpav: ", "round ", "resumed after ")
    lines = [line for line in done.stderr.splitlines() if not line.startswith(usual)]
    return [line for line in lines if "decoded into memory" not in line]


def test_an_unreachable_server_gives_one_warning(tiny_root: Path, tmp_path: Path) -> None:
    nobody = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": KEY, "WANDB_MODE": "online"}
    done = train(tiny_root, tmp_path / "run", **nobody, WANDB_INIT_TIMEOUT="3")
    assert done.returncode == 0, done.stderr
    (line,) = warnings(done)
    assert line.startswith("warning: wandb cannot be reached") and "is logged offline" in line
    assert_complete(tmp_path / "run")
    assert not list((tmp_path / "run" / "wandb").glob("run-*")), "the failed attempt leaves no folder"


def test_a_wrong_key_gives_one_warning(refusing: str, tiny_root: Path, tmp_path: Path) -> None:
    done = train(tiny_root, tmp_path / "run", WANDB_BASE_URL=refusing, WANDB_API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    (line,) = warnings(done)
    assert line.startswith("warning: wandb cannot be reached") and KEY not in line
    assert_complete(tmp_path / "run")


@pytest.mark.parametrize("home", ["/dev/null", None])
def test_without_a_home(home: str | None, tiny_root: Path, tmp_path: Path) -> None:
    """Even root cannot write below a file; tables and the checkpoint are staged beside the run."""
    done = train(tiny_root, tmp_path / "run", "wandb.artifact=true", HOME=home)
    assert done.returncode == 0 and warnings(done) == [], done.stderr
    assert_complete(tmp_path / "run")
    assert not (tmp_path / ".wandb_cache").exists()


def test_online_mode_without_a_login_does_not_prompt(tiny_root: Path, tmp_path: Path) -> None:
    done = train(tiny_root, tmp_path / "run", WANDB_MODE="online", HOME=str(tmp_path))
    assert done.returncode == 0
    (line,) = warnings(done)
    assert "there is no wandb login on this machine" in line
    assert_complete(tmp_path / "run")


def test_disabled_by_the_environment(tiny_root: Path, tmp_path: Path) -> None:
    done = train(tiny_root, tmp_path / "run", WANDB_MODE="disabled")
    assert done.returncode == 0 and warnings(done) == [] and not (tmp_path / "run" / "wandb").exists()


def test_a_full_disk_stops_the_run_without_loss(tiny_root: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here (needs root)")
    try:
        done = train(tiny_root, disk / "run", "rounds=3")
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        assert done.stderr.splitlines()[-1].startswith("error: ") and "intact" in done.stderr.splitlines()[-1]
        subprocess.run(["mount", "-o", "remount,size=300m", str(disk)], check=True)
        assert train(tiny_root, disk / "run", "rounds=3").returncode == 0
        assert_complete(disk / "run")
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_truncated_file_is_detected(tiny_root: Path, tmp_path: Path) -> None:
    assert train(tiny_root, tmp_path / "run").returncode == 0
    file = run_file(tmp_path / "run")
    assert is_whole(file)
    content = file.read_bytes()
    for size in (0, 5, 7, len(content) // 2, len(content) - 1):
        (tmp_path / "cut").write_bytes(content[:size])
        assert not is_whole(tmp_path / "cut"), size
    assert not becomes_whole(tmp_path / "cut", seconds=0.1) and not is_whole(tmp_path / "missing")


def test_a_failing_logger_does_not_stop_the_run(tiny_root: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise OSError("no room for logs")

    monkeypatch.setattr("fedreid_pl.reporting.wandb_run.wandb.init", broken)
    assert main(["train", *support.quick(tiny_root, tmp_path, "exp=fedpav", "logger=wandb")]) == 0
    assert "no room for logs" in capsys.readouterr().err
    assert (tmp_path / "summary.json").exists()


def test_numbers_are_logged_if_images_fail(tiny_root: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    def broken(*arguments: object) -> None:
        raise OSError("no such picture")

    monkeypatch.setattr("fedreid_pl.reporting.wandb_run.last_media", broken)
    assert main(["train", *support.quick(tiny_root, tmp_path, "exp=fedpav", "logger=wandb")]) == 0
    assert "no such picture" in capsys.readouterr().err
    assert_complete(tmp_path)


def test_the_run_continues_without_a_dead_service(tiny_root: Path, tmp_path: Path) -> None:
    """The test kills the service after the first round; training continues and ends without a traceback."""
    script = (
        "import os, signal, sys\n"
        "from fedreid_pl.cli import main\n"
        "from fedreid_pl.reporting.progress import ProgressLine\n"
        "before = ProgressLine.on_round_end\n"
        "def on_round_end(self, federation, records):\n"
        "    before(self, federation, records)\n"
        "    if federation.round == 1:\n"
        "        import wandb\n"
        "        os.kill(wandb.setup()._connection._proc._process.pid, signal.SIGKILL)\n"
        "ProgressLine.on_round_end = on_round_end\n"
        "sys.exit(main(['train', *sys.argv[1:]]))\n"
    )
    words = support.quick(tiny_root, tmp_path / "run", "exp=fedpav", "logger=wandb", "rounds=3")
    kept = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    command = [sys.executable, "-c", script, *words]
    done = subprocess.run(command, env=kept, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and 1 <= len(warnings(done)) <= 3, done.stderr
    assert '"complete": true' in (tmp_path / "run" / "summary.json").read_text()
    assert train(tiny_root, tmp_path / "run", "rounds=3").returncode == 0, "the same command logs the run again"
    assert_complete(tmp_path / "run")
