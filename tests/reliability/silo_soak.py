"""Kills silos, coordinator and proxy of a federation of processes, and cuts its connections.

    python tests/reliability/silo_soak.py kills=30 partitions=10 attacks=10000 seed=0 [work=FOLDER] [json=FILE]
    python tests/reliability/silo_soak.py minutes=30 [work=FOLDER] [json=FILE]    # one run of 30 rounds

Three silos call the coordinator through a proxy (`silos/tcp_proxy.py`), each over a separate port; killed processes are
restarted. SIGKILL hits a silo, the coordinator or the proxy while a party pauses at a named spot of a phase
(`silos/spots.py`). Network partitions begin at such spots as well, for one silo or for all.

A run in which no silo missed a turn must end with the bits of an undisturbed run. In every third run a round ends
after a deadline with two silos, and a hit silo stays away until a round was saved without it. Such a run must have the
bits of a run in one process in which the same clients miss the same rounds, according to the ledger.

With `work`, results are saved in that folder, and the same command continues after an interruption.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import support
from reliability import attacks
from reliability.silo_federation import PARTS, Federation, References, differences, missed
from reliability.silo_torment import Incident, Torment, plan, runs
from silos.processes import Nursery
from silos.spots import PHASES
from silos.tcp_proxy import KINDS

ROUNDS, DEADLINE = 6, 15.0
EXPERIMENTS = ("scaffold", "fedpav_rw")


def one_run(
    number: int, incidents: list[Incident], nursery: Nursery, root: Path, work: Path, seed: int
) -> dict[str, Any]:
    """Disturbs a federation and lets it finish; returns the incidents, the missed turns and the differences."""
    draws, away = random.Random(f"{seed}/{number}"), number % 3 == 2
    exp = EXPERIMENTS[number % len(EXPERIMENTS)]
    words = (f"exp={exp}", f"rounds={ROUNDS}", "evaluate_every=2", f"min_clients={2 if away else 3}")
    words += (f"engine.deadline={DEADLINE}",) if away else ()
    begun, made = time.monotonic(), Federation(nursery, root, work / "federation", words)
    torment = Torment(made, draws, away)
    try:
        started = False
        for incident in incidents:
            torment.strike(incident, started)
            started = True
            if made.over:
                break
            made.wait(draws.uniform(0, 0.7))
        wrong, found = ended(made, References(nursery, root, work / "references"), words, ROUNDS, 2)
    except AssertionError as error:
        wrong, found = [f"the run makes no progress: {error}"], {}
    finally:
        made.stop()
    if not away and found:
        wrong.append(f"missed turns without a deadline: {found}")
    seconds = time.monotonic() - begun
    struck = [asdict(incident) for incident in torment.struck]
    return {"exp": exp, "incidents": struck, "missed": found, "wrong": wrong, "seconds": seconds}


def ended(
    made: Federation, references: References, words: tuple[str, ...], rounds: int, every: int
) -> tuple[list[str], dict[str, Any]]:
    """Returns the differences of a finished run from its reference, and the missed turns."""
    if (code := made.finish()) != 0:
        return [f"exit code {code}\n{made.said()}"], {}
    evaluated = [number for number in range(rounds + 1) if number % every == 0 or number == rounds]
    found, odd = missed(made.run, rounds, evaluated)
    wrong = [*odd, *differences(made, references.of(words, found), rounds)]
    late = [client for client, turns in found.items() if ("fit", rounds) in turns]
    return wrong + [f"{client} did not rejoin" for client in late], found


def soak(kills: int, partitions: int, seed: int, work: Path) -> dict[str, Any]:
    """Runs all incidents; continues from the results saved in `work`."""
    file, root = work / "report.json", work / "data"
    report: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"cases": []}
    if not root.exists():
        support.write_tiny(root)
    nursery = Nursery()
    try:
        while len(report["cases"]) < 10 * (kills + partitions):
            done = Counter((item["what"], item["part"], item["phase"]) for item in incidents_of(report))
            todo = []
            for incident in plan(kills, partitions, seed):
                key = (incident.what, incident.part, incident.phase)
                done[key] -= 1
                todo += [incident] if done[key] < 0 else []
            if not todo:
                break
            case = one_run(len(report["cases"]), next(runs(todo)), nursery, root, work, seed)
            report["cases"].append(case)
            file.write_text(json.dumps(report, indent=1))
            struck = ", ".join(f"{item['part']} in {item['phase']}" for item in case["incidents"])
            end = case["wrong"] or ("equal, without " + str(case["missed"]) if case["missed"] else "equal")
            print(
                f"run {len(report['cases'])}: {case['exp']}, {case['seconds']:.0f} s: {struck}: {end}", file=sys.stderr
            )
    finally:
        nursery.close()
    return report


def for_minutes(minutes: float, seed: int, work: Path, rounds: int = 30) -> dict[str, Any]:
    """Disturbs one long run for about this many minutes; continues from the results saved in `work`.

    After an interruption all parties start again from their folders.
    """
    pace = 60 * minutes / rounds / 1.8
    words = ("exp=scaffold", f"rounds={rounds}", "evaluate_every=5", "min_clients=2")
    words += (f"engine.deadline={2 * pace + 15}",)
    file, root, draws, nursery = work / "minutes.json", work / "data", random.Random(seed), Nursery()
    if not root.exists():
        support.write_tiny(root)
    note = json.loads(file.read_text()) if file.exists() else {"tried": 0, "seconds": 0.0, "incidents": [], "starts": 0}
    begun, before = time.monotonic(), note["seconds"]
    made = Federation(nursery, root, work / "federation", words, pace, keep=note["starts"] > 0)
    torment, started = Torment(made, draws, away=False), False
    note["starts"] += 1
    try:
        plans = (draws.sample(found := plan(21, 5, seed + again), len(found)) for again in itertools.count())
        for incident in itertools.islice(itertools.chain.from_iterable(plans), note["tried"], None):
            torment.away = draws.random() < 0.5
            if torment.strike(incident, started, limit=20 + 2 * pace):
                note["incidents"].append(asdict(torment.struck[-1]))
            note["tried"], note["seconds"], started = note["tried"] + 1, before + time.monotonic() - begun, True
            file.write_text(json.dumps(note))
            print(f"{note['seconds']:.0f} s: round {made.rounds()}: {note['incidents'][-1:]}", file=sys.stderr)
            if made.over:
                break
            made.wait(draws.uniform(0, pace))
        wrong, found = ended(made, References(nursery, root, work / "references"), words, rounds, 5)
    finally:
        made.stop()
        nursery.close()
    return {"cases": [{"exp": "scaffold", "missed": found, "wrong": wrong, **note}]}


def incidents_of(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [incident for case in report["cases"] for incident in case["incidents"]]


def table(report: dict[str, Any]) -> str:
    """Returns Markdown tables of kills by part and phase, and of partitions by kind."""
    found = incidents_of(report)
    counts = Counter((item["part"], item["phase"]) for item in found if item["what"] == "kill")
    lines = ["| killed | " + " | ".join(PHASES) + " | sum |", "|---|" + "---:|" * (len(PHASES) + 1)]
    for part in (*PARTS, "sum"):
        row = [sum(counts[name, phase] for name in PARTS if part in (name, "sum")) for phase in PHASES]
        lines.append(f"| {part} | " + " | ".join(map(str, row)) + f" | {sum(row)} |")
    kinds = Counter(item["part"] for item in found if item["what"] == "partition")
    lines += ["", "| partition | " + " | ".join(KINDS) + " | sum |", "|---|" + "---:|" * (len(KINDS) + 1)]
    lines.append("| times | " + " | ".join(str(kinds[kind]) for kind in KINDS) + f" | {kinds.total()} |")
    cases = report["cases"]
    away, lost = sum(item["away"] for item in found), sum(bool(case["missed"]) for case in cases)
    lines += [
        "",
        f"{len(cases)} runs, {sum(case['seconds'] for case in cases) / 60:.0f} minutes. In {lost} of them silos ",
    ]
    lines[-1] += (
        f"missed turns ({away} strikes kept one away). {sum(bool(case['wrong']) for case in cases)} ended differently."
    )
    return "\n".join(lines)


def main() -> int:
    """Runs kills, partitions and attacks, prints the results, and returns the exit code."""
    options = {"kills": "30", "partitions": "10", "attacks": "10000", "seed": "0", "minutes": "0"}
    options |= {"work": "", "json": "", "table": ""} | dict(word.split("=", 1) for word in sys.argv[1:])
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        work, seed = Path(options["work"] or name), int(options["seed"])
        work.mkdir(parents=True, exist_ok=True)
        if minutes := float(options["minutes"]):
            report, count = for_minutes(minutes, seed, work), 0
        else:
            report, count = soak(int(options["kills"]), int(options["partitions"]), seed, work), int(options["attacks"])
        text = table(report)
        if count:
            (work / "attacks").mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory() as place:
                report["attacks"] = attacks.attack(count, seed, Path(place))
            text += f"\n\n{attacks.table(report['attacks'])}\n\n{attacks.memory(report['attacks'])}"
    for key, content in (("json", json.dumps(report, indent=1)), ("table", text + "\n")):
        if options[key]:
            Path(options[key]).write_text(content)
    print(text)
    wrong = [case for case in report["cases"] if case["wrong"]] + report.get("attacks", {}).get("wrong", [])
    for case in wrong[:20]:
        print(json.dumps(case, indent=1))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
