"""Implements `fedreid-pl methods`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fedreid_pl.commands.words import take
from fedreid_pl.errors import FedReIDError, nearest

MORE = (
    "fedreid-pl train exp=NAME trains with a method. fedreid-pl methods NAME prints what a method exchanges, keeps at "
    "the client and needs, and how it was verified."
)


def methods(words: list[str]) -> int:
    """Lists all methods, prints one method, or writes the page of all methods."""
    options, names = take(words, "out")
    if len(names) > 1 or any("=" in name for name in names):
        raise FedReIDError(f"methods: give one name, fedreid-pl methods NAME, not {' '.join(names)}")
    if names and "out" in options:
        raise FedReIDError(f"methods: out= writes the page of all methods; give {names[0]} or out=FILE, not both")
    from fedreid_pl.config import available
    from fedreid_pl.federation.storage import write_text
    from fedreid_pl.methods import list_methods, methods_page, methods_text
    from fedreid_pl.reporting.tables import text_table
    from fedreid_pl.reporting.terminal import columns, fill

    width = columns(sys.stdout)
    if names:
        if names[0] not in available("exp"):
            raise FedReIDError(f"methods: {names[0]}: no such method{nearest(names[0], available('exp'))}")
        print("\n".join(fill(line, width) if line else "" for line in methods_text(names[0]).splitlines()))
    elif "out" in options:
        if not Path(options["out"]).name:
            raise FedReIDError("methods: out= names no file, give out=FILE.md")
        write_text(Path(os.path.expanduser(options["out"])), methods_page())
    else:
        rows = [[one.name, one.method.title, one.method.purpose, one.method.paper] for one in list_methods()]
        print(text_table(["exp", "method", "for", "paper"], rows, left=4, width=width))
        print(f"\n{fill(MORE, width)}")
    return 0
