"""JSON files of a run's folder, held against a type before anything in them is used."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from fedreid_pl.bounded import inside, read_bounded
from fedreid_pl.errors import FedReIDError, printable, visible

LONGEST = 200
"""Characters of a name."""


def _shown(text: str) -> str:
    if visible(text) != text:
        raise ValueError("holds control characters")
    return text


Name = Annotated[str, Field(min_length=1, max_length=LONGEST), AfterValidator(_shown)]
Share = Annotated[float, Field(ge=0, le=1.000001, allow_inf_nan=False)]
Number = Annotated[float, Field(ge=-1e18, le=1e18, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, le=1e18, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=10**15)]
Whole = Annotated[int, Field(ge=-(10**15), le=10**15)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{1,64}$")]


def read_typed(folder: Path, name: str, kind: TypeAdapter[Any], most: int) -> Any:
    """The content of a JSON file in `folder`, `None` if there is no such file. Keys that the type has not are dropped.

    Args:
        folder: the run's.
        name: of the file in it.
        kind: the type that the content must have: no other types, no NaN, no infinite numbers.
        most: bytes that are read.

    Raises:
        FedReIDError: naming the file and the first place in it that is not as it should be.
    """
    path = folder / name
    try:
        content = read_bounded(inside(folder, name), most)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FedReIDError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        return kind.validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(printable(str(part), 40) for part in first["loc"][:6])
        reason = printable(str(first["msg"]), 120)
        raise FedReIDError(f"{path}: is not as a run writes it ({f'{place}: ' * bool(place)}{reason})") from error
