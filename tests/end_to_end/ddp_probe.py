"""Run by test_ddp.py in every process: an experiment, then what this process holds and what it wrote.

python ddp_probe.py REPORT_FOLDER exp=... key=value ...
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


report, *words = sys.argv[1:]
config = compose(words)
folder = Path(str(config.output_dir))
sys.addaudithook(watch)
loop = train(config, folder)
touched = [path for path in written if str(folder) in path]
digest = hashlib.sha256()
for name, value in sorted(loop.models["global"].items()):
    digest.update(name.encode() + value.numpy().tobytes())
for name, value in sorted(loop.engine.worker.backbone.state_dict().items()):
    digest.update(name.encode() + value.numpy().tobytes())
rank = int(os.environ.get("LOCAL_RANK", "0"))
facts = {"digest": digest.hexdigest(), "history": loop.history.to_csv(), "written": touched}
(Path(report) / f"rank{rank}.json").write_text(json.dumps(facts))
