"""Reads JSON files of a run's folder and checks them against a type before they are used."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from fedreid_pl.bounded import inside, read_bounded
from fedreid_pl.errors import FedReIDError, printable, visible

LONGEST = 200
"""Largest number of characters of a name."""


def _shown(text: str) -> str:
    if visible(text) != text:
        raise ValueError("contains control characters")
    return text


Name = Annotated[str, Field(min_length=1, max_length=LONGEST), AfterValidator(_shown)]
Share = Annotated[float, Field(ge=0, le=1.000001, allow_inf_nan=False)]
Number = Annotated[float, Field(ge=-1e18, le=1e18, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, le=1e18, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=10**15)]
Whole = Annotated[int, Field(ge=-(10**15), le=10**15)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{1,64}$")]


def read_typed(folder: Path, name: str, kind: TypeAdapter[Any], most: int) -> Any:
    """Returns the content of a JSON file, `None` if there is no such file; keys that are not in the type are removed.

    Args:
        folder: folder of the run.
        name: name of the file.
        kind: type of the content. Values are not converted, and NaN and infinite numbers are refused.
        most: largest size of the file in bytes.

    Raises:
        FedReIDError: if the file cannot be read or is not valid; the message names the file and the first invalid
            place.
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
        raise FedReIDError(
            f"{path}: has another format than a run writes ({f'{place}: ' * bool(place)}{reason}); restore the file "
            "that fedreid-pl wrote"
        ) from error
