"""A snippet as the paper asks about it."""

from __future__ import annotations

import pytest

from instil.errors import InstilError
from instil.evals.source import Folder
from instil.evals.task import Missing, Options
from instil.evals.tasks.sst import tasks

HEAD = "For each snippet of text, label the sentiment of the text as positive or negative.\n\n"


def test_the_files_of_glue(tmp_path):
    (tmp_path / "SST-2").mkdir()
    (tmp_path / "SST-2" / "dev.tsv").write_text('sentence\tlabel\na fine "film" \t1\nno , no \t0\n')
    (tmp_path / "SST-2" / "train.tsv").write_text("sentence\tlabel\nhides nothing \t0\n")
    zero, few = tasks(Folder(tmp_path), Options())
    assert [item.prompt() for item in zero.items] == [
        f'{HEAD}Text: a fine "film"\n\nLabel:',
        f"{HEAD}Text: no , no\n\nLabel:",
    ]
    assert zero.items[0].choices == (" negative", " positive")
    assert [item.meta["right"] for item in zero.items] == [1, 0]
    assert few.items[1].prompt() == (
        f"{HEAD}Text: hides nothing\n\nLabel: negative\n\nText: no , no\n\nLabel:"
    )


def test_a_label_that_is_no_label(tmp_path):
    (tmp_path / "sst2_dev.tsv").write_text("sentence\tlabel\nfine\t2\n")
    with pytest.raises(
        InstilError, match=r'sst2_dev.tsv:2: "label" is \'2\'; expected one of 0, 1'
    ):
        tasks(Folder(tmp_path), Options())


def test_without_a_file(tmp_path):
    with pytest.raises(Missing, match=r"SST-2/dev.tsv"):
        tasks(Folder(tmp_path), Options())
