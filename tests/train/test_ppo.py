"""The algorithm's step. Numbers like "2.3" name the bug of other trainers that a test is against:

2.1 reward on padding       2.5 whitening by part       2.9 ids of another vocabulary
2.2 pad = eos               2.6 KL over the prompt      2.10 step read from a folder's name
2.3 ptx in its own step     2.7 scaling without effect  2.11 decoded and encoded again
2.4 one seed each rollout   2.8 the critic is lost      2.12 two stop rules
(2.10 is in test_checkpoint.py, 2.8 in test_ppo_models.py.)
"""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from instil import cli
from instil.advantages import kl_shaped_rewards
from instil.lm.batches import batch_indices, stream_batch, text_batch
from instil.lm.models import logprobs
from instil.lm.reward import RewardModel
from instil.lm.sampling import Decoder, Samples
from instil.lm.scalar import ScalarModel
from instil.lm.text import Codec, train_tokenizer
from instil.train import ppo
from instil.train.data import pretraining_rows
from instil.train.rollout import response_logprobs

COLORS = ("red", "blue", "green", "pink")
NO_TEXT = torch.empty(0, 0, dtype=torch.long)


def prompts(n: int = 16) -> list[str]:
    return [f"What color {'?' * (i % 3)} {COLORS[i % 4]}" for i in range(n)]


def moved(config) -> ppo.Models:
    """Models whose policy has left the reference, so that nothing is 0 or 1 by chance."""
    models = ppo.load(config)
    noise = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in models.policy.parameters():
            weight.add_(torch.randn(weight.shape, generator=noise), alpha=0.05)
    return models


def gradients(monkeypatch, models, config, text=NO_TEXT) -> list[torch.Tensor]:
    """The gradients of the policy and of the value at the first update of step 1."""
    rollout, _ = ppo.collect(models, prompts(), config, 1, {})
    mask = rollout.sequences.response_mask
    noise = torch.Generator().manual_seed(0)
    advantages = torch.randn(mask.shape, generator=noise) * mask
    returns = torch.randn(mask.shape, generator=noise) * mask
    rows = torch.tensor([3, 0, 9, 14, 7, 1, 12, 5])
    with monkeypatch.context() as patch:
        patch.setattr(ppo, "step_optimizers", lambda *args: None)
        ppo.improve(models, rollout, mask, advantages, returns, text, rows, config, 1, 0)
    found = []
    for model in (models.policy, models.value):
        found.append(torch.cat([p.grad.flatten() for p in model.parameters()]).clone())
        model.zero_grad()
    return found


@pytest.mark.parametrize("pad_is_eos", [False, True])
def test_the_reward_lands_on_the_last_real_token(ppo_config_of, monkeypatch, pad_is_eos):
    # 2.1 and 2.2: {end token, no end token, end token first}, also when padding is the end token
    config = ppo_config_of(
        logprob_gap=math.inf, truncated="score", max_tokens=5, batch_size=3, minibatch_size=3
    )
    models = moved(config)
    end = models.codec.eos_id
    if pad_is_eos:
        models.codec.pad_id = end
    responses = [[40, 41, end], [42, 43, 44, 45, 46], [end]]
    given = Samples(responses, [[0.0] * len(r) for r in responses], [True, False, True])
    monkeypatch.setattr(Decoder, "sample", lambda *args, **kwargs: given)
    rollout, _ = ppo.collect(models, prompts(3), config, 1, {})
    mask = rollout.sequences.response_mask
    assert mask.sum(1).tolist() == [3, 5, 1]
    # the score is that of prompt + response + one end token, read at this end token
    ids = [models.codec.encode_prompt(p) for p in prompts(3)]
    closed = [responses[0], [*responses[1], end], responses[2]]
    for row in range(3):
        one = text_batch([(ids[row], closed[row])], pad_id=1)
        score = models.reward.model.scores(one.tokens, one.mask).item()
        assert rollout.scores[row].item() == pytest.approx(score, abs=1e-5)
    rewards = kl_shaped_rewards(
        rollout.scores, rollout.logprobs, rollout.ref_logprobs, mask, kl_coef=0.0
    )
    where = [row.nonzero().flatten().tolist() for row in rewards]
    assert where == [[2], [4], [0]]
    assert torch.allclose(rewards.sum(1), rollout.scores)


