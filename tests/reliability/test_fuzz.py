"""200 altered inputs for every reader; `make fuzz` reads thousands with the same script."""

from __future__ import annotations

from pathlib import Path

import pytest
from reliability.fuzz import Tree, fuzz, judge, sources

from fedreid_pl.errors import FedReIDError

pytestmark = pytest.mark.system

EACH = 200


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return list(sources(tmp_path_factory.mktemp("sources")))


def test_all_layouts_and_the_words_are_fuzzed(readers: list[str]) -> None:
    assert {"market1501", "msmt17", "csv_table", "id_folders", "pictures", "words", "documents"} <= set(readers)


@pytest.mark.filterwarnings("ignore")
def test_altered_input_is_read_completely_or_refused_with_one_line(tmp_path: Path, readers: list[str]) -> None:
    report = fuzz(EACH, 2, tmp_path)
    assert report["findings"] == []
    assert set(report["counts"]) == set(readers)
    for reader, count in report["counts"].items():
        assert sum(count.values()) == EACH and count.get("refused") and count.get("read"), reader


def test_the_judge_finds_a_traceback_and_an_uncounted_file(tmp_path: Path) -> None:
    def raising(error: Exception) -> None:
        raise error

    assert judge(lambda: raising(FedReIDError("a.jpg: is empty"))) == ("refused", "")
    assert judge(lambda: raising(KeyError("a")))[0] == "finding" == judge(lambda: raising(FedReIDError("")))[0]
    assert judge(lambda: None) == ("read", "")
    tree = Tree("own/numbers", tmp_path / "tree")
    before = tree.files()
    (tree.root / "more.bin").write_bytes(b"more")
    assert judge(tree.read) == ("read", "")
    (tree.root / "more.bin").unlink()
    assert tree.files() == before
