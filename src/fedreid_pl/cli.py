"""The command line: `fedreid-pl train | compare | evaluate | data`."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from fedreid_pl import __version__
from fedreid_pl.config import Config, available, compose, describe, differences, fingerprint, load_config
from fedreid_pl.errors import FedReIDError, nearest

USAGE = """\
fedreid-pl train [exp=NAME|PATH.yaml] [data=NAME|PATH.yaml] [KEY=VALUE ...]   run an experiment
fedreid-pl compare exps="EXP EXP+KEY=VALUE ..." [seeds="0 1 2"] [jobs=N] [statistic=last|best3|best] [out=FOLDER]
                   [KEY=VALUE ...]                              train what is missing, print tables over seeds
fedreid-pl evaluate run=FOLDER [checkpoint=best|last|PATH] [KEY=VALUE ...]    score the models of a run
fedreid-pl data [show] [data=NAME] [out=FILE.png] [KEY=VALUE ...]             count (show: draw) the pictures
fedreid-pl data check [data=NAME] [data.root=FOLDER] [json=FILE.json]         are the datasets there and readable
fedreid-pl train --help                                                       every key with its default
"""


class Interrupted(BaseException):
    """Ctrl-C or a termination signal; not a KeyboardInterrupt, which Lightning would turn into exit(1)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 done, 2 a mistake to mend, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        return _dispatch(words)
    except FedReIDError as error:
        _complain(f"error: {error}")
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    except Interrupted:
        _complain("interrupted; the rounds done so far are saved, the same command goes on from there")
        return 130


def _dispatch(words: list[str]) -> int:
    commands: dict[str, Callable[[list[str]], int]] = {
        "train": _train,
        "compare": _compare,
        "evaluate": _evaluate,
        "data": _data,
    }
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if words[0] in ("-V", "--version"):
        print(f"fedreid_pl {__version__}")
        return 0
    command, *rest = words
    if command not in commands:
        raise FedReIDError(f"'{command}': no such command{nearest(command, list(commands))}")
    if {"-h", "--help"} & set(rest):
        print(_help(), end="")
        return 0
    return commands[command](rest)


def _train(words: list[str]) -> int:
    config = compose(words)
    folder = run_folder(config, words)
    from fedreid_pl.experiment import train  # torch and Lightning take seconds: not for a mistyped key
    from fedreid_pl.reporting.run_folder import build_summary, find_standalone
    from fedreid_pl.reporting.tables import result_table

    loop = train(config, folder)
    if loop.observers:
        summary = build_summary(loop)
        print(f"\n{_title(config, loop.round)}\n")
        print(result_table(summary, None if config.name == "local" else find_standalone(config, folder)))
        print(
            f"\nRank-1 and mAP in percent; curves in {folder / 'metrics.csv'}, all numbers in {folder / 'summary.json'}"
        )
    return 0


def _compare(words: list[str]) -> int:
    from fedreid_pl.comparison.plan import OPTIONS, make_plan

    plan = make_plan(*_take(words, *OPTIONS), run_folder)
    from fedreid_pl.comparison.compare import compare

    compare(plan)
    return 0


def _evaluate(words: list[str]) -> int:
    options, rest = _take(words, "run", "checkpoint")
    if "run" not in options:
        raise FedReIDError("evaluate: give the run's folder, run=FOLDER")
    folder = Path(options["run"]).expanduser()
    if not (folder / "config.yaml").is_file():
        raise FedReIDError(f"run={folder}: holds no run (no config.yaml)")
    config = load_config(folder / "config.yaml", rest)
    from fedreid_pl.experiment import evaluate
    from fedreid_pl.federation.history import summarize
    from fedreid_pl.federation.storage import read_state
    from fedreid_pl.reporting.run_folder import read_summary
    from fedreid_pl.reporting.tables import result_table
    from fedreid_pl.resume import find_checkpoint

    path = folder if (which := options.get("checkpoint", "last")) == "last" else Path(which).expanduser()
    if which == "best":
        best = (read_summary(folder) or {}).get("best_round")
        path = folder / "checkpoints" / f"round-{best or 0:05d}.ckpt"
    state = read_state(find_checkpoint(path))
    loop = evaluate(config, folder, state)
    if _first_process():
        scores = {section: summarize(loop.history, section) for section in ("global", "local")}
        print(f"{_title(config, state['round'])}\n")
        print(result_table({"name": config.name, **scores}))
    return 0