@pytest.mark.parametrize("command", ["sft", "rm", "ppo"])
def test_padding_that_is_the_end_token_changes_no_loss(
    command, world, reference, helpers, tmp_path
):
    # 2.2: masks come from lengths, so a whole run has the same metrics and weights
    words = world.arguments(command, tmp_path / command)
    for name in ("base", "sft", "rm"):
        source, copy = world.root / name / "final", tmp_path / name / "final"
        if name == command:
            copy = tmp_path / "model" / "final"
        copy.mkdir(parents=True)
        for file in source.iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
        settings = json.loads((copy / "tokenizer_config.json").read_text())
        settings["pad_token"] = settings["eos_token"]
        (copy / "tokenizer_config.json").write_text(json.dumps(settings))
        assert Codec.load(copy).pad_id == Codec.load(copy).eos_id
        words = [str(copy.parent) if w == str(world.root / name) else w for w in words]
    assert cli.main(words) == 0
    assert helpers.metrics(tmp_path / command) == helpers.metrics(reference(command))


def test_the_gradient_is_ppo_plus_gamma_times_the_language_model(ppo_config_of, monkeypatch):
    # 2.3: one buffer, one optimizer step; under Adam a second step would not know gamma
    gamma = 3.0
    plain, mixed = ppo_config_of(), ppo_config_of(ptx_coef=gamma)
    models = moved(plain)
    text = pretraining_rows(models.codec, plain.pretraining, plain.row_length, 16)
    own, own_value = gradients(monkeypatch, models, plain)
    both, both_value = gradients(monkeypatch, models, mixed, text)
    chosen = batch_indices(len(text), 16, mixed.seed + 1, 1 * mixed.updates)
    batch = stream_batch(text[chosen])
    found = logprobs(models.policy, batch.tokens, batch.mask, batch.loss_mask)
    (-found.sum() / batch.loss_mask.sum()).backward()  # the mean per token
    language = torch.cat([p.grad.flatten() for p in models.policy.parameters()])
    assert torch.equal(own_value, both_value)
    assert language.norm() > 0.1
    assert torch.allclose(both, own + gamma * language, rtol=1e-5, atol=1e-6)


def test_each_update_is_one_step_of_each_optimizer(ppo_config_of, monkeypatch):
    config = ppo_config_of(ptx_coef=2.0)  # 2.3
    models = ppo.load(config)
    text = pretraining_rows(models.codec, config.pretraining, config.row_length, 16)
    steps = []
    for name in ("policy_optimizer", "value_optimizer"):
        optimizer = getattr(models, name)
        own = optimizer.step
        monkeypatch.setattr(optimizer, "step", lambda n=name, own=own: (steps.append(n), own()))
    found, _ = ppo.ppo_step(models, prompts(), text, config, 0)
    assert sorted(steps) == ["policy_optimizer"] * 2 + ["value_optimizer"] * 2
    assert found["ptx/grad_norm_ratio"] > 0
    assert found["loss/ptx_avg"] > 0


def test_gamma_0_is_ppo_to_the_bit(world, tmp_path, helpers):
    runs = []
    for name, pretraining in (("with", True), ("without", False)):
        words = [*world.arguments("ppo", tmp_path / name), "--steps", "2"]
        words[words.index("--ptx-coef") + 1] = "0"
        if not pretraining:
            at = words.index("--pretraining")
            del words[at : at + 2]
        assert cli.main(words) == 0
        runs.append(tmp_path / name)
    assert helpers.fingerprint(runs[0]) == helpers.fingerprint(runs[1])
    assert helpers.metrics(runs[0]) == helpers.metrics(runs[1])


@pytest.mark.parametrize("tokens", [1, 50])  # a sequence at a time, and about three
def test_micro_batches_change_no_gradient(ppo_config_of, monkeypatch, tokens):
    whole = ppo_config_of(ptx_coef=2.0, micro_batch_tokens=100_000)
    models = moved(whole)
    text = pretraining_rows(models.codec, whole.pretraining, whole.row_length, 16)
    one = gradients(monkeypatch, models, whole, text)
    parts = gradients(monkeypatch, models, replace(whole, micro_batch_tokens=tokens), text)
    for a, b in zip(one, parts, strict=True):
        assert (a - b).norm() < 1e-6 * max(1.0, a.norm())


def test_whitening_is_over_the_whole_rollout_whatever_the_parts(ppo_config_of, monkeypatch):
    # 2.5: statistics of a part would depend on how the rollout is cut
    seen = []

    def keep(models, rollout, mask, advantages, *rest):
        seen.append(advantages)
        return {"val/ratio": 1.0}

    monkeypatch.setattr(ppo, "improve", keep)
    for more in ({}, {"micro_batch_tokens": 50}, {"minibatch_size": 4}, {"decode_batch_size": 5}):
        config = ppo_config_of(**more)
        ppo.ppo_step(moved(config), prompts(), NO_TEXT, config, 1)
    first = seen[0]
    present = first[first != 0]
    assert present.mean().item() == pytest.approx(0, abs=1e-5)
    assert present.std(unbiased=False).item() == pytest.approx(1, abs=1e-4)
    for other in seen[1:]:
        assert torch.allclose(first, other, atol=1e-5)


