"""Runs the commands of docs/run_a_federation.md on three hosts and compares the output with the page."""

from __future__ import annotations

import ast
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from silos import namespaces

PAGE = Path(__file__).parents[2] / "docs" / "run_a_federation.md"
SOURCE = Path(__file__).parents[2] / "src" / "fedreid_pl"
HOSTS = ["coordinator", "hospital-a", "hospital-b"]
LIMIT = 240.0  # seconds until a host has printed what the page shows, on a busy machine
Block = tuple[str, str, str]


def blocks() -> Iterator[Block]:
    """Returns (kind, host, text) of every block of the page that names a host or copies files between hosts."""
    for kind, host, text in re.findall(r"^```(\w+) ?([\w-]*)\n(.*?)^```", PAGE.read_text(), re.M | re.S):
        if host in HOSTS or kind == "send":
            yield kind, host, text


def masked(text: str) -> str:
    """Removes what differs between runs (numbers, keys, times, torch's build) and repeated spaces."""
    text = re.sub(r"  (?:[0-9]+ \w+ ?)+left|\+(?:cpu|cu[0-9]+)\b|---+", "", text)
    plain = re.sub(r"\b[0-9a-f]{4}(?:-[0-9a-f]{4})+\b|\b[0-9a-f]{12,}\b", "#", text)
    return " ".join(re.sub(r"[0-9]+(?:[.,:][0-9]+)*", "#", plain).split())


def test_the_page_names_every_host() -> None:
    found = list(blocks())
    assert {host for _, host, _ in found if host} == set(HOSTS)
    assert sum(kind == "sh" for kind, _, _ in found) >= 8


@pytest.mark.system
@pytest.mark.skipif(namespaces.missing() is not None, reason=str(namespaces.missing()))
def test_the_commands_of_the_page_work_unchanged(tmp_path: Path) -> None:
    hosts = namespaces.Hosts(HOSTS, "fl.example.org")
    running: dict[str, subprocess.Popen] = {}
    log = {name: tmp_path / f"{name}.log" for name in HOSTS}
    try:
        for number, (kind, host, text) in enumerate(blocks()):
            if kind == "send":
                wait(running)
                for line in text.splitlines():
                    sender, source, receiver, target = re.split(r":| -> ", line)
                    hosts.carry(sender, source, receiver, target)
            elif kind == "sh":
                if host in running and stays(running[host]):
                    wait({host: running.pop(host)})
                log[host] = tmp_path / f"{number:02}-{host}.log"
                running[host] = hosts.start(host, text, log[host])
            else:
                shows(log[host], text, running[host])
    finally:
        hosts.close()


def stays(process: subprocess.Popen) -> bool:
    return process.poll() is None


def wait(running: dict[str, subprocess.Popen]) -> None:
    """Waits until the commands have ended; on the page, all of them end before files are copied."""
    for host, process in running.items():
        assert process.wait(LIMIT) == 0, f"{host}: {process.args}"


def shows(log: Path, text: str, process: subprocess.Popen) -> None:
    """Waits until a host has printed all lines of a block of the page."""
    wanted = [masked(line) for line in text.splitlines() if line.strip(" .")]
    end = time.monotonic() + LIMIT
    while True:
        over, found = process.poll(), masked(log.read_text())
        missing = [line for line in wanted if line not in found]
        if not missing:
            return
        if over is not None or time.monotonic() > end:
            raise AssertionError(f"{missing} is not in what was printed (exit code {over}):\n{log.read_text()}")
        time.sleep(0.3)


def literals() -> str:
    """Returns every string of the source, with `...` for inserted values."""
    found = []
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values]
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_the_source_contains_the_messages_that_the_page_explains() -> None:
    table = PAGE.read_text().partition("## What to do when")[2]
    messages = [match for match in re.findall(r"^\| `([^`]+)`", table, re.M)]
    known = literals()
    assert len(messages) >= 15
    assert [message for message in messages if message not in known] == []
