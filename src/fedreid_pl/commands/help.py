"""Writes the help of the command line: an overview, the help of each command, and all configuration keys."""

from __future__ import annotations

import textwrap

from fedreid_pl.commands.help_texts import MORE, OVERVIEW, TEXTS
from fedreid_pl.config import available, describe

NO_LIMIT = 10**9


def overview() -> str:
    """Returns the help of `fedreid-pl --help`: what the program does, and one line for each command."""
    width = max(len(name) for name in TEXTS)
    rows = [f"  {name:<{width}}  {text.splitlines()[0]}" for name, text in TEXTS.items()]
    return OVERVIEW + "\n".join(rows) + "\n" + MORE


def help_of(command: str, subcommand: str = "", width: int | None = None) -> str:
    """Returns the help of a command. The help of `train` lists all configuration keys.

    Args:
        command: name of the command.
        subcommand: the word after it; if it has help of its own (`data check`), this help is returned.
        width: columns of the terminal; `None`: lines may have any length.
    """
    named = f"{command} {subcommand}"
    text = TEXTS[named if named in TEXTS else command]
    return text + ("\n" + keys_text(width) if command == "train" else "")


def keys_text(width: int | None = None) -> str:
    """Returns the names of shipped configurations, and every configuration key with its meaning and default.

    Args:
        width: columns of the terminal; `None`: one line for each key.
    """
    chosen = [("exp=", available("exp")), ("data=", available("data"))]
    rows = [(word, f"{', '.join(names)}, or a YAML file") for word, names in chosen]
    rows += [(name, f"{text} Default: {default or 'empty'}.") for name, default, text in describe()]
    left = max(len(name) for name, _ in rows)
    lines = []
    for name, text in rows:
        head = f"  {name:<{left}}  "
        wrapped = textwrap.wrap(text, max(width - len(head), 30) if width else NO_LIMIT, break_on_hyphens=False)
        lines.append(head + ("\n" + " " * len(head)).join(wrapped))
    title = "Configuration keys (KEY=VALUE). exp=NAME and data=NAME change some defaults:"
    return f"Names:\n{chr(10).join(lines[:2])}\n\n{title}\n{chr(10).join(lines[2:])}\n"
