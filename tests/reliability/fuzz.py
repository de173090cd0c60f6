"""Reads thousands of altered inputs: folder trees, names, lists, tables, image bytes, words and YAML files.

    python tests/reliability/fuzz.py [each=5000] [seed=0] [only=market1501,words] [json=FILE]

Every input is a valid one with one to three alterations. The program must read it and count every file of the folder
(as read, list, unused, skipped or named), or refuse it with one line. A finding is a traceback, a message of several
lines, an uncounted file, or a word that is read as another value.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import layouts
import numpy as np

from fedreid_pl.config import available, compose, describe, load_config, to_yaml
from fedreid_pl.data.decoding import decode
from fedreid_pl.data.inventory import read_with_inventory
from fedreid_pl.data.layouts import ReadOptions, find_layouts
from fedreid_pl.errors import FedReIDError

SPELLINGS = ["_c1_", "_C2_", "-c1-", "_cam3_", "cam01_", "_c001s1_", "", " ", "é", "摄", "%20", "'", "..", "-1", "0000"]
EXTENSIONS = [".webp", ".tif", ".JPEG", ".gif", ".txt", "", ".jpg.bak", ".PNG", ".eps", ".csv"]
JUNK = [
    b"",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\x00" * 9,
    b"\r\n",
    b";",
    b"\t",
    b'"',
    b",",
    b"-1",
    b"9" * 30,
    b"\\",
    b"\xe9",
]
VALUES = [
    "",
    "0",
    "010",
    "1_0",
    "12:30",
    "on",
    "~",
    "null",
    "None",
    "???",
    "#x",
    "${x}",
    "1e3",
    "0x10",
    "[a]",
    "[1",
    "{a: 1}",
]
VALUES += [
    "'a'",
    '"',
    "a b",
    "-1",
    ".nan",
    "é",
    "\udce9",
    "a\nb",
    "&a",
    "*a",
    "!!int 3",
    "True",
    "a=b",
    "3,5",
    "1" * 400,
]


def altered_bytes(content: bytes, draws: random.Random) -> bytes:
    """Returns the content with bytes removed, added, exchanged or moved."""
    for _ in range(draws.randint(1, 3)):
        place, more = draws.randrange(len(content) + 1), draws.choice(JUNK)
        end = min(len(content), place + draws.choice([1, 2, 9, 200]))
        content = draws.choice(
            [
                content[:place] + content[end:],
                content[:place] + more + content[place:],
                content[:place] + bytes(draws.randrange(256) for _ in range(end - place)) + content[end:],
                content[:place] + content[place:end] * 2 + content[end:],
                content[:place],
                content[:place] + bytes([content[place] ^ 1 << draws.randrange(8)]) + content[place + 1 :]
                if place < len(content)
                else content,
            ]
        )
    return content


class Tree:
    """A miniature dataset on disk that is altered in place and restored."""

    def __init__(self, name: str, root: Path) -> None:
        mini = layouts.MINIATURES[name]()
        self.root, self.layout = layouts.write(mini, root), find_layouts()[mini.layout]
        self.train_only = mini.splits == {layouts.TRAIN}
        self.lists = [str(self.root / path) for path in mini.texts]
        self.undo: list[Callable[[], object]] = []

    def files(self) -> list[str]:
        return sorted(os.path.join(at, name) for at, _, names in os.walk(self.root) for name in names)

    def alter(self, draws: random.Random) -> str:
        """Makes one alteration and returns its description."""
        files = self.files()
        if not files:
            return "nothing"
        path = draws.choice(self.lists if self.lists and draws.random() < 0.4 else files)
        if not os.path.isfile(path):
            return "nothing"
        kind = draws.choice(["rename", "extension", "folder", "add", "lose", "bytes", "bytes", "link"])
        if kind == "folder":
            path = os.path.dirname(path)
            kind = "rename" if path != str(self.root) else "add"
        above, name = os.path.split(path)
        if kind in ("rename", "extension"):
            place = draws.randrange(len(name) + 1)
            new = name[:place] + draws.choice(SPELLINGS) + name[place + draws.randint(0, 3) :]
            new = os.path.splitext(name)[0] + draws.choice(EXTENSIONS) if kind == "extension" else new
            return self._move(path, os.path.join(above, new or "x"))
        if kind == "add":
            target = os.path.join(
                above if os.path.isdir(above) else str(self.root), draws.choice(SPELLINGS) + name + "x"
            )
            return self._write(target, draws.choice([b"", b"text", altered_bytes(b"\x89PNG\r\n\x1a\n", draws)]))
        if not os.path.isfile(path):
            return "nothing"
        content = Path(path).read_bytes()
        if kind == "bytes":
            return self._write(path, altered_bytes(content, draws))
        if kind == "link":
            return self._link(path + "l", draws.choice([path, "/nowhere", str(self.root)]))
        os.remove(path)
        self.undo.append(lambda: Path(path).write_bytes(content))
        return f"lose {path}"

    def restore(self) -> None:
        for action in reversed(self.undo):
            action()
        self.undo.clear()

    def read(self) -> None:
        """Reads the folder and compares the inventory with an independent count of the files."""
        options = ReadOptions(train_only=self.train_only)
        table, _ = read_with_inventory(self.layout, self.root, "fuzz", options)
        assert table.inventory is not None
        links = [os.path.join(at, one) for at, below, _ in os.walk(self.root) for one in below]
        links = [path for path in links if os.path.islink(path)]
        found = sum(len(names) for _, _, names in os.walk(self.root)) + len(links)
        counted = table.inventory.present
        # A link to a folder counts as one file, or as the files behind it if the reader follows the link.
        if counted != found and not (links and counted > found):
            raise AssertionError(f"{found} files are present, {counted} are accounted for: {table.inventory.as_dict()}")

    def _move(self, path: str, new: str) -> str:
        if os.path.lexists(new) or len(os.path.basename(new).encode(errors="replace")) > 200:
            return "nothing"
        os.rename(path, new)
        self.undo.append(lambda: os.rename(new, path))
        return f"move {path} {new}"

    def _write(self, path: str, content: bytes) -> str:
        before = Path(path).read_bytes() if os.path.isfile(path) else None
        if before is None and os.path.lexists(path):
            return "nothing"
        Path(path).write_bytes(content)
        self.undo.append(lambda: os.remove(path) if before is None else Path(path).write_bytes(before))
        return f"write {path} {content[:40]!r}"

    def _link(self, path: str, target: str) -> str:
        if os.path.lexists(path):
            return "nothing"
        os.symlink(target, path)
        self.undo.append(lambda: os.remove(path))
        return f"link {path} {target}"


def trees(folder: Path, draws: random.Random, tree: Tree) -> tuple[str, Callable[[], object]]:
    """Alters a folder tree; returns a description and the action that reads the tree."""
    said = [tree.alter(draws) for _ in range(draws.randint(1, 3))]
    return "; ".join(said), tree.read


def pictures(folder: Path, draws: random.Random, content: bytes) -> tuple[str, Callable[[], object]]:
    """Alters an image; returns a description and an action that decodes the image and checks its size."""
    altered = altered_bytes(content, draws)
    path = folder / "picture"
    path.write_bytes(altered)

    def action() -> None:
        pixels = decode(str(path), 16, 8)
        if pixels.shape != (16, 8, 3) or pixels.dtype != np.uint8:
            raise AssertionError(f"{pixels.shape} {pixels.dtype}")

    return f"{len(altered)} bytes, {altered[:30]!r}", action


def _mangled(word: str, draws: random.Random) -> str:
    return altered_bytes(word.encode(errors="replace"), draws).decode(errors="replace")


def words(folder: Path, draws: random.Random, base: None) -> tuple[str, Callable[[], object]]:
    """Makes one to three words; the action checks that texts keep their characters and integers their digits."""
    keys = [name for name, _, _ in describe()] + ["exp", "data", "callbacks.fedprox.mu", "callbacks.x", "optim"]
    typed = [f"{draws.choice(keys)}={draws.choice(VALUES)}" for _ in range(draws.randint(1, 2))]
    typed = [_mangled(word, draws) if draws.random() < 0.3 else word for word in typed]

    def action() -> None:
        config = compose(typed)
        last = typed[-1].partition("=")
        for key, value in (("output_dir", config.output_dir), ("name", config.name), ("rounds", config.rounds)):
            if last[0] == key and last[2] not in ("null", "Null", "NULL", "None"):
                wanted = (
                    int(last[2]) if key == "rounds" else os.path.expanduser(last[2]) if key == "output_dir" else last[2]
                )
                if value != wanted:
                    raise AssertionError(f"{last[2]!r} was read as {value!r}")
        file = folder / "again.yaml"
        file.write_text(to_yaml(config), encoding="utf-8")
        if load_config(file) != config:
            raise AssertionError("the saved configuration differs after reading")

    return repr(typed), action


def documents(folder: Path, draws: random.Random, base: bytes) -> tuple[str, Callable[[], object]]:
    """Alters a YAML file; returns a description and the action that composes it."""
    content = altered_bytes(base, draws)
    file = folder / "mine.yaml"
    file.write_bytes(content)
    return repr(content[-200:]), lambda: compose([f"{draws.choice(['exp', 'data'])}={file}"])


def sources(folder: Path) -> dict[str, list[tuple[Callable[..., Any], Any]]]:
    """Returns, for each reader, the makers of altered inputs with their valid inputs."""
    found: dict[str, list[tuple[Callable[..., Any], Any]]] = {}
    for name in layouts.MINIATURES:
        try:
            tree = Tree(name, folder / name)
        except ImportError:  # an official split in MATLAB's format needs scipy
            continue
        found.setdefault(tree.layout.key, []).append((trees, tree))
    from PIL import Image

    image = Image.effect_noise((13, 21), 60).convert("RGB")
    found["pictures"] = []
    for kind in ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM"):
        path = folder / f"good.{kind}"
        image.save(path, kind)
        found["pictures"].append((pictures, path.read_bytes()))
    found["words"] = [(words, None)]
    shipped = [to_yaml(compose([f"exp={name}"])).encode() for name in available("exp")[:6]]
    found["documents"] = [(documents, text) for text in shipped]
    return found


def fuzz(each: int, seed: int, folder: Path, only: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Reads `each` altered inputs with every reader; returns the counts of outcomes and all findings."""
    counts: dict[str, Counter[str]] = {}
    findings: list[dict[str, str]] = []
    for reader, makers in sources(folder).items():
        if only and reader not in only:
            continue
        counts[reader] = Counter()
        for number in range(each):
            maker, base = makers[number % len(makers)]
            said, action = maker(folder, random.Random(f"{seed}/{reader}/{number}"), base)
            outcome, detail = judge(action)
            if isinstance(base, Tree):
                base.restore()
            counts[reader][outcome] += 1
            if outcome == "finding":
                findings.append({"reader": reader, "number": str(number), "case": said, "detail": detail})
    return {"counts": {reader: dict(count) for reader, count in counts.items()}, "findings": findings}


