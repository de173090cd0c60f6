"""The grammar of person, camera and frame in the names of image files; docs/datasets.md shows it as a table.

The extension and the case of a name are ignored. Fields are separated by characters other than letters and digits.

    camera   c1 c01 c001, cam1, cam_1, camera-1, ch01, view2, cam_a ...   c1s1 c1t2: camera 1, then a sequence
    camera   if a name has several different cameras, the one directly after the person's number counts, else none
    person   a marked number (person012, p12, pid_12, id-12), else the number at the beginning (0002; -1 is junk)
    frame    a marked number (f0046985, frame_12), else the longest remaining number

`data.name_pattern` replaces this grammar by a regular expression with the groups `person`, `camera`, `frame`.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

GROUPS = ("person", "camera", "frame")

_CAM = (
    r"(?:(?:web|ip|video|tele)?cam(?:era)?|kamera|c[aá]mara|cam[ée]ra|cctv"
    r"|摄像头|摄像机|相机|监控|カメラ|카메라|камера)"
)
_WORD = rf"(?:{_CAM}|channel|ch|view)"
_END = r"(?![0-9])(?![a-z])|(?![0-9])(?=(?:s|t|f|x|p|v|seq|tl|trk|track|frm|frame|img|im|id|pid)[0-9])"
_START = r"(?:(?:^|(?<=[\W_]))(?P<sequence>s[0-9]{1,4})?|^-?[0-9]{1,18})"  # s1c1, and 0001C1T0001F001
CAMERA = re.compile(
    rf"{_START}(?P<text>c(?P<short>[0-9]{{1,3}})(?:{_END})"
    rf"|{_WORD}[\W_]{{0,2}}(?P<long>[0-9]{{1,3}})(?:{_END})"
    rf"|{_CAM}(?:[\W_](?P<letter>[a-z])|(?P<joined>[a-d]))(?![^\W_]))"
)
LIKE_CAMERA = re.compile(
    rf"(?P<word>(?<![^\W_])c[\W_]?|{_CAM}[\W_]{{0,2}}|(?<![^\W_]){_WORD}[\W_]{{0,2}})(?P<number>[0-9]+)"
    r"|(?P<named>(?<![^\W_])cam(?:era)?[\W_]{1,2})(?P<name>[^\W_0-9]{2,})"
    r"|(?P<before>(?<![^\W_])[0-9]{1,3})(?P<behind>cam(?:era)?)(?![^\W_])"
)
"""Text that may be a camera, in a name in which `CAMERA` finds none."""

_MARKET = re.compile(
    r"(-1|(?!(?:19|20)[0-9]{6}_)[0-9]{1,18})_c([0-9]{1,3})(?:s[0-9]{1,4})?_([0-9]{2,18})(?:_[0-9]{1,2})?\.[a-zA-Z]{3,4}"
)
"""The usual names. The rest of the grammar gives the same result for them, but takes ten times as long."""

_PERSON = re.compile(
    r"(?<![^\W_])(?:persons?|identity|subject|pedestrian|ped|pid|id)[\W_]?(?P<number>[0-9]{1,18})(?![^\W_])"
)
_TRACK = re.compile(r"(?<![^\W_])(?:tracklet|track|trk|tid)[\W_]?[0-9]+")
_FRAME = re.compile(r"(?:(?<![^\W_])|(?<=[0-9]))(?:frame|frm|f)[\W_]?(?P<number>[0-9]+)(?![0-9])")
_FRONT = re.compile(r"(?!-(?!1(?![0-9])))[\W_]*?(?P<mark>p[\W_]?)?(?P<number>(?<![^_ ])-1|[0-9]{1,18})(?=[\W_]|$)")
_DATE = re.compile(r"(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])(?:[0-9]{4}|[0-9]{6})?")
_FRONT_CAMERA = re.compile(rf"(?:-1|[0-9]{{1,18}})[\W_]?(?P<text>c[0-9]{{1,3}})(?:{_END})")
_MSMT17 = re.compile(r"(?P<person>[0-9]{4})_[0-9]{3}_(?P<camera>[0-9]{2})_[0-9]{4}[a-z]+_(?P<frame>[0-9]{4})_[0-9]+")
_HASH = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?<![0-9a-z])[0-9a-f]{20,}(?![0-9a-z])")


@dataclass(frozen=True)
class NameParts:
    """Person, camera and frame in a file name.

    Args:
        person: digits or `-1`, as in the name; `None` if the name has no person.
        camera: digits or a word, as in the name; `None` if the name has no camera.
        frame: digits, as in the name; `None` if the name has no frame.
        spelled: spelling of the camera in the name, such as `"cam_1"`.
        problem: description of a part that cannot be parsed, with the pattern to set; empty if there is none.
    """

    person: str | None = None
    camera: str | None = None
    frame: str | None = None
    spelled: str = ""
    problem: str = ""

    def taken_apart(self) -> str:
        """Returns the parts as text for messages."""
        shown = [f"person {self.person}"] if self.person is not None else []
        if self.camera is not None:
            shown.append(f"camera {plain_number(self.camera)} ({self.spelled})")
        return ", ".join([*shown, *([f"frame {self.frame}"] if self.frame is not None else [])])


def parse_name(name: str, pattern: re.Pattern[str] | None = None) -> NameParts:
    """Returns person, camera and frame in the base name of an image file.

    Args:
        name: the base name, extension included.
        pattern: the user's pattern, which replaces the grammar; it is searched in the base name.

    >>> parse_name("0002_c1s1_000451_03.jpg").taken_apart()
    'person 0002, camera 1 (c1), frame 000451'
    >>> parse_name("cam01-0012-7.png").taken_apart()
    'person 0012, camera 1 (cam01), frame 7'
    """
    if pattern is not None:
        return _by_pattern(name, pattern)
    if (usual := _MARKET.fullmatch(name)) is not None:
        return NameParts(usual[1], usual[2], usual[3], f"c{usual[2]}")
    stem = name.rpartition(".")[0] or name
    text = unicodedata.normalize("NFKC", stem).lower()
    text = _HASH.sub(lambda found: "~" * len(found[0]), text)
    if (found := _MSMT17.fullmatch(text)) is not None:
        return NameParts(found["person"], found["camera"], found["frame"], f"third field {found['camera']}")
    cameras = list(CAMERA.finditer(text))
    if (front := _FRONT_CAMERA.match(text)) is not None:  # a camera directly after the person has priority
        cameras = [found for found in cameras if found.start("text") == front.start("text")]
    numbers = {plain_number(_camera(found)) for found in cameras}
    if len(numbers) > 1:
        spelled = " and ".join(dict.fromkeys(found["text"] for found in cameras))
        return NameParts(problem=f"contains two cameras, {spelled}; {_set('(?P<camera>[0-9]+)')}")
    if not cameras and (like := LIKE_CAMERA.search(text)) is not None:
        return NameParts(problem=_unclear(like))
    rest = text
    for found in cameras:
        start = found.start("sequence") if found["sequence"] else found.start("text")
        rest = rest[:start] + " " * (found.end("text") - start) + rest[found.end("text") :]
    person, problem = _person(rest)
    camera = _camera(cameras[0]) if cameras else None
    return NameParts(
        person[2] if person else None,
        camera,
        _frame(rest, person),
        cameras[0]["text"] if cameras else "",
        problem,
    )


def compile_pattern(text: str) -> re.Pattern[str]:
    """Returns the compiled regular expression of `data.name_pattern`.

    Raises:
        ValueError: if the text is not a regular expression, or has groups other than person, camera and frame.
    """
    try:
        pattern = re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"is not a regular expression ({error})") from error
    if unknown := [group for group in pattern.groupindex if group not in GROUPS]:
        raise ValueError(f"has the unknown group {unknown[0]}; the groups are {', '.join(GROUPS)}")
    return pattern


def number_cameras(spelled: Iterable[str]) -> dict[str, int]:
    """Returns a number for every camera of a dataset.

    The number is given by the digits of the name, else by the position of a letter in the alphabet, else by the
    alphabetical order of the names.

    >>> number_cameras(["01", "1", "12"]), number_cameras(["a", "c"]), number_cameras(["gate", "door"])
    ({'01': 1, '1': 1, '12': 12}, {'a': 1, 'c': 3}, {'door': 1, 'gate': 2})
    """
    names = sorted(set(spelled))
    if all(re.fullmatch(r"[0-9]{1,9}", name) for name in names):
        return {name: int(name) for name in names}
    if all(re.fullmatch(r"[a-zA-Z]", name) for name in names):
        return {name: ord(name.lower()) - ord("a") + 1 for name in names}
    places = {name: place for place, name in enumerate(sorted({plain_number(name) for name in names}), 1)}
    return {name: places[plain_number(name)] for name in names}


def camera_of_folder(name: str) -> str | None:
    """Returns the camera in a folder name such as `cam1`, `c01`, `camera-b` or `3`, or `None` for another name.

    >>> camera_of_folder("Cam_02"), camera_of_folder("3"), camera_of_folder("anna")
    ('02', '3', None)
    """
    text = unicodedata.normalize("NFKC", name).lower()
    if re.fullmatch(r"[0-9]{1,3}", text):
        return text
    found = CAMERA.fullmatch(text)
    return _camera(found) if found is not None and found["text"] == text else None


@functools.lru_cache(maxsize=4096)
def plain_number(text: str) -> str:
    """Returns digits without leading zeros, and any other text unchanged."""
    return str(int(text)) if re.fullmatch(r"[0-9]+", text) else text


def _camera(found: re.Match[str]) -> str:
    return found["short"] or found["long"] or found["letter"] or found["joined"]


def _person(rest: str) -> tuple[tuple[int, int, str] | None, str]:
    """Returns position and digits of the person in a name without its camera, and a description of a problem."""
    marked = list(_PERSON.finditer(rest))
    if len({int(found["number"]) for found in marked}) > 1:
        return None, f"contains two persons, {' and '.join(found[0] for found in marked)}; {_set('(?P<person>[0-9]+)')}"
    if marked:
        return (*marked[0].span(), marked[0]["number"]), ""
    found = _FRONT.match(rest)
    if found is None or _DATE.fullmatch(found["number"]):
        return None, ""
    return (*found.span("number"), found["number"]), ""


def _frame(rest: str, person: tuple[int, int, str] | None) -> str | None:
    if person is not None:
        rest = rest[: person[0]] + " " * (person[1] - person[0]) + rest[person[1] :]
    if (marked := _FRAME.search(rest)) is not None:
        return marked["number"]
    return max(re.findall(r"[0-9]+", rest), key=len, default=None)


def why_no_person(name: str) -> str:
    """Returns the reason why a name has no person, and the pattern to set."""
    text = name.lower()
    if _TRACK.search(text):
        reason = "contains the number of a track, which starts again in every camera, but no person"
    elif (found := _FRONT.match(text)) is not None and _DATE.fullmatch(found["number"]):
        reason = f"begins with a date ({found['number']}) and contains no person"
    else:
        reason = "does not begin with a person's number, such as 0002 or person_12"
    return f"{reason}; {_set('(?P<person>[0-9]+)_c(?P<camera>[0-9]+)')}"


def why_no_camera(other: str | None = None) -> str:
    """Returns the message about a name without a camera; `other` is a name with a camera, if there is one."""
    but = f", but {other} does" if other is not None else ""
    return f"contains no camera, such as c1 or cam_1{but}; {_set('_(?P<camera>[0-9]+)_')}"


def _unclear(like: re.Match[str]) -> str:
    """Returns the message about a match of `LIKE_CAMERA`, with a pattern for it."""
    if like["name"]:
        suggestion = f"{re.escape(like['named'])}(?P<camera>[A-Za-z]+)"
    elif like["before"]:
        suggestion = f"(?P<camera>[0-9]+){re.escape(like['behind'])}"
    else:
        suggestion = f"{re.escape(like['word'])}(?P<camera>[0-9]+)"
    return (
        f"contains '{like[0]}', which looks like a camera in an unknown spelling; {_set('(?i)' + suggestion)}, "
        "or data.name_pattern=. if names contain no camera"
    )


def _set(pattern: str) -> str:
    return f"describe the names, for example by data.name_pattern='{pattern}'"


def _by_pattern(name: str, pattern: re.Pattern[str]) -> NameParts:
    found = pattern.search(name)
    if found is None:
        return NameParts(problem=f"does not match data.name_pattern={pattern.pattern}")
    groups = found.groupdict()
    if empty := [group for group, value in groups.items() if not value]:
        return NameParts(problem=f"matches data.name_pattern={pattern.pattern} with an empty group {empty[0]}")
    if (number := groups.get("camera")) and number.isdecimal() and len(number) > 9:
        return NameParts(
            problem=f"data.name_pattern={pattern.pattern} matches {number} as camera; at most 9 digits are allowed"
        )
    return NameParts(groups.get("person"), groups.get("camera"), groups.get("frame"), groups.get("camera") or "")
