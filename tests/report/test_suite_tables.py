"""Numbers, names and marks of an evaluation's tables."""

from __future__ import annotations

import pytest

from instil.report import paper
from instil.report.suite_tables import (
    Cell,
    Footnotes,
    Key,
    Line,
    amount,
    beside,
    escape,
    judgement,
    label,
    markdown,
    table_14,
    title,
)


def difference(low, high, better="higher", tax=False, p_adjusted=None):
    mean = (low + high) / 2
    return {"mean": mean, "low": low, "high": high, "better": better, "tax": tax} | {
        "p_adjusted": p_adjusted
    }


@pytest.mark.parametrize(
    ("found", "mark", "kind"),
    [
        (difference(0.01, 0.03), "▲ better", "better"),
        (difference(-0.03, -0.01), "▼ worse", "worse"),
        (difference(0.01, 0.03, "lower"), "▲ worse", "worse"),
        (difference(-0.03, -0.01, "lower"), "▼ better", "better"),
        (difference(-0.03, -0.01, "neither"), "▼ lower", ""),
        (difference(0.01, 0.03, "neither"), "▲ higher", ""),
        (difference(-0.01, 0.03), "", ""),
        (difference(0.0, 0.03), "", ""),  # 0 is in the interval
        # several public tasks at once: only the adjusted p-value counts
        (difference(-0.03, -0.01, tax=True, p_adjusted=0.049), "▼ alignment tax", "fall"),
        (difference(-0.03, -0.01, tax=True, p_adjusted=0.05), "", ""),
        (difference(-0.03, -0.01, tax=True), "", ""),
        (difference(0.01, 0.03, tax=True, p_adjusted=0.001), "▲ better", "better"),
        (difference(0.01, 0.03, p_adjusted=0.2), "", ""),
        (difference(0.01, 0.03) | {"low": None}, "", ""),  # one source has no interval
        (None, "", ""),
    ],
)
def test_marks(found, mark, kind):
    assert judgement(found) == (mark, kind)


def test_numbers_in_their_units():
    assert amount(0.7264, "share") == "72.6\u00a0%"
    assert amount(-0.031, "share", bare=True) == "−3.1"
    assert amount(64.28, "points") == "64.3"
    assert amount(0.7352, "bits") == "0.735"
    assert amount(81.34, "score") == "81.3"


def test_names_as_people_write_them():
    assert title(Key("truthfulqa", "qa+instruction", "x")) == "TruthfulQA, QA + instruction prompt"
    assert title(Key("crows_pairs", "basic", "x", "age")) == "CrowS-Pairs, basic prompt, age"
    assert title(Key("new_task", "", "x")) == "new task"
    assert label("ppo-ptx") == "PPO-ptx"
    assert label("mine\n") == "mine\\n"


def test_the_paper_beside_a_row_minds_its_misprints():
    # the row that is printed "QA + instruct" is the instruction prompt's: .852 and .944, not .665
    assert beside(Key("truthfulqa", "instruction", "true")) == (
        "GPT 43.8 % / SFT 85.2 % / PPO 94.4 % / PPO-ptx 61.0 %"
    ).replace(" ", "\u00a0").replace("\u00a0/\u00a0", " / ")
    assert beside(Key("winogender", "biased", "entropy")) == (
        "GPT\u00a00.783 / SFT\u00a00.540 / PPO\u00a00.564 / PPO-ptx\u00a00.690"
    )
    assert "GPT-3 41 %" in beside(Key("closed_domain", "zero-shot", "hallucination"))
    # what is printed under TLDR is CNN/DM's; SQuAD v1.1 was not asked
    assert beside(Key("tldr", "zero-shot", "rouge_l")) == ""
    assert beside(Key("squad_v1", "few-shot", "f1")) == ""


def test_table_14_is_whole():
    for name, row in paper.TABLE_14.items():
        unit, figures = table_14(*name.split("/"))
        assert [len(sizes) for sizes in figures] == [3, 3, 3, 3], name
        least, most = {"points": (10, 82)}.get(unit, (0.15, 0.95))
        assert all(least < figure < most for sizes in figures for figure in sizes), (name, row)


def test_table_14_agrees_with_the_tax_that_is_told():
    # PPO - GPT and PPO-ptx - GPT at 175B, few-shot
    told = {name.split(",")[0]: rest for name, *rest in paper.TAX}
    for name, task, measure in (
        ("DROP", "drop", "f1"),
        ("SQuADv2", "squad_v2", "f1"),
        ("QuAC", "quac", "f1"),
        ("French to English", "translation", "bleu"),
        ("HellaSwag", "hellaswag", "accuracy"),
        ("RTE", "rte", "accuracy"),
        ("SST", "sst", "accuracy"),
        ("WSC", "wsc", "accuracy"),
    ):
        unit, figures = table_14(task, "few-shot", measure)
        times = 100 if unit == "share" else 1
        gpt, _, ppo, ptx = (times * sizes[2] for sizes in figures)
        assert [ppo - gpt, ptx - gpt] == pytest.approx(told[name], abs=0.06), name


def test_a_table_in_markdown():
    rows = [
        Line("A", "b, bits", "n 5", [Cell("0.500", "0.400 to 0.600"), None], notes=[2]),
        Line("B", "c", "", [Cell("1.0", n="n 3"), Cell("2.0", n="n 4", mark="▲ better")], "GPT 1"),
    ]
    assert markdown(["one", "t|o"], rows) == (
        "| task, setting: measure | n | one | t\\|o | paper, 175B: GPT / SFT / PPO / PPO-ptx |\n"
        "| --- | ---: | ---: | ---: | --- |\n"
        "| A: b, bits<sup>2</sup> | n 5 | 0.500 [0.400, 0.600] | not run |  |\n"
        "| B: c |  | 1.0 (n 3) | 2.0 (n 4) **▲ better** | GPT 1 |\n"
    )
    assert "paper" not in markdown(["one"], [Line("A", "b", "", [None])])


def test_what_markdown_would_read_is_escaped():
    assert escape("a_b*c|<i>[x](y)`") == "a\\_b\\*c\\|\\<i\\>\\[x\\](y)\\`"


def test_a_footnote_is_said_once():
    notes = Footnotes()
    assert [notes.add("a"), notes.add("b"), notes.add("a")] == [1, 2, 1]
    assert notes.texts == ["a", "b"]
