"""evals/source.py: files of a folder, rows of a hub, every field there."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from instil.errors import InstilError
from instil.evals.source import Folder, Hub, rows, spread


def test_a_file_is_found_plain_packed_and_one_folder_down(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    for name in ("a.csv", "b.csv.gz", "below/c.csv.gz"):
        (tmp_path / name).touch()
    folder = Folder(tmp_path)
    assert folder.find("a.csv") == tmp_path / "a.csv"
    assert folder.find("missing.csv", "b.csv") == tmp_path / "b.csv.gz"
    assert folder.find("c.csv") == tmp_path / "below/c.csv.gz"
    assert folder.find("d.csv") is None
    assert folder.hub("name", "test") is None


def test_a_folder_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InstilError, match="is not a folder; give --data"):
        Folder(tmp_path / "nothing")


def test_the_hub_needs_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InstilError, match=r"pip install 'instil\[datasets\]'"):
        Hub(tmp_path).hub("rte", "validation")


def test_rows_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(name: str, config: str | None, split: str) -> list[dict[str, str]]:
        if name == "gone":
            raise ConnectionError("no route")
        return [{"name": name, "config": str(config), "split": split}]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    hub = Hub(tmp_path)
    assert hub.hub("glue", "validation", "sst2") == [
        {"name": "glue", "config": "sst2", "split": "validation"}
    ]
    assert hub.hub("squad", "train")[0]["config"] == "None"
    with pytest.raises(InstilError, match=r"gone \(test\): cannot be had .* no route"):
        hub.hub("gone", "test")


def test_a_changed_column_is_named_with_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "questions.csv.gz"
    path.write_bytes(gzip.compress(b"Question,Answer\nwhy?,so\n"))
    assert list(rows(path, "Question")) == [(f"{path}:2", {"Question": "why?", "Answer": "so"})]
    with pytest.raises(InstilError, match=rf"{path}:2: no field 'Best Answer' \(there are: Que"):
        list(rows(path, "Question", "Best Answer"))


def test_quotation_marks_of_a_tsv_file_are_text(tmp_path: Path) -> None:
    path = tmp_path / "dev.tsv"
    path.write_text('sentence\tlabel\n" good "\t1\n"so-so\t0\n')
    assert [row["sentence"] for _, row in rows(path, "sentence", "label")] == ['" good "', '"so-so']
    path.write_text("sentence\tlabel\ngood\n")
    with pytest.raises(InstilError, match=r"dev.tsv:2: 1 columns, the header has 2"):
        list(rows(path, "sentence"))
    path.write_bytes(b"sentence\tlabel\n\xff\t1\n")
    with pytest.raises(InstilError, match=r"dev.tsv:2: is not UTF-8"):
        list(rows(path, "sentence"))


def test_a_limit_is_spread_over_the_data() -> None:
    assert spread(range(10), 0) == spread(range(10), 12) == list(range(10))
    assert spread(range(10), 4) == [0, 2, 5, 7]
    assert spread(range(3), 1) == [0]
