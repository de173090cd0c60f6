"""`log=json`: one JSON object a line at both sides, without paths, image names or persons."""

from __future__ import annotations

import io
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import support
from silos.parties import coordinator_words, make_parties, make_service, silo_words
from silos.processes import Nursery, Service, watch
from silos.wire import free_port

from fedreid_pl.cli import main
from fedreid_pl.config import compose
from fedreid_pl.coordination import coordinate
from fedreid_pl.engines.silos.log_lines import FIELDS, JsonLog, logged
from fedreid_pl.engines.silos.loopback import Loopback
from fedreid_pl.engines.silos.payload import Payload
from fedreid_pl.engines.silos.runner import Events
from fedreid_pl.errors import FedReIDError

BAD = support.TINY[2]
PERSON = "Anna Beispiel"


def checked(text: str, root: Path) -> list[dict[str, Any]]:
    """Parses a log; fails if a line is not a JSON object or contains a secret."""
    assert text, "the log is empty"
    pictures = [path for path in root.rglob("*") if path.is_file()]
    assert len(pictures) > 50
    secrets = {PERSON, ".jpg", "/", "\\", str(root), "bounding_box_train", *(path.stem for path in pictures)}
    found = []
    for line in text.splitlines():
        event = json.loads(line)
        assert list(event) == [name for name in FIELDS if name in event], "known fields, in their order"
        moment = datetime.fromisoformat(event["time"].replace("Z", "+00:00"))
        assert event["time"].endswith("Z") and abs((datetime.now(timezone.utc) - moment).total_seconds()) < 3600
        assert event["level"] in ("info", "warning", "error") and len(event["federation"]) == 16
        assert [secret for secret in secrets if secret in line] == [], line
        found.append(event)
    return found


def test_both_sides_log_a_run_with_a_job_that_fails(tiny_root: Path, tmp_path: Path) -> None:
    federation, silos = make_parties(tmp_path / "parties", support.TINY)
    streams = {name: io.StringIO() for name in ("coordinator", *silos)}
    answers = {}
    for name, silo in silos.items():
        service = make_service(silo, tiny_root)
        service.audit.listener = Events(JsonLog(federation.number, name, streams[name]))
        answers[name] = service.answer
        if name == BAD:
            answers[name] = failing(service, f"{tiny_root}/{BAD}/0001_c1s1_001051_00.jpg shows {PERSON}")
    output = tmp_path / "run"
    words = coordinator_words(tiny_root, output, federation, "exp=fedpav", "min_clients=2", "client_retries=0")
    events = JsonLog(federation.number, stream=streams["coordinator"])
    coordinate(compose(words), output, lambda _: Loopback(answers, tmp_path / "copies"), events)

    logs = {name: checked(stream.getvalue(), tiny_root) for name, stream in streams.items()}
    ours = logs.pop("coordinator")
    left_out = [event for event in ours if event["event"] == "left_out"]
    assert [(event["silo"], event["round"], event["reason"]) for event in left_out] == [
        (BAD, 1, "OSError"),
        (BAD, 2, "OSError"),
    ]
    assert [event["round"] for event in ours if event["event"] == "round"] == [1, 2]
    updates = [event for event in ours if event["event"] == "answered" and event.get("kind") == "update"]
    assert all(event["bytes"] > 0 and event["seconds"] >= 0 and event["attempt"] >= 1 for event in updates)
    models = [event["silo"] for event in updates if event["bytes"] > 10_000]  # an evaluation answers without a model
    assert sorted(models) == sorted([*support.TINY[:2]] * 2)
    for name, lines in logs.items():
        assert {event["silo"] for event in lines} == {name}
        assert lines[0]["event"] == "joined"
        done = {(event["event"], event["kind"], event["round"]) for event in lines if "round" in event}
        assert (("failed" if name == BAD else "update"), "fit", 2) in done
    words_kept = (silos[BAD].path / "audit.jsonl").read_text()
    assert PERSON in words_kept, "the operator's own file contains the error text"


def failing(service: Any, words: str) -> Any:
    """Returns a silo service whose training jobs raise an error with this text."""

    def answer(sent: Payload) -> Payload | None:
        if service.session is not None:
            honest = type(service.session).do.__get__(service.session)

            def do(job: Any, policy: Any) -> Any:
                if job.kind == "fit":
                    raise OSError(words)
                return honest(job, policy)

            vars(service.session)["do"] = do
        return service.answer(sent)

    return answer


@pytest.mark.system
def test_processes_print_only_json_lines(tiny_root: Path, tmp_path: Path) -> None:
    port = free_port()
    federation, silos = make_parties(tmp_path / "parties", support.TINY[1:], port=port)
    nursery, log = Nursery(), {name: tmp_path / f"{name}.log" for name in ("coordinator", *silos)}
    words = coordinator_words(tiny_root, tmp_path / "run", federation, "exp=fedpav", "rounds=1", "log=json")
    parties = [Service(nursery, ["train", *words], log["coordinator"])]
    try:
        for name, silo in silos.items():
            own = ["silo", "run", str(silo.path), *silo_words(tiny_root, name), "log=json"]
            parties.append(Service(nursery, own, log[name]))
        watch(parties, lambda: parties[0].code is not None, 240)
        assert parties[0].code == 0, log["coordinator"].read_text()
    finally:
        for party in parties:
            party.stop()
        nursery.close()
    found = {name: checked(file.read_text(), tiny_root) for name, file in log.items()}
    assert found["coordinator"][-1]["event"] == "finished"
    for name in silos:
        assert {"started", "joined", "update"} <= {event["event"] for event in found[name]}


@pytest.mark.parametrize(
    ("error", "code"), [(FedReIDError("/pictures/0001.jpg: cannot be read"), 2), (OSError("/pictures/0001.jpg"), 1)]
)
def test_a_failing_service_logs_only_the_kind_of_the_error(
    error: Exception, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        raise error

    assert logged(JsonLog("0" * 16, "a"), tmp_path, work) == code
    (line,) = capsys.readouterr().err.splitlines()
    event = json.loads(line)
    assert (event["event"], event["level"], event["reason"]) == ("ended", "error", type(error).__name__)
    assert "jpg" not in line and "/pictures/0001.jpg" in (tmp_path / "last_error.txt").read_text()


@pytest.mark.parametrize("reason", ["/data/a.jpg", "cannot read Anna", "a.b", "x" * 99, "0001", "line\nbreak"])
def test_free_text_is_not_accepted_as_a_reason(reason: str) -> None:
    stream = io.StringIO()
    JsonLog("0" * 16, stream=stream)("failed", reason=reason)
    assert json.loads(stream.getvalue())["reason"] == "other"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["train", "log=xml"], "log=xml: must be text or json"),
        (["train", "log=json"], "log=json: is for engine=silos"),
        (["silo", "run", "x", "log=1"], "log=1: must be text or json"),
    ],
)
def test_a_mistake_prints_one_line(words: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line
