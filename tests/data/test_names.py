"""The grammar of file names: person, camera and frame in public datasets, trackers and custom files."""

from __future__ import annotations

import re

import pytest

from fedreid_pl.data.names import camera_of_folder, compile_pattern, number_cameras, parse_name

KNOWN = [
    ("0002_c1s1_000451_03.jpg", "0002", "1", "000451"),  # Market-1501
    ("-1_c1s1_000401_03.jpg", "-1", "1", "000401"),  # junk of Market-1501
    ("0005_c2_f0046985.jpg", "0005", "2", "0046985"),  # DukeMTMC-reID
    ("0001_c1_301.png", "0001", "1", "301"),  # CUHK03-NP
    ("0000_c12_0000.jpg", "0000", "12", "0000"),  # MSMT17, converted
    ("0000_000_01_0303morning_0015_0.jpg", "0000", "01", "0015"),  # MSMT17
    ("0001C1T0001F001.jpg", "0001", "1", "001"),  # MARS
    ("0001_C1_F0001_X12345.jpg", "0001", "1", "0001"),  # DukeMTMC-VideoReID
    ("0001_c001_00016450_0.jpg", "0001", "001", "00016450"),  # VeRi-776
    ("094_1_c9_015833.png", "094", "9", "015833"),  # LTCC
    ("0001_s00_c03_f000123.jpg", "0001", "03", "000123"),  # RandPerson
    ("cam1_person001_00317.png", "001", "1", "00317"),  # iLIDS-VID
    ("cam_1_00002_00000.png", "00002", "1", "00000"),  # FedReID
    ("0001_cam1_0002.jpg", "0001", "1", "0002"),
    ("0001_C1_0.png", "0001", "1", "0"),
    ("0001-c1-0.png", "0001", "1", "0"),
    ("cam01_0001_0.png", "0001", "01", "0"),
    ("cam01-0001-0.png", "0001", "01", "0"),
    ("0001_Camera-1_3.jpg", "0001", "1", "3"),
    ("0001 cam 1 (2).jpg", "0001", "1", "2"),
    ("0001_cam#1_2.jpg", "0001", "1", "2"),
    ("0001.c1.0002.jpg", "0001", "1", "0002"),
    ("c1_0001_0002.jpg", "0001", "1", "0002"),
    ("0001_s1c2_77.jpg", "0001", "2", "77"),
    ("person_12_cam_3_frame_100.png", "12", "3", "100"),
    ("p12_c3_f100.jpg", "12", "3", "100"),
    ("frame_0001_id_3_cam2.jpg", "3", "2", "0001"),
    ("ID003_CAM2_000123.jpg", "003", "2", "000123"),
    ("0001_ch01_22.jpg", "0001", "01", "22"),  # video recorders
    ("0001_view2_22.jpg", "0001", "2", "22"),
    ("0001_cam_b_22.jpg", "0001", "b", "22"),
    ("0001_camB.jpg", "0001", "b", None),
    ("0001_摄像头2_3.jpg", "0001", "2", "3"),
    ("0001_c\uff11_2.jpg", "0001", "1", "2"),
    ("0001_c1_p2.jpg", "0001", "1", "2"),
]
NO_CAMERA = [
    "cat.jpg",
    "x_c.jpg",
    "xc1.jpg",
    "pic1.jpg",
    "campus_01.jpg",
    "preview_1.jpg",
    "search_1.jpg",
    "chi_01.jpg",
]
HASHES = ["3f2504e0-4f89-11d3-9c0c-c305e82c3301.jpg", "c1d9fc1cc800332567a0da25a1ce68c1.png"]
UNCLEAR = {
    "cam_front_0001.jpg": "(?i)cam_(?P<camera>[A-Za-z]+)",
    "0100_cam_front_99.png": "(?i)cam_(?P<camera>[A-Za-z]+)",
    "anna_c_1.jpg": "(?i)c_(?P<camera>[0-9]+)",
    "x_c1234.jpg": "(?i)c(?P<camera>[0-9]+)",
    "0001_1cam_2.jpg": "(?i)(?P<camera>[0-9]+)cam",
    "0001_mycam7_2.jpg": "(?i)cam(?P<camera>[0-9]+)",
    "0001_c1abc.jpg": "(?i)c(?P<camera>[0-9]+)",
}


