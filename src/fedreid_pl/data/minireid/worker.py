"""`python -m fedreid_pl.data.minireid.worker`: draws the jobs read from standard input, see `writer`."""

from __future__ import annotations

import json
import pickle
import sys

from fedreid_pl.data.minireid.writer import draw_job


def main() -> None:
    """Reads pickled (root, domains, jobs) from the writer, draws the jobs and prints one line of JSON per job."""
    root, domains, jobs = pickle.load(sys.stdin.buffer)
    for job in jobs:
        try:
            answer = {"job": job, "digests": draw_job(root, domains, job)}
        except OSError as error:
            answer = {"errno": error.errno, "error": error.strerror, "file": error.filename}
        # if the writer is killed, the pipe breaks and the worker ends too
        print(json.dumps(answer), flush=True)
        if "errno" in answer:
            return


if __name__ == "__main__":
    main()
