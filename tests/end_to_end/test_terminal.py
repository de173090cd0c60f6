"""Output of a real run in a pseudo-terminal of 40 and of 120 columns, and in a plain file."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
import support

pytestmark = pytest.mark.system

PATHS = re.compile(r"  (\S+/\S*|wandb sync \S+|fedreid-pl dashboard \S+)$")
"""Lines that the terminal may wrap: a path or command that users copy as a whole."""


class Screen:
    """A minimal terminal: carriage return, line feed, erase to the end of the line, and wrapping."""

    def __init__(self, width: int) -> None:
        self.width, self.lines, self.place = width, [""], 0
        self.wrapped: list[str] = []
        """Returns the lines that were wider than the screen."""

    def feed(self, text: str) -> None:
        for piece in re.findall(r"\r?\n|\r|\x1b\[K|[^\r\n\x1b]+|\x1b", text):
            if piece.endswith("\n"):
                self.lines.append("")
                self.place = 0
            elif piece == "\r":
                self.place = 0
            elif piece == "\x1b[K":
                self.lines[-1] = self.lines[-1][: self.place]
            else:
                assert piece != "\x1b", "an unknown control sequence"
                self.lines[-1] = self.lines[-1][: self.place] + piece
                self.place = len(self.lines[-1])
                if self.place > self.width:
                    self.wrapped.append(self.lines[-1])


def in_terminal(width: int, folder: Path, *words: str) -> tuple[Screen, str]:
    """Runs `train` in a terminal of this width; returns the screen and the raw output."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in ("WANDB_SERVICE", "COLUMNS")}
    process = subprocess.Popen(
        [sys.executable, "-m", "fedreid_pl", "train", *words],
        cwd=folder,
        env={**kept, "TERM": "xterm"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    written = b""
    while True:
        try:
            data = os.read(master, 4096)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        written += data
    os.close(master)
    assert process.wait(60) == 0, written.decode()
    screen = Screen(width)
    screen.feed(written.decode())
    return screen, written.decode()


def words(root: Path, *more: str) -> list[str]:
    return support.quick(root, Path("run"), "exp=fedpav_rw", "logger=wandb", "rounds=3", *more)


@pytest.mark.parametrize("width", [40, 120])
def test_nothing_wraps(width: int, tiny_root: Path, tmp_path: Path) -> None:
    screen, written = in_terminal(width, tmp_path, *words(tiny_root))
    assert [line for line in screen.wrapped if not PATHS.search(line)] == []
    shown = "\n".join(screen.lines)
    assert re.search(r"^round 3/3 .*R(ank-)?1 ", shown, re.MULTILINE) and "left" in shown
    assert "training mini" not in shown, "the progress line is erased after the round"
    client = r"training mini-viper 2/3" if width == 120 else r"2/3 mini-viper 2/3"
    assert re.search(client + r".* R(ank-)?1 .*\d+ s", written), "client, last score and remaining time"
    rows = [line.split() for line in screen.lines if line.startswith("mini-market1501")]
    assert len(rows) == (3 if width == 40 else 1) and sum(len(row) - 1 for row in rows) == 5
    assert "wandb sync run/wandb/offline-run-" in shown and "fedreid-pl dashboard run=run" in shown
    assert "run/metrics.csv" in shown


def test_a_plain_file_gets_whole_lines(tiny_root: Path, tmp_path: Path) -> None:
    done = support.run_cli("train", *words(tiny_root, "fidelity=code", "logger=csv"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    everything = done.stderr + done.stdout
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", everything)
    assert len([line for line in done.stderr.splitlines() if line.startswith("round ")]) == 3
    assert "wandb" not in done.stdout and done.stdout.rstrip().endswith("run/report.html")
    assert max(map(len, done.stderr.splitlines())) > 120, "lines of a file are not wrapped"


def test_differences_from_the_published_code_are_printed_as_sentences(tiny_root: Path, tmp_path: Path) -> None:
    screen, _ = in_terminal(40, tmp_path, *words(tiny_root, "fidelity=code", "logger=csv", "rounds=1"))
    assert [line for line in screen.wrapped if not PATHS.search(line) and " " in line.strip()] == []
    assert "settings in which the run follows the" in screen.lines
