"""Implements `fedreid-pl data`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from fedreid_pl.commands.words import take
from fedreid_pl.config import compose
from fedreid_pl.errors import FedReIDError, counted, nearest, printable

SHEETS = (".png", ".jpg", ".jpeg")


def data(words: list[str]) -> int:
    """Counts, draws or checks the pictures of a data configuration, or lists and clears the cache."""
    if words[:1] == ["check"]:
        return _check_data(words[1:])
    if words[:1] == ["cache"]:
        return _cache(words[1:])
    show = bool(words) and words[0] == "show"
    if words and not show and "=" not in words[0]:
        raise FedReIDError(
            f"data {printable(words[0])}: no such command{nearest(words[0], ['cache', 'check', 'show'])}"
        )
    options, rest = take(words[show:], *["out"] * show)
    config = compose(rest)
    from fedreid_pl.data.federated import VALIDATION
    from fedreid_pl.data.locating import locate_root
    from fedreid_pl.data.scenarios import load_federated_data
    from fedreid_pl.reporting.status import Status
    from fedreid_pl.reporting.tables import text_table
    from fedreid_pl.reporting.terminal import columns

    status = Status()

    if show:
        from fedreid_pl.data.minireid import contact_sheet
        from fedreid_pl.federation.storage import check_output

        if config.data.source != "minireid":
            raise FedReIDError(f"data show: only draws the embedded MiniReID benchmark, not data={config.data.name}")
        sheet = Path(os.path.expanduser(options.get("out", "minireid.png")))
        if sheet.suffix.lower() not in SHEETS:
            raise FedReIDError(f"out={sheet}: the name must end with {', '.join(SHEETS)}")
        check_output(sheet, "out")
        root = locate_root(config.data, status)
        status.done()
        print(contact_sheet(root, sheet))
        return 0
    federated = load_federated_data(config.data, status)
    status.done()
    rows = []
    for client in federated.clients.values():
        sets = federated.tests_of(client.name)
        tests = [test for name, test in sets.items() if not name.startswith(VALIDATION)]
        held_out = [test for name, test in sets.items() if name.startswith(VALIDATION)]
        numbers = [
            client.train.num_identities(),
            len(client.train),
            len(set(client.train.cameras.tolist())),
            sum(test.query.num_identities() for test in tests),
            sum(len(test.query) for test in tests),
            sum(len(test.gallery) for test in tests),
        ]
        if config.data.val_ids:
            numbers += [sum(test.gallery.num_identities() for test in held_out), sum(len(t.query) for t in held_out)]
        rows.append([client.name, *(f"{number:,}" for number in numbers)])
    for name, test in federated.unseen.items():
        counts = [test.query.num_identities(), len(test.query), len(test.gallery)]
        tail = ["-", "-"] if config.data.val_ids else []
        rows.append([f"{name} (unseen)", *["-"] * 3, *(f"{number:,}" for number in counts), *tail])
    header = ["client", "train ids", "train images", "cameras", "query ids", "query images", "gallery images"]
    header += ["validation ids", "validation queries"] if config.data.val_ids else []
    print(f"{locate_root(config.data)}{' (synthetic)' if federated.synthetic else ''}\n")
    print(text_table(header, rows, width=columns(sys.stdout)))
    if federated.public is not None:
        print(f"\npublic set {federated.public.name}: {counted(len(federated.public), 'image')}, labels are not used")
    return 0


def _check_data(words: list[str]) -> int:
    options, rest = take(words, "json")
    if "json" in options and not Path(options["json"]).name:
        raise FedReIDError("data check: json= names no file, give json=FILE.json")
    from fedreid_pl.federation.storage import check_output, write_text

    if "json" in options:
        check_output(Path(os.path.expanduser(options["json"])), "json")
    config = compose(rest)
    from fedreid_pl.data.check import check_data
    from fedreid_pl.reporting.data_check import check_text, verdict
    from fedreid_pl.reporting.status import Status

    status = Status(after=10)
    check = check_data(config.data, status)
    status.done()
    print(check_text(check), flush=True)
    if "json" in options:
        write_text(Path(os.path.expanduser(options["json"])), json.dumps(check.as_dict(), indent=2) + "\n")
    if not check.ok:
        raise FedReIDError(verdict(check))
    print(f"\n{verdict(check)}")
    return 0


def _cache(words: list[str]) -> int:
    clear = words[:1] == ["clear"]
    if words and not clear and "=" not in words[0]:
        raise FedReIDError(f"data cache {printable(words[0])}: no such command{nearest(words[0], ['clear'])}")
    config = compose(words[clear:])
    from fedreid_pl.data.cache_folder import chosen_folder, made_again
    from fedreid_pl.reporting.tables import text_table

    folder = chosen_folder(config.data.cache_dir)
    if folder.exists() and not folder.is_dir():
        raise FedReIDError(f"data.cache_dir={folder}: is not a folder; give the folder of the cache")
    rows = []
    for name, meaning in made_again(folder).items():
        files = [path for path in (folder / name).iterdir() if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        rows.append([name, meaning, f"{size / 1e9:.2f} GB", "deleted" if clear else ""])
        for path in files if clear else ():
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise FedReIDError(f"{path}: cannot be deleted ({error.strerror})") from error
    print(folder)
    print(text_table(["folder", "content", "size", ""], rows, left=2) if rows else "the cache is empty")
    return 0
