"""Files in MATLAB's format, which scipy reads; a damaged one can end the process that reads it."""

from __future__ import annotations

import importlib
import os
import time
import warnings
from pathlib import Path
from typing import Any

from fedreid_pl.errors import FedReIDError

PATIENCE = 60.0  # seconds that a trial may take


def load_matlab(file: Path, *names: str) -> dict[str, Any]:
    """Returns the variables of a MATLAB file as scipy gives them, all of them without `names`.

    scipy's compiled reader writes to wrong memory on some damaged files, which no exception tells. So a copy of this
    process reads the file first.

    Raises:
        ImportError: if scipy is not installed.
        FedReIDError: if the copy did not survive the file.
        Exception: whatever scipy raises on a file that is damaged otherwise.
    """
    matlab = importlib.import_module("scipy.io")
    wanted = list(names) or None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of copies of a process with threads; this one only reads
        trial = os.fork()
    if trial == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            matlab.loadmat(file, variable_names=wanted)
        finally:
            os._exit(0)  # an exception is raised again where it can be told
    if _status(trial) != 0:
        raise FedReIDError(f"{file}: is damaged: reading it would end the program; get it again")
    return matlab.loadmat(file, variable_names=wanted)


def _status(process: int) -> int:
    """The way in which a process ended, 0 as it should; it is ended where it takes too long."""
    limit = time.monotonic() + PATIENCE
    while time.monotonic() < limit:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.001)
    os.kill(process, 9)
    return os.waitpid(process, 0)[1]
