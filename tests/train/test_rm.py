from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace

import msgspec
import pytest
import torch

from instil import cli
from instil.jsonl import read_records, write_records
from instil.lm.batches import RankingBatch, ranking_batch
from instil.lm.models import load_policy
from instil.lm.reward import load_reward
from instil.lm.scalar import ScalarModel
from instil.records import Demonstration, Prompt, Ranking
from instil.train import rm
from instil.train.rankings import Item


class Fixed:
    """A model whose scores are given."""

    def __init__(self, scores: list[list[float]]) -> None:
        self.given = torch.tensor(scores)
        self.head = torch.nn.Linear(1, 1)

    def ranking_scores(self, batch: RankingBatch) -> torch.Tensor:
        return self.given


def test_loss_accuracy_and_margin_of_a_batch_by_hand():
    # prompt 1: scores 2 0 1 ranked 1 3 2; margins 2, 1, 1, all right
    # prompt 2: scores 5 5 ranked 1 2: margin 0, half right; -log sigmoid(0) = log 2
    batch = ranking_batch([([1], [[2], [3], [4]], [1, 3, 2]), ([5], [[6], [7]], [1, 2])])
    loss, share = rm._loss(Fixed([[2.0, 0.0, 1.0], [5.0, 5.0, 9.0]]), batch, weight=4)
    # (0.126928 + 2 * 0.313262) / 3 = 0.251151; divided by the 4 prompts of the whole batch
    assert loss.item() == pytest.approx((0.251151 + math.log(2)) / 4, abs=1e-6)
    assert share["accuracy"] == pytest.approx((1 + 0.5) / 4)
    assert share["margin"] == pytest.approx((4 / 3 + 0) / 4)
    assert share["mean_reward"] == pytest.approx((1 + 5) / 4)
    assert (share["min_reward"], share["max_reward"]) == (0, 5)


def test_what_the_likelihood_gives_is_a_part_of_every_score():
    # the model says 0 and 1, the likelihood 3 and 1: the margin is 3 - 2 = 1 for the first
    batch = ranking_batch([([1], [[2], [3]], [1, 2])], [[3.0, 1.0]])
    loss, share = rm._loss(Fixed([[0.0, 1.0]]), batch, weight=1)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)))
    assert (share["accuracy"], share["margin"]) == (1, pytest.approx(1))


def demonstrated(world) -> tuple[list[str], list[str]]:
    """Prompts of the training split and their demonstrations."""
    prompts = {p.id: p for p in read_records(world.prompts, Prompt)}
    found = [
        (prompts[d.prompt_id].text, d.text)
        for d in read_records(world.root / "demonstrations.jsonl", Demonstration)
        if prompts[d.prompt_id].split == "train"
    ]
    return [prompt for prompt, _ in found], [text for _, text in found]


def test_demonstrations_average_zero_also_after_reloading(world):
    # PPO_DETAILS 1.30; the bias is in fp32, so the mean is 0 up to its rounding
    reward = load_reward(world.rm)
    scores = reward(*demonstrated(world))
    assert abs(sum(scores) / len(scores)) < 1e-5
    assert reward.model.head.bias.item() != 0
    assert reward.std > 0


def test_centring_leaves_a_mean_of_zero_to_1e_6(world):
    reward = load_reward(world.rm)
    reward.model.shift(0.7)
    demonstrations = [
        (
            reward.codec.encode_prompt(f"What color ? {c}"),
            reward.codec.encode_response(f"It is {c}."),
        )
        for c in ("red", "blue", "green")
    ]
    ids = {"prompt_id": "p", "labeler_id": "ann", "response_ids": ["a", "b"]}
    texts = {"prompt": [1], "responses": [[2], [2]], "ranks": [1, 2], "lengths": [1, 1]}
    ranked = [Item(split="train", group="training", **ids, **texts)]
    centred, mean = rm._centre(reward, demonstrations, ranked)
    scores = reward.score_tokens(demonstrations)
    assert abs(sum(scores) / 3) < 1e-6
    assert mean == pytest.approx(reward.score_tokens([([1], [2])])[0], abs=1e-5)
    assert centred.std == pytest.approx(0, abs=1e-5)