def judge(action: Callable[[], object]) -> tuple[str, str]:
    """Returns `read`, `refused` or `finding`, and details of a finding."""
    try:
        action()
    except FedReIDError as error:
        text = str(error)
        one = len(text.splitlines()) == 1 and text.strip() and len(text) < 5000
        return ("refused", "") if one else ("finding", f"a message of {len(text.splitlines())} lines: {text[:300]!r}")
    except Exception:
        return "finding", traceback.format_exc()
    return "read", ""


if __name__ == "__main__":
    options = {"each": "5000", "seed": "0", "only": "", "json": ""}
    options |= dict(word.split("=", 1) for word in sys.argv[1:])
    start = time.time()
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = fuzz(
            int(options["each"]), int(options["seed"]), Path(name), frozenset(filter(None, options["only"].split(",")))
        )
    for reader, count in report["counts"].items():
        print(
            f"{reader}: {count.get('read', 0)} read, {count.get('refused', 0)} refused, "
            f"{count.get('finding', 0)} findings"
        )
    for case in report["findings"][:20]:
        print(f"\n{case['reader']} {case['number']}: {case['case'][:600]}\n{case['detail'][-1500:]}")
    total = sum(sum(count.values()) for count in report["counts"].values())
    print(f"{total:,} inputs in {time.time() - start:.0f} s, {len(report['findings'])} findings")
    if options["json"]:
        Path(options["json"]).write_text(json.dumps(report, indent=1), encoding="utf-8")
    sys.exit(bool(report["findings"]))
