"""Implements the command line: `fedreid-pl train | compare | evaluate | embed | search | export | report | ...`."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType

from fedreid_pl import __version__
from fedreid_pl.commands.compare import compare
from fedreid_pl.commands.dashboard import dashboard
from fedreid_pl.commands.data import data
from fedreid_pl.commands.embed import embed
from fedreid_pl.commands.evaluate import evaluate
from fedreid_pl.commands.export import export
from fedreid_pl.commands.federation import federation
from fedreid_pl.commands.figure import figure
from fedreid_pl.commands.flower import flower
from fedreid_pl.commands.habits import as_words
from fedreid_pl.commands.help import help_of, overview
from fedreid_pl.commands.methods import methods
from fedreid_pl.commands.report import report
from fedreid_pl.commands.search import search
from fedreid_pl.commands.silo import silo
from fedreid_pl.commands.streams import flush, settle_streams
from fedreid_pl.commands.study import study
from fedreid_pl.commands.sweep import sweep
from fedreid_pl.commands.train import train
from fedreid_pl.commands.words import complain
from fedreid_pl.config import available
from fedreid_pl.config.launch import ignore_leftovers
from fedreid_pl.errors import FedReIDError, nearest, printable
from fedreid_pl.reporting.terminal import columns

COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": train,
    "compare": compare,
    "study": study,
    "sweep": sweep,
    "evaluate": evaluate,
    "embed": embed,
    "search": search,
    "export": export,
    "report": report,
    "figure": figure,
    "data": data,
    "methods": methods,
    "dashboard": dashboard,
    "silo": silo,
    "federation": federation,
    "flower": flower,
}
"""All commands by name. A command checks its words before it imports torch and Lightning, which takes seconds."""


class Interrupted(BaseException):
    """Raised on Ctrl-C or a termination signal. Lightning would turn a KeyboardInterrupt into exit(1)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 for success, 2 for an error of the user, 130 if interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if sys.platform == "win32":  # Windows locks files and sends signals differently
        complain("error: fedreid-pl does not run on Windows; use it in the Windows Subsystem for Linux (WSL)")
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    settle_streams()
    ignore_leftovers()
    return flush(_code(words))


def _code(words: list[str]) -> int:
    try:
        return _dispatch(words)
    except FedReIDError as error:
        complain(f"error: {error}")
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        complain(f"error: {printable(str(error.filename))}: this file name is too long; choose a shorter name")
        return 2
    except Interrupted:
        complain(_interrupted_line(words[0], words[1:2]))
        return 130


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        command, subcommand = (*words[1:], "", "")[:2]
        if command and command not in COMMANDS:
            raise FedReIDError(f"'{printable(command)}': no such command{nearest(command, list(COMMANDS))}")
        print(_help(command, subcommand), end="")
        return 0
    if {"-V", "--version"} & set(words):
        print(f"fedreid_pl {__version__}")
        return 0
    command, *rest = words
    if command not in COMMANDS:
        raise FedReIDError(f"'{command}': no such command{_command_hint(command, rest)}")
    if {"-h", "--help"} & set(rest):
        print(_help(command, rest[0]), end="")
        return 0
    return COMMANDS[command](as_words(rest))


def _command_hint(command: str, rest: list[str]) -> str:
    """Returns a hint for an unknown command, for example when the word `train` is missing."""
    if command.startswith("--") or "=" in (command, *rest)[:2] or "=" in command:
        return f"; write fedreid-pl train {' '.join([command, *rest])}"
    if command in available("exp"):
        return f"; write fedreid-pl train exp={' '.join([command, *rest])}"
    return nearest(command, list(COMMANDS))


def _interrupted_line(command: str, subcommand: list[str]) -> str:
    """Returns the line for an interrupted command, which says how to continue."""
    if command == "silo" and subcommand == ["run"]:
        return (
            "interrupted; to continue, repeat the command; to remove the silo from the current run, use "
            "fedreid-pl silo leave"
        )
    if command in ("silo", "federation"):
        return "interrupted; repeat the command"
    return "interrupted; finished rounds are saved, repeat the command to resume"


def _help(command: str, subcommand: str) -> str:
    if command not in COMMANDS:
        return overview()
    return help_of(command, subcommand, columns(sys.stdout))


def _interrupt(number: int, frame: FrameType | None) -> None:
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, signal.SIG_IGN)  # ignore further signals while the first is handled
    raise Interrupted


if __name__ == "__main__":
    sys.exit(main())
