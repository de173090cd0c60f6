"""Custom crops: four ways to encode person and camera, several clients, and the split by rule."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest
from dataset_files import message_of, read, rows_of, touch

from fedreid_pl.config import compose
from fedreid_pl.data.federated import TestSet
from fedreid_pl.data.locating import dataset_folders
from fedreid_pl.data.readers.crops import find_crops
from fedreid_pl.data.samples import DISTRACTOR, JUNK
from fedreid_pl.errors import FedReIDError

SHOTS = [(p, c, k) for p in range(1, 9) for c in (1, 2, 3) for k in range(3) if p > 2 or c == 1]
"""Eight persons of three cameras; persons 1 and 2 are in one camera."""

WAYS = {
    "folders": "{p:04d}/shot_c{c}_{k}.jpg",
    "cameras": "{p:04d}/cam{c}/{k}.jpg",
    "flat": "{p:04d}_cam{c}_{k}.jpg",
}


def names(way: str) -> list[str]:
    return [WAYS[way].format(p=p, c=c, k=k) for p, c, k in SHOTS]


def table(root: Path, separator: str = ",", encoding: str = "utf-8", heading: str = "path,identity,camera") -> Path:
    lines = [heading.replace(",", separator)]
    for p, c, k in SHOTS:
        touch(root, f"all/{p}-{c}-{k}.jpg")
        lines.append(separator.join([f"all/{p}-{c}-{k}.jpg", str(p), str(c)][: heading.count(",") + 1]))
    (root / "people.csv").write_bytes("\r\n".join([*lines, ""]).encode(encoding))
    return root


def split_of(table):
    """Returns (person, camera, shot) of every image by split, for any of the four ways."""
    found = defaultdict(set)
    for path, person, camera, split in rows_of(table):
        found[split].add((person, camera, path.rstrip(".jpg")[-1]))
    return dict(found)


@pytest.mark.parametrize("way", [*WAYS, "table"])
def test_all_ways_give_the_same_persons_and_cameras(tmp_path, way):
    root = table(tmp_path) if way == "table" else touch(tmp_path, *names(way))
    found = read("crops", root)
    assert {(p, c, str(k)) for p, c, k in SHOTS} == set().union(*split_of(found).values())
    assert {person for person, _, _ in split_of(found)["train"]} >= {1, 2}


def test_the_rule(tmp_path):
    """Half of the six persons in several cameras are tested, with one query per camera and the rest as gallery."""
    found = read("crops", touch(tmp_path, *names("folders")))
    split = split_of(found)
    train, query, gallery = (split[name] for name in ("train", "query", "gallery"))
    tested = {person for person, _, _ in query}
    assert len(tested) == 3 and tested == {person for person, _, _ in gallery} and not tested & {1, 2}
    assert {person for person, _, _ in train} == set(range(1, 9)) - tested
    assert sorted((person, camera) for person, camera, _ in query) == [
        (p, c) for p in sorted(tested) for c in (1, 2, 3)
    ]
    assert len(gallery) == 3 * 3 * 2
    assert not len(TestSet("x", found.split("query"), found.split("gallery")).unmatched)
    assert found.remarks == (
        "split by seed 0, split 0: of 6 persons in at least two cameras, 3 are test persons and 3 training persons; "
        "training only: 2 persons in one camera",
    )


def test_seeds_and_shares(tmp_path):
    root = touch(tmp_path, *names("folders"))
    drawn = {tuple(sorted(split_of(read("crops", root, seed=seed))["query"])) for seed in range(6)}
    assert len(drawn) > 2 and split_of(read("crops", root, seed=1)) == split_of(read("crops", root, seed=1))
    assert read("crops", root, test_ids=0.9).split("query").num_identities() == 5
    assert "too few for two training persons and one test person with data.test_ids=0.1" in message_of(
        "crops", root, test_ids=0.1
    )


@pytest.mark.parametrize("counts", [(1, 1), (1, 4), (3, 1), (1, 1, 1)])
def test_every_query_has_a_match(tmp_path, counts):
    files = [f"{p}/c{c}_{k}.jpg" for p in range(8) for c, n in enumerate(counts, 1) for k in range(n)]
    found = read("crops", touch(tmp_path, *files))
    test = TestSet("x", found.split("query"), found.split("gallery"))
    assert not len(test.unmatched) and test.query.num_identities() == 4
    assert not set(test.query.paths) & set(test.gallery.paths)


def test_without_cameras(tmp_path):
    found = read(
        "crops", touch(tmp_path, *(f"{who}/{k}.jpg" for who in ("anna", "berta", "carl", "dora") for k in "xyz"))
    )
    assert not found.has_cameras and len(found.split("query")) == 2 and len(found.split("gallery")) == 4
    assert "no camera in names" in found.found
    assert not len(TestSet("x", found.split("query"), found.split("gallery")).unmatched)


def test_junk_and_distractors_are_in_the_gallery(tmp_path):
    found = read("crops", touch(tmp_path, *names("folders"), "junk/c1_1.jpg", "distractor/c2_1.jpg"))
    assert {JUNK, DISTRACTOR} <= set(found.split("gallery").identities.tolist())


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["anna_c2_0001.jpg", "berta_c1_0002.jpg"], "does not begin with a person's number"),
        (["track_3_cam1_10.jpg"], "a track, which starts again in every camera"),
        (["20240131_c1_7.jpg"], "begins with a date"),
        (["1/a_c1.jpg", "2/b.jpg"], "contains no camera"),
        (["1/cam_door_3.jpg"], "data.name_pattern='(?i)cam_(?P<camera>[A-Za-z]+)'"),
        (["1/cam1/a.jpg", "1/b.jpg"], "images lie in the person's folder"),
        (["1/a_c1.jpg", "2_c1.jpg"], "images are in the folder itself"),
        (["readme.txt"], "contains no image; expected PERSON/IMAGE"),
    ],
)
def test_invalid_names_are_refused(tmp_path, files, said):
    text = message_of("crops", touch(tmp_path, *files))
    assert said in text and str(tmp_path) in text


def test_a_pattern(tmp_path):
    files = [f"door{c}-{who}-{k}.jpg" for who in ("anna", "berta", "carl", "dora") for c in (1, 2) for k in (1, 2)]
    root = touch(tmp_path, *files)
    found = read("crops", root, name_pattern=r"^(?P<camera>[a-z]+\d)-(?P<person>[a-z]+)-(?P<frame>\d+)")
    assert found.num_identities() == 4 and set(found.cameras.tolist()) == {1, 2}
    assert "has no group person" in message_of("crops", root, name_pattern=r"(?P<camera>door\d)")


HEADINGS = ["Path,Identity,Camera", "file,pid,cam", "IMAGE PATH,Person ID,Camera_ID", "img,id,camid"]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_tables_in_all_formats_are_read_equally(tmp_path, separator, encoding):
    plain = split_of(read("crops", table(tmp_path / "plain")))
    heading = HEADINGS[len(separator + encoding) % len(HEADINGS)]
    assert split_of(read("crops", table(tmp_path / "other", separator, encoding, heading))) == plain


def test_tables_with_a_split_or_without_cameras(tmp_path):
    root = table(tmp_path / "a", heading="path,identity")
    assert not read("crops", root).has_cameras
    root = touch(tmp_path / "b", "1.jpg", "2.jpg", "3.jpg", "4.jpg")
    lines = ["file,person,cam,set", "1.jpg,anna,door,train", "2.jpg,bo,door,Train"]
    lines += ["3.jpg,cy,door,probe", "4.jpg,cy,gate,gallery"]
    (root / "own.tsv").write_text("\n".join(lines).replace(",", "\t"))
    assert [row[1:] for row in rows_of(read("crops", root))] == [
        (0, 1, "train"),
        (1, 1, "train"),
        (2, 1, "query"),
        (2, 2, "gallery"),
    ]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["file;pid;cam", "1.jpg;x;1", "1.jpg;2;1"], "line 2, column pid: identity 'x' is not a number"),
        (["file;pid;cam", "1.jpg;1;?"], "line 2, column cam: camera '?' is not a number"),
        (["file;pid;cam", "1.jpg;1;1", "none.jpg;2;1"], "line 3, column file: there is no image"),
        (["file;pid;cam", "1.jpg;;1"], "line 2, column pid: has no identity"),
        (["file;person;cam", "1.jpg;1;1;9"], "line 2: 4 values for 3 columns"),
        (["file;id;pid", "1.jpg;1;1"], "the first line names the identity twice, id and pid"),
        (["file;pid;cam;set", "1.jpg;1;1;test"], "line 2, column set: split 'test' is not one of"),
    ],
)
def test_errors_of_a_table_name_line_and_column(tmp_path, lines, said):
    root = touch(tmp_path, "1.jpg")
    (root / "own.csv").write_text("\n".join(lines) + "\n")
    assert f"{root / 'own.csv'}" in message_of("crops", root) and said in message_of("crops", root)


CLIENTS = {
    "persons": (names("folders"), None),
    "cameras": (names("cameras"), None),
    "flat": (names("flat"), None),
    "two of persons": ([f"{site}/{name}" for site in ("b", "a") for name in names("folders")], ["a", "b"]),
    "two of cameras": ([f"{site}/{name}" for site in ("b", "a") for name in names("cameras")], ["a", "b"]),
    "two flat": ([f"{site}/{name}" for site in ("b", "a") for name in names("flat")], ["a", "b"]),
    "mixed": ([f"b/{name}" for name in names("flat")] + [f"a/{name}" for name in names("cameras")], ["a", "b"]),
    "named cameras": ([f"{p:04d}/{c}/{k}.jpg" for p in range(9) for c in ("door", "gate") for k in "12"], None),
    "persons of clients": ([f"{s}/{p:04d}/{k}.jpg" for s in ("a", "b") for p in range(9) for k in "12"], ["a", "b"]),
}


@pytest.mark.parametrize("case", CLIENTS)
def test_one_client_or_several(tmp_path, case):
    files, clients = CLIENTS[case]
    root = touch(tmp_path, *files)
    assert find_crops(root) == ([root] if clients is None else [root / client for client in clients])


def test_clients_have_neutral_names_or_names_given_by_the_user(tmp_path):
    touch(tmp_path, *(f"{site}/{name}" for site in ("ward9", "ward3") for name in names("folders")))
    words = ["data=crops", f"data.root={tmp_path}"]
    assert dataset_folders(compose(words).data, tmp_path) == {
        "client1": tmp_path / "ward3",
        "client2": tmp_path / "ward9",
    }
    named = compose([*words, "data.datasets=[north=ward9,south=ward3]"]).data
    assert dataset_folders(named, tmp_path) == {"north": tmp_path / "ward9", "south": tmp_path / "ward3"}


def test_persons_or_clients(tmp_path):
    touch(tmp_path, *(f"{one}/{two}/1.jpg" for one in ("a", "b", "c") for two in ("x", "y", "z")))
    with pytest.raises(FedReIDError, match=r"may be persons or clients; set data.datasets=\[.\]"):
        find_crops(tmp_path)
    assert dataset_folders(compose(["data=crops", f"data.root={tmp_path}", "data.datasets=[.]"]).data, tmp_path)


def test_a_public_folder_with_only_junk_is_refused(tmp_path):
    touch(tmp_path, "-1_c1s1_000401_03.jpg", "-1_c2s1_000402_03.jpg")
    assert "contains no training image" in message_of("crops", tmp_path, train_only=True)