@pytest.mark.parametrize(("name", "person", "camera", "frame"), KNOWN)
def test_known_spellings(name, person, camera, frame):
    parts = parse_name(name)
    assert (parts.person, parts.camera, parts.frame, parts.problem) == (person, camera, frame, "")


@pytest.mark.parametrize("name", [*NO_CAMERA, *HASHES])
def test_names_without_a_camera(name):
    parts = parse_name(name)
    assert parts.camera is None and not parts.problem


@pytest.mark.parametrize(("name", "pattern"), UNCLEAR.items())
def test_the_error_for_a_camera_like_part_suggests_a_working_pattern(name, pattern):
    parts = parse_name(name)
    assert parts.camera is None and f"data.name_pattern='{pattern}'" in parts.problem
    read = parse_name(name, compile_pattern(pattern))
    assert read.camera and read.camera in name and not read.problem


def test_two_cameras():
    assert "two cameras, c1 and c2" in parse_name("c1_c2_0001.jpg").problem
    assert parse_name("1_c4_c7.jpeg").camera == "4"  # directly after the person
    assert not parse_name("cam1_c01_0001.jpg").problem  # the same camera twice


@pytest.mark.parametrize("name", ["20240131_120000_c1.jpg", "-2_c1.jpg", "anna_c2_0001.jpg", "track_3_cam1_f10.jpg"])
def test_names_without_a_person_have_none(name):
    assert parse_name(name).person is None


def test_the_fast_path_agrees_with_the_grammar(monkeypatch):
    names = [
        f"{who}_c{camera}{sequence}_{frame}{box}.jpg"
        for who in ("-1", "0", "0012")
        for camera in ("1", "09", "112")
        for sequence in ("", "s1")
        for frame in ("0015", "20240131")
        for box in ("", "_03")
    ]
    short = [parse_name(name) for name in names]
    monkeypatch.setattr("fedreid_pl.data.names._MARKET", re.compile("(?!)"))
    assert [parse_name(name) for name in names] == short


def test_patterns():
    pattern = compile_pattern(r"(?P<person>\d+)-(?P<camera>[a-z]+)")
    parts = parse_name("0012-door-7.jpg", pattern)
    assert (parts.person, parts.camera, parts.frame) == ("0012", "door", None)
    assert "does not match data.name_pattern=" in parse_name("0012.jpg", pattern).problem
    assert parse_name("anna_c_1.jpg", compile_pattern(".")).problem == ""
    assert "empty group camera" in parse_name("1-.jpg", compile_pattern(r"(?P<person>\d)-(?P<camera>[a-z]*)")).problem
    with pytest.raises(ValueError, match="group cam; the groups are person, camera, frame"):
        compile_pattern(r"(?P<cam>\d)")
    with pytest.raises(ValueError, match="not a regular expression"):
        compile_pattern("(")


def test_numbers_of_cameras():
    assert number_cameras(["1", "001", "12"]) == {"1": 1, "001": 1, "12": 12}
    assert number_cameras(["a", "B"]) == {"a": 1, "B": 2}
    assert number_cameras(["gate", "2", "02"]) == {"2": 1, "02": 1, "gate": 2}


def test_folders_of_cameras():
    assert [camera_of_folder(name) for name in ("cam1", "C02", "Camera-b", "7", "view_3")] == ["1", "02", "b", "7", "3"]
    assert [camera_of_folder(name) for name in ("anna", "0012", "cam1_x", "thumbnails")] == [None] * 4
