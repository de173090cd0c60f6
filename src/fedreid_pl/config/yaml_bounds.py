"""Checks the size and the content of a YAML text on its event stream, before any object is built from it."""

from __future__ import annotations

import yaml

from fedreid_pl.errors import FedReIDError

MOST_BYTES = 512 * 1024
MOST_NODES = 20_000
DEEPEST = 24


def check_yaml(text: str, source: str) -> None:
    """Checks the size, depth and number of nodes of a YAML text; refuses anchors, aliases, tags and extra documents.

    The events are read one by one, so a text that would expand to gigabytes uses little memory.

    Raises:
        FedReIDError: if a limit is exceeded or an element is refused; the message names the source and the line.
        yaml.YAMLError: if it is not YAML.
    """
    if len(text) > MOST_BYTES:
        raise FedReIDError(f"{source}: {len(text):,} characters, a configuration has at most {MOST_BYTES:,}")
    depth = nodes = documents = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        where = f"{source}: line {event.start_mark.line + 1}" if "\n" in text else source
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise FedReIDError(f"{where}: anchors and aliases (& and *) are not allowed; write the value out")
        if getattr(event, "tag", None):
            raise FedReIDError(f"{where}: tags such as !!python/name are not allowed; write a plain value")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        documents += isinstance(event, yaml.DocumentStartEvent)
        nodes += isinstance(event, yaml.NodeEvent)
        if depth > DEEPEST:
            raise FedReIDError(f"{where}: nested too deeply, at most {DEEPEST} levels")
        if nodes > MOST_NODES:
            raise FedReIDError(f"{where}: more than {MOST_NODES:,} keys and values")
        if documents > 1:
            raise FedReIDError(f"{where}: a second document (---) is not allowed; remove it")
