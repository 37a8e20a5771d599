from __future__ import annotations

import json

import pytest
import torch

from instil import cli
from instil.errors import InstilError
from instil.lm.batches import stream_batch
from instil.lm.models import load_policy
from instil.lm.text import Codec
from instil.train.pretrain import Config, continuations, mean_loss, micro_rows, text_loss


def test_the_loss_falls_and_the_result_is_a_plain_directory(reference, helpers):
    run = reference("pretrain")
    rows = helpers.metrics(run)
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.5
    assert [r["step"] for r in rows if "eval/loss" in r][:2] == [4, 8]
    assert rows[2]["num_tokens"] == 3 * 16 * 16
    # warm-up over 2 steps to 1e-2
    assert [r["learning_rate"] for r in rows[:2]] == pytest.approx([5e-3, 1e-2])
    policy, codec = load_policy(run / "final"), Codec.load(run / "final")
    assert policy.config.vocab_size == codec.vocab_size
    info = json.loads((run / "run.json").read_text())
    assert info["status"] == "finished"
    assert info["flops"] == 6 * info["params"] * info["tokens"]


def test_continuations_of_validation_text_are_written_as_it_learns(reference, helpers):
    run = reference("pretrain")
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    steps = [r["step"] for r in helpers.metrics(run) if "eval/loss" in r]
    assert [s["step"] for s in samples] == [step for step in steps for _ in range(4)]
    assert all("prompt" in s and "response" in s for s in samples)


def test_continuations_fit_the_model(world):
    codec, policy = Codec.load(world.sft / "final"), load_policy(world.sft / "final")
    context = policy.config.max_position_embeddings
    rows = torch.full((2, context), 40)  # a row may be as long as the context
    found = continuations(codec, policy, rows, seed=0)
    assert [f["prompt"] for f in found] == [codec.tokenizer.decode([40] * (context // 2))] * 2


def test_the_loss_is_the_mean_per_predicted_token_by_any_micro_batch(world):
    policy = load_policy(world.sft / "final")
    rows = torch.randint(2, 280, (6, 10), generator=torch.Generator().manual_seed(0))
    every = policy(input_ids=rows).logits[:, :-1].log_softmax(-1)
    expected = -every.gather(2, rows[:, 1:, None]).mean().item()
    loss = text_loss(policy)
    whole = loss(stream_batch(rows), 54)[0].item()  # 6 rows of 9 predictions
    parts = sum(loss(stream_batch(part), 54)[0].item() for part in rows.split(4))
    assert whole == pytest.approx(expected, abs=1e-5)
    assert parts == pytest.approx(expected, abs=1e-5)
    for tokens in (1, 40, 1000):  # a row at a time, four, all
        assert mean_loss(policy, rows, tokens) == pytest.approx(expected, abs=1e-5)


def test_micro_rows_cut_one_batch(tmp_path):
    rows = torch.arange(40).reshape(10, 4)
    config = Config(text=(), out=tmp_path, batch_size=5)
    (whole,) = micro_rows(rows, config, 1000, 3)
    assert len(whole.tokens) == 5
    for tokens, sizes in ((11, [2, 2, 1]), (8, [2, 2, 1]), (1, [1] * 5)):  # rows of 4 are never cut
        parts = micro_rows(rows, config, tokens, 3)
        assert [len(p.tokens) for p in parts] == sizes
        assert torch.equal(torch.cat([p.tokens for p in parts]), whole.tokens)


def test_training_goes_on_from_a_model_with_its_tokenizer(world, tmp_path):
    out = tmp_path / "more"
    words = [*world.arguments("pretrain", out), "--model", str(world.sft), "--epochs", "0.1"]
    assert cli.main(words) == 0
    old, new = Codec.load(world.sft / "final"), Codec.load(out / "final")
    assert new.same_tokens(old)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"row_length": 600}, "row_length 600 must be between 2 and context 512"),
        ({"width": 30}, "width 30 is not a multiple of heads 4"),
        ({"eval_every": 0}, "eval_every 0 must be greater than 0"),
        ({"valid": 1.0}, r"valid 1.0 must be in \[0, 1\)"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, complaint, tmp_path):
    with pytest.raises(InstilError, match=complaint):
        Config(text=(), out=tmp_path, **wrong)
