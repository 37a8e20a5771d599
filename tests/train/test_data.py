from __future__ import annotations

import pytest
from torch import nn

from instil.errors import InstilError
from instil.records import Prompt
from instil.train.data import by_prompt, context_of, fitting, pretraining_rows, read_all


def test_what_is_too_long_is_left_out_and_counted(capsys):
    pairs = [([1] * 2, [2] * 3), ([1] * 5, [2]), ([1], [2] * 6), ([1] * 4, [2] * 5)]
    assert fitting(pairs, 4, 5, "train pairs") == [pairs[0], pairs[3]]
    assert "2 of 4 train pairs left out" in capsys.readouterr().err
    assert fitting(pairs, 4, 5, "train pairs", context=8) == [pairs[0]]  # 4 + 5 do not fit 8
    assert "3 of 4" in capsys.readouterr().err


def test_one_id_with_two_texts_is_refused():
    same = Prompt(id="p", text="a")
    assert by_prompt([same, same]) == {"p": same}
    with pytest.raises(InstilError, match="prompt p occurs with two texts"):
        by_prompt([same, Prompt(id="p", text="b")])


def test_no_records_are_an_error(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(InstilError, match=r"empty\.jsonl: no prompt to read"):
        read_all((tmp_path / "empty.jsonl",), Prompt)
    with pytest.raises(InstilError, match="no file given: no prompt to read"):
        read_all((), Prompt)


def test_too_little_pretraining_text_is_found_before_training(world):
    from instil.lm.text import Codec

    codec = Codec.load(world.sft / "final")
    rows = pretraining_rows(codec, (world.text,), 16, at_least=10)
    assert rows.shape[1] == 16
    with pytest.raises(InstilError, match=r"rows of 16 tokens, and one batch takes 100000"):
        pretraining_rows(codec, (world.text,), 16, at_least=100_000)


def test_a_model_without_a_context_reads_any_length():
    model = nn.Module()
    model.config = object()
    assert context_of(model) > 10**9