def test_two_steps_draw_different_samples_and_each_step_its_own_again(ppo_config_of):
    config = ppo_config_of()  # 2.4
    models = ppo.load(config)
    drawn = [ppo.collect(models, prompts(), config, step, {})[1] for step in (0, 1, 1)]
    assert drawn[0] != drawn[1]
    assert drawn[1] == drawn[2]
    other = ppo.collect(models, prompts(), ppo_config_of(seed=1), 1, {})[1]
    assert other != drawn[1]


def test_the_kl_is_over_the_response_only(ppo_config_of):
    # 2.6: against both models reading each sequence alone, summed over response tokens
    config = ppo_config_of(temperature=0.7)
    models = moved(config)
    rollout, responses = ppo.collect(models, prompts(), config, 1, {})
    mask = rollout.sequences.response_mask
    per_response = []
    for row in range(len(mask)):
        ids = rollout.sequences.tokens[row][rollout.sequences.attention_mask[row]]
        start = len(ids) - int(mask[row].sum())
        with torch.no_grad():
            ratio = [
                (model(input_ids=ids[None]).logits[0] / 0.7).log_softmax(-1)
                for model in (models.policy, models.reference)
            ]
        difference = (ratio[0] - ratio[1])[torch.arange(start - 1, len(ids) - 1), ids[start:]]
        per_response.append(difference.sum().item())
    rewards = kl_shaped_rewards(
        rollout.scores, rollout.logprobs, rollout.ref_logprobs, mask, config.kl_coef
    )
    found = ppo.measurements(rollout, rewards, rewards, responses, config.kl_coef, 1.0)
    assert found["objective/kl"] == pytest.approx(sum(per_response) / 16, abs=1e-4)
    assert abs(found["objective/kl"]) > 0.01
    # and a row's rewards add up to its score minus kl_coef times its KL
    expected = rollout.scores - config.kl_coef * torch.tensor(per_response)
    assert torch.allclose(rewards.sum(1), expected, atol=1e-5)


def test_cut_off_responses_lose_the_penalty_also_when_the_spread_was_not_stored(ppo_config_of):
    # 2.7: a scale that is silently missing; here it is measured on the first rollout
    config = ppo_config_of(max_tokens=4, truncated_penalty=2.0)
    models = ppo.load(config)
    models.state["reward_std"] = math.nan
    rollout, _ = ppo.collect(models, prompts(), config, 1, {})
    spread = rollout.raw_scores.std(unbiased=False)
    assert models.state["reward_std"] == pytest.approx(spread.item(), rel=1e-6)
    assert spread > 0
    lost = rollout.raw_scores - rollout.scores
    assert (~rollout.ended).any()
    assert torch.allclose(lost, 2.0 * spread * ~rollout.ended, atol=1e-5)
    for way in ("score", "mask"):
        kept, _ = ppo.collect(models, prompts(), replace(config, truncated=way), 1, {})
        assert torch.equal(kept.scores, kept.raw_scores)


@pytest.mark.parametrize("ended", [0, 1])
def test_masked_cut_off_responses_train_nothing_even_when_that_is_all(
    ppo_config_of, monkeypatch, ended
):
    config = ppo_config_of(truncated="mask", warmup=0, logprob_gap=math.inf)
    models = ppo.load(config)
    given = Samples([[40, 41, 42]] * 16, [[0.0] * 3] * 16, [i < ended for i in range(16)])
    monkeypatch.setattr(Decoder, "sample", lambda *args, **kwargs: given)
    before = {n: p.detach().clone() for n, p in models.policy.named_parameters()}
    found, _ = ppo.ppo_step(models, prompts(), NO_TEXT, config, 1)
    same = all(torch.equal(before[n], p) for n, p in models.policy.named_parameters())
    assert same == (ended == 0)
    assert math.isfinite(found["loss/policy_avg"])


def test_a_reward_model_with_another_tokenizer_reads_text(ppo_config_of):
    # 2.9: it must never see the policy's ids
    config = ppo_config_of()
    models = ppo.load(config)
    assert models.shares_tokens
    assert models.value_is_reward
    other = Codec(train_tokenizer(["What color is it ? It is a boat."] * 9, 290))
    assert not other.same_tokens(models.codec)
    model = ScalarModel.from_policy(models.policy, seed=1)
    models.reward = RewardModel(model, other)
    models.shares_tokens, models.value_is_reward = False, False
    rollout, responses = ppo.collect(models, prompts(), config, 1, {})
    pairs = [
        (other.encode_prompt(p), other.encode_response(r))
        for p, r in zip(prompts(), responses, strict=True)
    ]
    expected = [
        model.scores(b.tokens, b.mask).item() for b in (text_batch([pair], 1) for pair in pairs)
    ]
    assert rollout.raw_scores.tolist() == pytest.approx(expected, abs=1e-4)


