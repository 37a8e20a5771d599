"""Summaries: prompts, shown texts, and ROUGE-L by hand."""

from __future__ import annotations

import json

import pytest

from instil.errors import InstilError
from instil.evals.source import Folder
from instil.evals.task import Answer, Item, Missing, Options
from instil.evals.tasks.summaries import grade, tasks


def write(path, text, summary, n):
    rows = ({text: f"Text {i}.\nMore.", summary: f"Sum {i}.\nEnd."} for i in range(n))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.slow
def test_the_prompt(tmp_path):
    write(tmp_path / "cnn_dailymail_test.jsonl", "article", "highlights", 2)
    write(tmp_path / "cnn_dailymail_validation.jsonl", "article", "highlights", 1)
    zero, few = tasks(Folder(tmp_path), Options())
    assert zero.name == "cnn_dm"
    assert zero.items[1].prompt() == "Text 1.\nMore.\n\nTL;DR:"
    # a shown summary is one line, for answers end at the first line break
    assert few.items[1].prompt() == (
        "Text 0.\nMore.\n\nTL;DR: Sum 0. End.\n\nText 1.\nMore.\n\nTL;DR:"
    )
    assert zero.items[1].meta == {"reference": "Sum 1. End."}


def test_without_a_training_file_the_first_are_shown_and_not_asked(tmp_path):
    write(tmp_path / "tldr_3_filtered_test.jsonl", "post", "summary", 18)
    zero, few = tasks(Folder(tmp_path), Options(limit=2))
    assert zero.name == "tldr"
    # of the texts 15, 16 and 17 two, evenly spaced
    assert [item.text[:7] for item in zero.items] == ["Text 15", "Text 16"]
    assert len(few.items[0].shots) == 15
    assert "the first 15 texts are shown" in few.note
    write(tmp_path / "tldr_3_filtered_test.jsonl", "post", "summary", 15)
    with pytest.raises(InstilError, match="tldr: all of its 15 texts are shown"):
        tasks(Folder(tmp_path), Options())


def test_rows_of_the_hub(tmp_path):
    class Hub(Folder):
        def hub(self, name, split, config=""):
            if name == "abisee/cnn_dailymail":
                assert config == "3.0.0"
                return [{"article": f"{split} article", "highlights": "short"}]
            prompt = f"SUBREDDIT: r/x\n\nTITLE: t\n\nPOST: {split} post\n\nTL;DR:"
            return [{"prompt": prompt, "completion": " short"}]

    news, _, zero, few = tasks(Hub(tmp_path), Options())
    assert news.items[0].text == "test article\n\nTL;DR:"
    assert zero.items[0].text == "test post\n\nTL;DR:"
    assert few.items[0].shots == ("validation post\n\nTL;DR: short\n\n",)


def test_what_is_wrong_is_named(tmp_path):
    with pytest.raises(Missing, match=r"cnn_dailymail_test\.jsonl or tldr_3_filtered_test\.jsonl"):
        tasks(Folder(tmp_path), Options())
    path = tmp_path / "tldr_3_filtered_test.jsonl"
    path.write_text('{"post": "x", "summary": ""}\n')
    with pytest.raises(InstilError, match=r"tldr_3_filtered_test\.jsonl:1: summary: expected a te"):
        tasks(Folder(tmp_path), Options())
    path.write_text('{"post": "x"}\n')
    with pytest.raises(InstilError, match=r"tldr_3_filtered_test\.jsonl:1: no field 'summary'"):
        tasks(Folder(tmp_path), Options())


def test_grades():
    item = Item(id="x", text="", meta={"reference": "the cat sat"})
    # "the cat" of 2 and 3 words: 2 * 2 / 5
    assert grade(item, Answer(text="The cat!")) == {"rouge_l": pytest.approx(80)}
    assert grade(item, Answer(text="")) == {"rouge_l": 0}
