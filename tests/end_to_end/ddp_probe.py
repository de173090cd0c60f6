"""Runs experiments one after the other in every process, then reports the process's results and written files.

python ddp_probe.py REPORT_FOLDER EXPERIMENTS.json

The second file maps a name to the words of an experiment.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

from fedreid_pl.config import compose
from fedreid_pl.experiment import train

written: list[str] = []


def watch(event: str, arguments: tuple) -> None:
    if (event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")) or event in (
        "os.rename",
        "os.remove",
        "os.mkdir",
    ):
        written.append(str(arguments[0]))


report, experiments = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
sys.addaudithook(watch)
facts = {}
for name, words in experiments.items():
    config = compose(words)
    folder = str(config.output_dir)
    loop = train(config, Path(folder))
    digest = hashlib.sha256()
    for model, state in [*sorted(loop.context.models.items()), ("lent", loop.engine.worker.backbone.state_dict())]:
        for key, value in sorted(state.items()):
            digest.update(f"{model} {key}".encode() + value.numpy().tobytes())
    facts[name] = {
        "digest": digest.hexdigest(),
        "history": loop.context.history.to_csv(),
        "rounds": loop.context.round,
        "written": [path for path in written if folder in path],
    }
rank = int(os.environ.get("LOCAL_RANK", "0"))
(report / f"rank{rank}.json").write_text(json.dumps(facts))
