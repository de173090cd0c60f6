"""`python -m fedreid_pl.data.minireid.worker`: draws the jobs read from standard input, see `writer`."""

from __future__ import annotations

import json
import pickle
import sys

from fedreid_pl.data.minireid.writer import draw_job


def main() -> None:
    """Read (root, domains, jobs), pickled by the writer; answer one line of JSON per finished job."""
    root, domains, jobs = pickle.load(sys.stdin.buffer)
    for job in jobs:
        try:
            answer = {"job": job, "digests": draw_job(root, domains, job)}
        except OSError as error:
            answer = {"errno": error.errno, "error": error.strerror, "file": error.filename}
        # a writer that was killed breaks this pipe, which ends the worker too
        print(json.dumps(answer), flush=True)
        if "errno" in answer:
            return


if __name__ == "__main__":
    main()