def test_each_token_earns_its_own_part_of_a_likelihood(world, ppo_config_of):
    config = ppo_config_of(rm=str(world.likely_rm), kl_coef=0.1, truncated="score", max_tokens=4)
    models = ppo.load(config)
    own = models.reward.likelihood
    assert own is not None
    assert own.weight > 0
    rollout, responses = ppo.collect(models, prompts(), config, 0, {})  # with all checks of a start
    mask = rollout.sequences.response_mask
    expected = response_logprobs(own.model, rollout.sequences, own.temperature)
    assert torch.allclose(rollout.token_scores, own.weight * expected, atol=1e-5)
    assert (rollout.token_scores[mask] <= 0).all()
    assert rollout.token_scores.sum() < -1
    assert torch.allclose(rollout.raw_scores, rollout.scores + rollout.token_scores.sum(1))
    # together they are the score of the reward model; what was cut off is read with an end, whose
    # part the last token has to bear
    whole = torch.tensor(models.reward(prompts(), responses))
    assert torch.allclose(rollout.raw_scores, whole, atol=1e-4)
    heads = torch.tensor(replace(models.reward, likelihood=None)(prompts(), responses))
    assert torch.allclose(rollout.scores[rollout.ended], heads[rollout.ended], atol=1e-4)
    assert 0 < rollout.ended.sum() < 16
    borne = (rollout.scores - heads)[~rollout.ended]
    assert borne.max() < 1e-4
    assert borne.min() < -0.1
    # and all of it is in the rewards, beside the KL, which is 0 before the first step
    found, _ = ppo.ppo_step(models, prompts(), NO_TEXT, config, 0)
    assert found["objective/rlhf_reward"] == pytest.approx(
        rollout.raw_scores.mean().item(), abs=1e-4
    )


def test_a_likelihood_with_another_tokenizer_is_given_at_the_end(world, ppo_config_of):
    config = ppo_config_of(rm=str(world.likely_rm), truncated="score")
    models = ppo.load(config)
    models.shares_tokens = models.value_is_reward = False  # as if it were
    rollout, responses = ppo.collect(models, prompts(), config, 1, {})
    assert not rollout.token_scores.any()
    assert rollout.scores.tolist() == pytest.approx(models.reward(prompts(), responses), abs=1e-4)


def test_the_sampled_tokens_are_scored_not_their_text_encoded_again(ppo_config_of, monkeypatch):
    # 2.11: "It is" spelled in bytes, as no encoder would
    config = ppo_config_of(logprob_gap=math.inf, batch_size=2, minibatch_size=2)
    models = ppo.load(config)
    codec = models.codec
    letters = codec.tokenizer.convert_tokens_to_ids(["Ġ", "I", "t", "Ġ", "i", "s"])
    assert letters != codec.encode_response("It is")[:-1]
    responses = [[*letters, codec.eos_id], codec.encode_response("It is")]
    given = Samples(responses, [[0.0] * len(r) for r in responses], [True, True])
    monkeypatch.setattr(Decoder, "sample", lambda *args, **kwargs: given)
    rollout, texts = ppo.collect(models, [prompts()[0]] * 2, config, 1, {})
    assert texts == ["It is", "It is"]
    assert rollout.sequences.response_mask.sum(1).tolist() == [len(r) for r in responses]
    assert rollout.raw_scores[0] != rollout.raw_scores[1]
    ids = codec.encode_prompt(prompts()[0])
    direct = models.reward.score_tokens([(ids, r) for r in responses])
    assert rollout.raw_scores.tolist() == pytest.approx(direct)


def test_rollouts_and_the_result_stop_at_the_same_tokens(world, reference, tmp_path):
    # 2.12: a second end token of the model ends rollouts and is handed on
    source, model = world.sft / "final", tmp_path / "sft"
    model.mkdir()
    for file in source.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    codec = Codec.load(model)
    stop = codec.encode_response("What is.")[-2]  # "."
    settings = json.loads((model / "generation_config.json").read_text())
    settings["eos_token_id"] = [codec.eos_id, stop]
    (model / "generation_config.json").write_text(json.dumps(settings))
    words = [*world.arguments("ppo", tmp_path / "ppo"), "--steps", "1"]
    words[words.index("--model") + 1] = str(model)
    assert cli.main(words) == 0
    assert Codec.load(tmp_path / "ppo" / "final").eos_ids == (codec.eos_id, stop)
    rows = (tmp_path / "ppo" / "samples.jsonl").read_text().splitlines()
    said = [json.loads(row)["response"] for row in rows]
    assert not any("." in text for text in said)
    usual = (reference("ppo") / "samples.jsonl").read_text().splitlines()
    assert any("." in json.loads(row)["response"] for row in usual)
