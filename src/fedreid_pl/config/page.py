"""Generates docs/configuration.md from the schema: `python -m fedreid_pl.config.page > docs/configuration.md`."""

from __future__ import annotations

from dataclasses import Field, fields, is_dataclass
from typing import Any

from fedreid_pl.config.schema import Config

HEAD = """# Configuration

<!-- written by `python -m fedreid_pl.config.page > docs/configuration.md` -->

`exp=NAME` and `data=NAME` choose YAML files from `configs/` by name, or any file by its path. Every other word sets one
key: `fedreid-pl train exp=fedprox rounds=10 callbacks.fedprox.mu=0.1`. Later sources win: the defaults below,
`configs/base.yaml`, the data file, the experiment file, the command line. `fedreid-pl train exp=... dry_run=true`
checks a configuration and prints what it would train. A run saves its resolved configuration in `config.yaml`.

An unknown key is an error, and the message suggests the nearest known key. The options of an algorithm,
`callbacks.NAME.OPTION`, are described in [algorithms.md](algorithms.md).

## How values are read

The type of a key decides how its value is read: a whole number in decimal digits, `true` or `false`, a list as
`[ONE,TWO]`, or a text, of which every character counts. `null` or `None` means "no value" if the key allows that. A
leading `~` in a path means the home folder. The same rules apply in YAML files, where quotes turn every value into a
text.

| written | number or flag | path | other text |
|---|---|---|---|
| `null`, `None` | no value, or an error | no value, or the text | no value, or the text |
| `~` | no value, or an error | the home folder | no value, or the text |
| `010` | 10 | `010` | `010` |
| `???`, `#run1`, `${x}`, `1_0`, `on` | an error | the text | the text |

The part after "or" applies to keys that must have a value.

The tables below list the defaults of the schema. They follow the paper where the paper states a setting. The shipped
data and experiment files set other values: `data=minireid`, the default, trains a small network on small pictures.
"""


def configuration_page() -> str:
    """Returns the page as Markdown: every key with its default, meaning and bounds, one table per section."""
    plain = [item for item in fields(Config) if not is_dataclass(getattr(Config(), item.name))]
    parts = [HEAD, "## The run", _table("", plain, Config())]
    for item in fields(Config):
        section = getattr(Config(), item.name)
        if is_dataclass(section):
            parts += [
                f"## `{item.name}`",
                str(type(section).__doc__).strip(),
                _table(item.name, fields(section), section),
            ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _table(prefix: str, items: Any, defaults: Any) -> str:
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for item in items:
        name = f"{prefix}.{item.name}" if prefix else item.name
        lines.append(f"| `{name}` | {_default(getattr(defaults, item.name))} | {_meaning(item)} |")
    return "\n".join(lines)


def _default(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text}`" if text else "empty"


def _meaning(item: Field[Any]) -> str:
    limits = item.metadata
    text = str(limits["help"]).replace("|", "\\|")
    bounds = [f"at least {limits['at_least']:g}"] if limits["at_least"] is not None else []
    bounds += [f"above {limits['above']:g}"] if limits["above"] is not None else []
    bounds += [f"at most {limits['at_most']:.10g}"] if limits["at_most"] is not None else []
    bounds += ["one of " + ", ".join(f"`{choice}`" for choice in limits["choices"])] if limits["choices"] else []
    return f"{text} Bounds: {'; '.join(bounds)}." if bounds else text


if __name__ == "__main__":
    print(configuration_page(), end="")
