from __future__ import annotations

import json

import pytest
import torch

from instil import cli
from instil.errors import InstilError
from instil.jsonl import read_records, write_records
from instil.lm.batches import text_batch
from instil.lm.models import load_policy
from instil.lm.text import Codec
from instil.records import Demonstration, Prompt
from instil.train import sft
from instil.train.data import by_prompt
from instil.train.pretrain import text_loss


@pytest.fixture
def make(world, tmp_path):
    def make(**changes):
        settings = {
            "model": world.root / "base",
            "prompts": (world.prompts,),
            "demonstrations": (world.root / "demonstrations.jsonl",),
            "out": tmp_path / "sft",
            "batch_size": 8,
        }
        return sft.Config(**{**settings, **changes})

    return make


def pairs_of(world, config, split="train"):
    codec = Codec.load(world.root / "base" / "final")
    prompts = by_prompt(read_records(world.prompts, Prompt))
    demonstrations = read_records(world.root / "demonstrations.jsonl", Demonstration)
    return codec, sft._pairs(codec, prompts, demonstrations, config, 64, split)


def test_only_the_response_counts_in_the_loss(world, make):
    codec, pairs = pairs_of(world, make())
    policy = load_policy(world.root / "base" / "final")
    prompt, response = pairs[0]
    assert response[-1] == codec.eos_id
    ids = torch.tensor([prompt + response])
    every = policy(input_ids=ids).logits[0].log_softmax(-1)
    start = len(prompt)
    expected = -sum(every[start - 1 + t, token].item() for t, token in enumerate(response)) / len(
        response
    )
    batch = text_batch([pairs[0]], codec.pad_id)
    assert text_loss(policy)(batch, batch.weight)[0].item() == pytest.approx(expected, abs=1e-5)
    assert sft._mean_loss(codec, policy, [pairs[0]], make()) == pytest.approx(expected, abs=1e-5)


def test_the_validation_loss_is_the_same_by_any_micro_batch(world, make):
    codec, pairs = pairs_of(world, make())
    policy = load_policy(world.root / "base" / "final")
    whole = sft._mean_loss(codec, policy, pairs, make(micro_batch_tokens=100_000))
    for tokens in (1, 60):
        found = sft._mean_loss(codec, policy, pairs, make(micro_batch_tokens=tokens))
        assert found == pytest.approx(whole, abs=1e-6)


def test_splits_follow_the_prompts(world, make):
    # 60 prompts: 8 of 10 train, 1 of 10 validates, 1 of 10 tests and is never read
    assert len(pairs_of(world, make())[1]) == 48
    assert len(pairs_of(world, make(), "valid")[1]) == 6


def test_a_batch_mixes_in_its_share_of_text(world, make):
    config = make(pretraining=(world.text,), pretraining_mix=0.25)
    codec, pairs = pairs_of(world, config)
    text = torch.randint(2, 280, (20, 9), generator=torch.Generator().manual_seed(0))
    (whole,) = sft._batches(codec, pairs, text, config, 1000, 4)
    batches = sft._batches(codec, pairs, text, config, 40, 4)
    assert 1 < len(batches) == -(-int(whole.mask.sum()) // 40)
    assert sum(b.weight for b in batches) == whole.weight
    rows = [b.tokens[i][b.mask[i]].tolist() for b in batches for i in range(len(b.tokens))]
    assert len(rows) == len(whole.tokens) == 8
    assert sum(row in text.tolist() for row in rows) == 2
    lengths = [len(row) for row in rows]
    assert lengths == sorted(lengths)
    # every token of the text but its first is predicted; of a pair, those of its response
    answers = {tuple(p + r): len(r) for p, r in pairs}
    assert sum(b.weight for b in batches) == sum(answers.get(tuple(row), 8) for row in rows)


def test_the_checkpoint_is_chosen_by_the_reward_models_score(reference, helpers):
    run = reference("sft")
    scores = {r["step"]: r["eval/rm_score"] for r in helpers.metrics(run) if "eval/rm_score" in r}
    info = json.loads((run / "run.json").read_text())
    assert len(scores) == 4
    assert info["selected_by"] == "eval/rm_score"
    assert info["selected_step"] == max(scores, key=scores.get)
    assert info["selected_value"] == scores[info["selected_step"]]


def test_every_evaluation_writes_samples_with_scores(reference, helpers):
    run = reference("sft")
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    steps = [r["step"] for r in helpers.metrics(run) if "eval/loss" in r]
    assert [s["step"] for s in samples] == [step for step in steps for _ in range(6)]
    assert {"prompt", "response", "score"} <= samples[0].keys()


def test_defaults_work_with_a_model_of_short_context_and_without_validation(
    world, tmp_path, helpers
):
    # max_response_tokens is 1024, the model reads 64: training must not end in an error
    prompts = [p for p in read_records(world.prompts, Prompt) if p.split == "train"]
    write_records(tmp_path / "prompts.jsonl", prompts)
    known = {p.id for p in prompts}
    write_records(
        tmp_path / "demonstrations.jsonl",
        [
            d
            for d in read_records(world.root / "demonstrations.jsonl", Demonstration)
            if d.prompt_id in known
        ],
    )
    out = tmp_path / "sft"
    words = f"""sft --model {world.root / "base"} --prompts {tmp_path / "prompts.jsonl"} --epochs 1
        --demonstrations {tmp_path / "demonstrations.jsonl"} --out {out} --threads 1""".split()
    assert cli.main(words) == 0
    rows = helpers.metrics(out)
    assert "eval/loss" not in rows[-1]
    assert (out / "samples.jsonl").read_text().count("\n") == 8


def test_a_reward_model_needs_prompts_to_judge_on(world, make):
    prompts = {p.id: p for p in read_records(world.prompts, Prompt) if p.split == "train"}
    policy = load_policy(world.root / "base" / "final")
    codec = Codec.load(world.root / "base" / "final")
    with pytest.raises(InstilError, match="--prompts has none that fit"):
        sft._asked(codec, policy, prompts, make(rm=world.rm))


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"pretraining_mix": 0.1}, "needs --pretraining"),
        ({"pretraining_mix": 1.0}, r"must be in \[0, 1\)"),
        ({"pretraining_mix": 0.01}, "0.01 of batch_size 8 is 0 examples"),
        ({"pretraining_mix": 0.99}, "0.99 of batch_size 8 is 8 examples"),
        ({"eval_prompts": 0}, "eval_prompts 0 must be greater than 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, complaint, make, world):
    more = {} if "needs" in complaint else {"pretraining": (world.text,)}
    with pytest.raises(InstilError, match=complaint):
        make(**wrong, **more)