def _data(words: list[str]) -> int:
    if words[:1] == ["check"]:
        return _check_data(words[1:])
    show = bool(words) and words[0] == "show"
    options, rest = _take(words[show:], "out")
    config = compose(rest)
    from fedreid_pl.data.scenarios import load_federated_data, locate_root
    from fedreid_pl.reporting.status import Status
    from fedreid_pl.reporting.tables import text_table

    status = Status()

    if show:
        from fedreid_pl.data.minireid import contact_sheet

        if config.data.source != "minireid":
            raise FedReIDError(f"data show: draws the embedded benchmark only, not data={config.data.name}")
        root = locate_root(config.data, status)
        status.done()
        print(contact_sheet(root, Path(options.get("out", "minireid.png"))))
        return 0
    data = load_federated_data(config.data, status)
    status.done()
    rows = []
    for client in data.clients.values():
        tests = data.tests_of(client.name).values()
        numbers = (
            client.train.num_identities(),
            len(client.train),
            len(set(client.train.cameras.tolist())),
            sum(test.query.num_identities() for test in tests),
            sum(len(test.query) for test in tests),
            sum(len(test.gallery) for test in tests),
        )
        rows.append([client.name, *(f"{number:,}" for number in numbers)])
    header = ["client", "train ids", "train images", "cameras", "query ids", "query images", "gallery images"]
    print(f"{locate_root(config.data)}{' (synthetic)' if config.data.synthetic else ''}\n")
    print(text_table(header, rows))
    if data.public is not None:
        print(f"\npublic set {data.public.name}: {len(data.public):,} images, labels are not used")
    return 0


def _check_data(words: list[str]) -> int:
    options, rest = _take(words, "json")
    if "json" in options and not Path(options["json"]).name:
        raise FedReIDError("data check: json= names no file, give json=FILE.json")
    config = compose(rest)
    from fedreid_pl.data.check import check_data
    from fedreid_pl.federation.storage import write_text
    from fedreid_pl.reporting.data_check import check_text, verdict
    from fedreid_pl.reporting.status import Status

    status = Status(after=10)
    check = check_data(config.data, status)
    status.done()
    print(check_text(check), flush=True)
    if "json" in options:
        write_text(Path(options["json"]).expanduser(), json.dumps(check.as_dict(), indent=2) + "\n")
    if not check.ok:
        raise FedReIDError(verdict(check))
    print(f"\n{verdict(check)}")
    return 0


def run_folder(config: Config, words: Sequence[str]) -> Path:
    """`output_dir`, or `runs/DATA/EXP/seedN`, with a few digits more where keys were set on the command line."""
    if config.output_dir:
        return Path(config.output_dir).expanduser()
    plain = compose([word for word in words if word.startswith(("exp=", "data="))])
    plain.seed = config.seed
    suffix = f"-{fingerprint(config)[:6]}" if differences(plain, config) else ""
    return Path("runs") / config.data.name / config.name / f"seed{config.seed}{suffix}"


def _take(words: Sequence[str], *names: str) -> tuple[dict[str, str], list[str]]:
    options = {word.partition("=")[0]: word.partition("=")[2] for word in words if word.partition("=")[0] in names}
    return options, [word for word in words if word.partition("=")[0] not in names]


def _title(config: Config, round: int) -> str:
    kind = " (synthetic data)" if config.data.synthetic else ""
    return f"{config.name} on {config.data.name}{kind}, seed {config.seed}, after round {round} of {config.rounds}"


def _help() -> str:
    rows = describe()
    width = max(len(name) for name, _, _ in rows)
    lines = [f"  {name:<{width}}  {text} [{default}]" for name, default, text in rows]
    chosen = "".join(f"  {kind:<5} {', '.join(available(kind))}, or a YAML file\n" for kind in ("exp", "data"))
    return USAGE + "\n" + chosen + "\nkeys [schema default; the chosen files set others]:\n" + "\n".join(lines) + "\n"


def _complain(text: str) -> None:
    if _first_process():
        print(text, file=sys.stderr, flush=True)


def _first_process() -> bool:
    return os.environ.get("RANK", "0") == "0" and os.environ.get("LOCAL_RANK", "0") == "0"


def _interrupt(number: int, frame: FrameType | None) -> None:
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, signal.SIG_IGN)  # the first one is being dealt with
    raise Interrupted


if __name__ == "__main__":
    sys.exit(main())
