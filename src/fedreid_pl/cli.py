"""The command line: `fedreid-pl train | compare | evaluate | embed | search | export | report | ...`."""

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
fedreid-pl train dry_run=true [...]                       check everything, print clients and rates, write nothing
fedreid-pl compare exps="EXP EXP+KEY=VALUE ..." [seeds="0 1 2"] [splits=10] [jobs=N] [statistic=last|best3|best]
                   [baseline=NAME] [leave_out=each|NAME,NAME] [out=FOLDER] [KEY=VALUE ...]
                   trains what is missing; tables over seeds, differences to the baseline with intervals
fedreid-pl study NAME [groups=NAME,NAME] [jobs=N] [small=true] [keep=true] [results=FILE.csv] [dry_run=true] [KEY=VALUE]
                   trains the missing runs of a study, keeps a row of each and deletes its folder
fedreid-pl sweep exp=NAME KEY=V1,V2 [KEY2=V1,V2 ...] data.val_ids=0.1 [seeds=0,1,2] [jobs=N] [statistic=last|best]
                   [test=true] [out=FILE.csv] [KEY=VALUE ...]  try all combinations, choose on validation persons
fedreid-pl evaluate run=FOLDER [checkpoint=best|last|PATH] [KEY=VALUE ...]    score the models of a run
fedreid-pl evaluate run=FOLDER data=NAME data.root=FOLDER [splits=10]         the same on a dataset it never saw
fedreid-pl embed RUN FOLDER out=FILE.safetensors|.npz|.parquet                features of the pictures of a folder
fedreid-pl search RUN GALLERY QUERY [k=10] [page=FILE.html] [rerank=true]     find the person of a picture in a gallery
fedreid-pl export RUN out=FILE.onnx|.torchscript|.pt2|.safetensors            the model as a file for other programs
fedreid-pl report FOLDER ... [out=FILE.html]                                  one page about a run, runs, a comparison
fedreid-pl report FOLDER report.images=true|false [report.KEY=VALUE ...]      look into the run's last models again
fedreid-pl figure FOLDER ... [columns=1|2] [out=FOLDER]                       figures for papers, PNG and PDF
fedreid-pl data [show] [data=NAME] [out=FILE.png] [KEY=VALUE ...]             count (show: draw) the pictures
fedreid-pl data check [data=NAME] [data.root=FOLDER] [json=FILE.json]         are the datasets there and readable
fedreid-pl data cache [clear] [data.cache_dir=FOLDER]                         what is kept of pictures, and how much
fedreid-pl methods [NAME] [out=FILE.md]                                       what each method exchanges and needs
fedreid-pl dashboard run=FOLDER|data=NAME [out=FILE.json] [KEY=VALUE ...]     a wandb workspace of comparisons
fedreid-pl silo [init|check|run] ...                          take part in a federation across parties; alone: its help
fedreid-pl federation [init|add|revoke|status] ...            coordinate a federation across parties; alone: its help
fedreid-pl flower out=APP                                     the same on a SuperLink of Flower; alone: its help
fedreid-pl train --help                                                       every key with its default
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
"""By name; each imports torch and Lightning, which take seconds, only when its words are known to be right."""


class Interrupted(BaseException):
    """Ctrl-C or a termination signal; not a KeyboardInterrupt, which Lightning would turn into exit(1)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 done, 2 a mistake to mend, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if sys.platform == "win32":  # files are locked and signals are sent in other ways there
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
        complain(f"error: {printable(str(error.filename))}: the name is longer than the name of a file may be")
        return 2
    except Interrupted:
        complain("interrupted; the rounds done so far are saved, the same command goes on from there")
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
        return COMMANDS[command]([])  # which explains itself
    if {"-h", "--help"} & set(rest):
        print(_help(), end="")
        return 0
    return COMMANDS[command](as_words(rest))


def _command_hint(command: str, rest: list[str]) -> str:
    """What to type where the name of the command was left out."""
    if command.startswith("--") or "=" in (command, *rest)[:2] or "=" in command:
        return f"; write fedreid-pl train {' '.join([command, *rest])}"
    if command in available("exp"):
        return f"; write fedreid-pl train exp={' '.join([command, *rest])}"
    return nearest(command, list(COMMANDS))


def _help() -> str:
    rows = describe()
    width = max(len(name) for name, _, _ in rows)
    lines = [f"  {name:<{width}}  {text} [{default}]" for name, default, text in rows]
    chosen = "".join(f"  {kind:<5} {', '.join(available(kind))}, or a YAML file\n" for kind in ("exp", "data"))
    return USAGE + "\n" + chosen + "\nkeys [schema default; the chosen files set others]:\n" + "\n".join(lines) + "\n"


def _interrupt(number: int, frame: FrameType | None) -> None:
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, signal.SIG_IGN)  # the first one is being dealt with
    raise Interrupted


if __name__ == "__main__":
    sys.exit(main())
