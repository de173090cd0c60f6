"""Hosts for a docs page: network namespaces, each with its own user and home, and a link to the first host."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

SRC = Path(__file__).parents[2] / "src"
TOOL = """\
#!/bin/sh
exec {python} -m fedreid_pl "$@"
"""
# users cannot read root's home, where the interpreter may be: mount a copy of /root with only the interpreter in it
SHOW_PYTHON = """\
set -e
mkdir -p {spare} && mount --bind {base} {spare}
case {base} in /root/*) mount -t tmpfs -o mode=755 none /root && mkdir -p {base} && mount --bind {spare} {base};; esac
exec runuser -u {user} -- env HOME={home} PATH={tools}:/usr/bin:/bin OMP_NUM_THREADS=1 \
  FEDREID_PL_CACHE={home}/cache sh -ec "cd {home}; . {script}"
"""


def missing() -> str | None:
    """Returns why this machine cannot create hosts, or `None` if it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if any(shutil.which(tool) is None for tool in ("ip", "runuser", "useradd", "userdel", "mount")):
        return "ip, runuser, useradd, userdel or mount is missing"
    if any(str(path).startswith("/root/") for path in (SRC, sys.executable)):
        return "other users cannot look into the home of root"
    if run("ip", "netns", "add", probe := f"fr-probe-{os.getpid()}", check=False):
        return "ip netns add is not allowed here"
    run("ip", "netns", "del", probe)
    return None


def run(*words: str, check: bool = True) -> int:
    """Runs a system command and returns its exit code."""
    return subprocess.run(words, check=check, capture_output=True).returncode


class Hosts:
    """Hosts by name: every host reaches the first one under `address`, and the others cannot reach each other.

    Args:
        names: of the hosts.
        address: name of the first one.
    """

    def __init__(self, names: list[str], address: str) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="fr-hosts-", dir="/var/tmp"))
        self.home.chmod(0o755)
        self.tag = f"fr{os.getpid() % 100000}"
        self.spaces = {name: f"{self.tag}-{number}" for number, name in enumerate(names)}
        self.users = {name: f"{self.tag}u{number}" for number, name in enumerate(names)}
        self.processes: list[subprocess.Popen] = []
        tools = self.home / "bin"
        tools.mkdir()
        for name, text in (("fedreid-pl", TOOL), ("python3", '#!/bin/sh\nexec {python} "$@"\n')):
            (tools / name).write_text(text.format(python=sys.executable))
            (tools / name).chmod(0o755)
        for name, user in self.users.items():
            run("useradd", "--no-create-home", "--home-dir", str(self.home / name), "--shell", "/bin/sh", user)
            self._own(name, self.home / name, folder=True)
            run("ip", "netns", "add", self.spaces[name])
            run("ip", "-n", self.spaces[name], "link", "set", "lo", "up")
        first, *others = names
        for number, name in enumerate(others, 1):
            ends = (f"{self.tag}c{number}", f"{self.tag}s{number}")
            run("ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
            for end, host, last in ((ends[0], first, 1), (ends[1], name, 2)):
                run("ip", "link", "set", end, "netns", self.spaces[host])
                run("ip", "-n", self.spaces[host], "addr", "add", f"10.213.{number}.{last}/24", "dev", end)
                run("ip", "-n", self.spaces[host], "link", "set", end, "up")
            names_file = Path("/etc/netns") / self.spaces[name] / "hosts"  # `ip netns exec` shows it as /etc/hosts
            names_file.parent.mkdir(parents=True)
            names_file.write_text(f"127.0.0.1 localhost\n10.213.{number}.1 {address}\n")

    def start(self, name: str, text: str, log: Path) -> subprocess.Popen:
        """Runs a shell script as the host's user in its home and writes the output to `log`."""
        script = self.home / f"{len(self.processes)}.sh"
        script.write_text(text + "\n")
        place = {"user": self.users[name], "home": self.home / name, "tools": self.home / "bin", "script": script}
        base, spare = Path(sys.base_prefix), self.home / "python"
        outer = SHOW_PYTHON.format(base=base, spare=spare, **place)
        with open(log, "ab") as file:
            words = ["ip", "netns", "exec", self.spaces[name], "sh", "-c", outer]
            process = subprocess.Popen(words, stdout=file, stderr=file, start_new_session=True)
        self.processes.append(process)
        return process

    def carry(self, sender: str, source: str, receiver: str, target: str) -> None:
        """Copies a file from one host to another, as a person would."""
        place = self.home / receiver / target
        self._own(receiver, place.parent, folder=True)
        shutil.copyfile(self.home / sender / source, place)
        self._own(receiver, place)

    def _own(self, name: str, path: Path, folder: bool = False) -> None:
        user = pwd.getpwnam(self.users[name])
        if folder:
            path.mkdir(mode=0o700, exist_ok=True)
        os.chown(path, user.pw_uid, user.pw_gid)

    def close(self) -> None:
        """Kills all processes, and removes users, namespaces and homes."""
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(60)
        for name, space in self.spaces.items():
            run("ip", "netns", "del", space, check=False)
            shutil.rmtree(Path("/etc/netns") / space, ignore_errors=True)
            run("userdel", self.users[name], check=False)
        shutil.rmtree(self.home, ignore_errors=True)