def test_it_learns_the_toy_preference_and_reports_the_yardsticks(reference, helpers):
    run = reference("rm")
    report = json.loads((run / "accuracy.json").read_text())["accuracy"]
    assert [row["split"] for row in report] == ["test", "valid"]
    for row in report:
        assert row["model"]["mean"] > 0.5
        assert row["longer"]["n"] == row["model"]["n"] == 5 * row["rankings"]  # 6 pairs, one tied
        assert row["agreement"] is None  # one labeler
    rows = helpers.metrics(run)
    assert [row["step"] for row in rows if "eval/accuracy" in row] == [4, 8, rows[-1]["step"]]
    names = {"loss", "accuracy", "margin", "min_reward", "mean_reward", "max_reward"}
    assert names | {"learning_rate", "num_tokens", "grad_norm"} <= rows[0].keys()
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    assert {s["step"] for s in samples} == {4, 8, rows[-1]["step"]}
    assert {"prompt", "response", "rank", "score"} <= samples[0].keys()
    assert samples[0]["response"].startswith("It is ")


def test_the_directory_loads_as_a_sequence_classifier_and_reads_like_the_reward(world):
    reward = load_reward(world.rm)
    again = ScalarModel.load(world.rm / "final")
    tokens = torch.tensor([[*reward.codec.encode_prompt("What color ? red"), 0]])
    mask = torch.ones_like(tokens, dtype=torch.bool)
    assert torch.equal(again.scores(tokens, mask), reward.model.scores(tokens, mask))


def test_with_a_likelihood_the_head_learns_what_it_lacks(world, capsys, tmp_path):
    reward = load_reward(world.likely_rm)
    own = reward.likelihood
    assert own is not None
    assert own.temperature == 0.5
    assert all(
        torch.equal(p, q)
        for p, q in zip(
            own.model.parameters(), load_policy(world.sft / "final").parameters(), strict=True
        )
    )
    scores = reward(*demonstrated(world))
    assert abs(sum(scores) / len(scores)) < 1e-5  # of the whole score, not of the head's part
    # at a rate of nothing the head says nothing, and the accuracy is that of the likelihood alone
    out = tmp_path / "rm"
    assert cli.main([*world.arguments("rm+likelihood", out), "--lr", "1e-12"]) == 0
    assert f"the weight of the likelihood is {own.weight:.3g}" in capsys.readouterr().err
    heads = replace(load_reward(out), likelihood=None)(*demonstrated(world))
    assert max(heads) - min(heads) < 1e-6
    alone, learned = (
        json.loads((run / "accuracy.json").read_text())["accuracy"]
        for run in (out, world.likely_rm)
    )
    for before, after in zip(alone, learned, strict=True):
        assert 0.5 < before["model"]["mean"] <= after["model"]["mean"]


def test_a_likelihood_that_labelers_do_not_want_is_refused(world, tmp_path, capsys):
    turned = tmp_path / "rankings.jsonl"
    rankings = read_records(world.root / "rankings.jsonl", Ranking)
    write_records(turned, (replace_tiers(ranking) for ranking in rankings))
    words = world.arguments("rm+likelihood", tmp_path / "rm")
    words[words.index("--rankings") + 1] = str(turned)
    assert cli.main(words) == 1
    assert "labelers prefer what the model finds unlikely" in capsys.readouterr().err


def replace_tiers(ranking: Ranking) -> Ranking:
    """The ranking upside down."""
    return msgspec.structs.replace(ranking, tiers=ranking.tiers[::-1])


def test_a_likelihood_of_a_shorter_context_leaves_long_responses_out(world, tmp_path, capsys):
    short = tmp_path / "short"
    shutil.copytree(world.sft / "final", short)
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 8}))
    words = [*world.arguments("rm", tmp_path / "rm"), "--likelihood", str(short)]
    assert cli.main(words) == 1
    assert "(all tied, or over 8 tokens): left out" in capsys.readouterr().err


def test_a_likelihood_with_another_tokenizer_is_refused(world, tmp_path, capsys):
    base = tmp_path / "base"
    words = [*world.arguments("pretrain", base), "--vocab-size", "290", "--epochs", "0.1"]
    assert cli.main(words) == 0
    words = [*world.arguments("rm", tmp_path / "rm"), "--likelihood", str(base)]
    assert cli.main(words) == 1
    told = capsys.readouterr().err
    assert f"--likelihood {base}: its tokenizer or template is not that of --model" in told
    assert not (tmp_path / "rm" / "final").exists()


def test_a_demonstration_without_its_prompt_is_found_before_training(world, tmp_path, capsys):
    bad = tmp_path / "demonstrations.jsonl"
    bad.write_text(
        '{"schema": "instil.demonstration/1", "prompt_id": "gone", "labeler_id": "ann", '
        '"text": "It is."}\n'
    )
    out = tmp_path / "rm"
    words = world.arguments("rm", out)
    words[words.index("--demonstrations") + 1] = str(bad)
    assert cli.main(words) == 1
    assert "demonstration of gone by ann: no such prompt" in capsys.readouterr().err
    assert not out.exists()
