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
from fedreid_pl.commands.methods import methods
from fedreid_pl.commands.report import report
from fedreid_pl.commands.search import search
from fedreid_pl.commands.silo import silo
from fedreid_pl.commands.streams import flush, settle_streams
from fedreid_pl.commands.study import study
from fedreid_pl.commands.sweep import sweep
from fedreid_pl.commands.train import train
from fedreid_pl.commands.words import complain
from fedreid_pl.config import available, describe
from fedreid_pl.config.launch import ignore_leftovers
from fedreid_pl.errors import FedReIDError, nearest, printable

USAGE = """\
fedreid-pl train [exp=NAME|PATH.yaml] [data=NAME|PATH.yaml] [KEY=VALUE ...]   run an experiment
fedreid-pl train dry_run=true [...]                       check the configuration, print the plan, write nothing
fedreid-pl compare exps="EXP EXP+KEY=VALUE ..." [seeds="0 1 2"] [splits=10] [jobs=N] [statistic=last|best3|best]
                   [baseline=NAME] [leave_out=each|NAME,NAME] [out=FOLDER] [KEY=VALUE ...]
                   train missing runs, compare over seeds, test differences to the baseline
fedreid-pl study NAME [groups=NAME,NAME] [jobs=N] [small=true] [keep=true] [results=FILE.csv] [dry_run=true] [KEY=VALUE]
                   train the missing runs of a study, save one row per run, delete the run folders
fedreid-pl sweep exp=NAME KEY=V1,V2 [KEY2=V1,V2 ...] data.val_ids=0.1 [seeds=0,1,2] [jobs=N] [statistic=last|best]
                   [test=true] [out=FILE.csv] [KEY=VALUE ...]  try all combinations, choose on validation persons
fedreid-pl evaluate run=FOLDER [checkpoint=best|last|PATH] [KEY=VALUE ...]    evaluate the models of a run
fedreid-pl evaluate run=FOLDER data=NAME data.root=FOLDER [splits=10]         evaluate a run on an unseen dataset
fedreid-pl embed RUN FOLDER out=FILE.safetensors|.npz|.parquet                save the features of a folder of pictures
fedreid-pl search RUN GALLERY QUERY [k=10] [page=FILE.html] [rerank=true]     search a gallery for a person
fedreid-pl export RUN out=FILE.onnx|.torchscript|.pt2|.safetensors            export the model for other programs
fedreid-pl report FOLDER ... [out=FILE.html]                                  write a report of runs or a comparison
fedreid-pl report FOLDER report.images=true|false [report.KEY=VALUE ...]      evaluate the last models again and report
fedreid-pl figure FOLDER ... [columns=1|2] [out=FOLDER]                       draw figures for papers, PNG and PDF
fedreid-pl data [show] [data=NAME] [out=FILE.png] [KEY=VALUE ...]             count the pictures (show: draw samples)
fedreid-pl data check [data=NAME] [data.root=FOLDER] [json=FILE.json]         check the datasets
fedreid-pl data cache [clear] [data.cache_dir=FOLDER]                         show or clear the image cache
fedreid-pl methods [NAME] [out=FILE.md]                                       list the methods, or describe one
fedreid-pl dashboard run=FOLDER|data=NAME [out=FILE.json] [KEY=VALUE ...]     create a wandb workspace
fedreid-pl silo [init|check|run|leave] ...                    take part in a federation across organisations
fedreid-pl federation [init|add|revoke|status] ...            coordinate a federation across organisations
fedreid-pl flower out=APP                                     write an app for a federation on a Flower SuperLink
fedreid-pl silo | federation | flower                         print the help of the command
fedreid-pl train --help                                       print every key with its default
"""

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
        complain("interrupted; finished rounds are saved, repeat the command to resume")
        return 130


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if {"-V", "--version"} & set(words):
        print(f"fedreid_pl {__version__}")
        return 0
    command, *rest = words
    if command not in COMMANDS:
        raise FedReIDError(f"'{command}': no such command{_command_hint(command, rest)}")
    if {"-h", "--help"} & set(rest) and command in ("silo", "federation", "flower"):
        return COMMANDS[command]([])  # without words, these commands print their own help
    if {"-h", "--help"} & set(rest):
        print(_help(), end="")
        return 0
    return COMMANDS[command](as_words(rest))


def _command_hint(command: str, rest: list[str]) -> str:
    """Returns a hint for an unknown command, for example when the word `train` is missing."""
    if command.startswith("--") or "=" in (command, *rest)[:2] or "=" in command:
        return f"; write fedreid-pl train {' '.join([command, *rest])}"
    if command in available("exp"):
        return f"; write fedreid-pl train exp={' '.join([command, *rest])}"
    return nearest(command, list(COMMANDS))


def _help() -> str:
    rows = describe()
    width = max(len(name) for name, _, _ in rows)
    lines = [f"  {name:<{width}}  {text} Default: {default or 'empty'}." for name, default, text in rows]
    chosen = "".join(f"  {kind:<5} {', '.join(available(kind))}, or a YAML file\n" for kind in ("exp", "data"))
    return USAGE + "\n" + chosen + "\nkeys (exp=NAME and data=NAME change some defaults):\n" + "\n".join(lines) + "\n"


def _interrupt(number: int, frame: FrameType | None) -> None:
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, signal.SIG_IGN)  # ignore further signals while the first is handled
    raise Interrupted


if __name__ == "__main__":
    sys.exit(main())
