"""Starts processes of the program quickly: imports all modules once, then forks one process for each input line.

A line is JSON: `{"words": [...], "log": FILE}` starts a process and prints its id; `{"reap": ID}` waits until the
process ends and prints its exit code, negative for a signal. At the end of the input all processes are killed.
Optional keys beside `words`: `spots` (arguments of `silos.spots.Spots`), `missed` (see `silos.absent`) and `proxy`
(the words are arguments of the proxy).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["WANDB_MODE"] = "offline"

import grpc  # noqa: F401  (imported once for all forks; no channel is created before a fork)
import torch
from silos import absent, tcp_proxy
from silos.spots import Spots

import fedreid_pl.coordination
import fedreid_pl.engines.silos.grpc_server
import fedreid_pl.engines.silos.runner  # noqa: F401
from fedreid_pl.cli import main


def start(words: list[str], log: str, **more: Any) -> int:
    """Forks a process that runs the command line; returns its id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0), os.dup2(target, 1), os.dup2(target, 2)
        torch.set_num_threads(1)
        if "spots" in more:
            control, who, pace = more["spots"]
            Spots(Path(control), who, pace).install()
        if "missed" in more:
            absent.install(more["missed"])
        code = tcp_proxy.main(words) if "proxy" in more else main(words)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def serve() -> None:
    """Reads lines until the input ends."""
    children: set[int] = set()
    for line in sys.stdin:
        asked = json.loads(line)
        if "words" in asked:
            answer = start(**asked)
            children.add(answer)
        else:
            _, status = os.waitpid(asked["reap"], 0)
            children.discard(asked["reap"])
            answer = os.waitstatus_to_exitcode(status)
        print(json.dumps(answer), flush=True)
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    serve()
