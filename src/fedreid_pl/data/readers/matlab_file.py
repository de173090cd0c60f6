"""Loads MATLAB files with scipy, protected against damaged files that crash the reading process."""

from __future__ import annotations

import importlib
import os
import time
import warnings
from pathlib import Path
from typing import Any

from fedreid_pl.errors import FedReIDError

PATIENCE = 60.0  # time limit of the trial in seconds


def load_matlab(file: Path, *names: str) -> dict[str, Any]:
    """Returns the variables `names` of a MATLAB file as scipy loads them; all variables if no name is given.

    On some damaged files, scipy's compiled reader corrupts memory without an exception. Therefore a forked copy of this
    process reads the file first.

    Raises:
        ImportError: if scipy is not installed.
        FedReIDError: if the copy crashed or exceeded the time limit.
        Exception: scipy raises various exceptions for other damaged files.
    """
    matlab = importlib.import_module("scipy.io")
    wanted = list(names) or None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of a fork with threads; this copy only reads a file
        trial = os.fork()
    if trial == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            matlab.loadmat(file, variable_names=wanted)
        finally:
            os._exit(0)  # an exception occurs again in the parent process, which raises it
    if _status(trial) != 0:
        raise FedReIDError(f"{file}: is damaged: reading it would end the program; get it again")
    return matlab.loadmat(file, variable_names=wanted)


def _status(process: int) -> int:
    """Returns the exit status of a process (0 for success), and kills the process after the time limit."""
    limit = time.monotonic() + PATIENCE
    while time.monotonic() < limit:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.001)
    os.kill(process, 9)
    return os.waitpid(process, 0)[1]
