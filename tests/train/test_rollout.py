from __future__ import annotations

import math

import pytest
import torch

from instil.lm.batches import rollout_batch
from instil.lm.models import new_policy
from instil.lm.scalar import ScalarModel
from instil.train.rollout import (
    Rollout,
    Sequences,
    distinct,
    logprob_gaps,
    measurements,
    repetition,
    response_logprobs,
    response_logprobs_and_entropies,
    response_values,
)

PROMPTS = [[5, 6, 7], [8], [9, 10], [11, 12, 13, 14]]
RESPONSES = [[20, 0], [21, 22, 23, 0], [0], [24, 25, 26, 27, 28]]  # 0 ends; the last is cut off


@pytest.fixture(scope="module")
def policy():
    model = new_policy(
        "gpt2", vocab_size=40, width=16, layers=2, heads=2, context=32, seed=0, pad_id=1, eos_id=0
    )
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(8)
    return model


def sequences(pad_id: int = 1) -> Sequences:
    return Sequences(*rollout_batch(PROMPTS, RESPONSES, pad_id))


def by_hand(policy, temperature: float) -> list[list[float]]:
    """Logprobs of each response, its sequence read alone and without padding."""
    found = []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        ids = torch.tensor([prompt + response])
        with torch.no_grad():
            every = (policy(input_ids=ids).logits[0] / temperature).log_softmax(-1)
        found.append([every[len(prompt) - 1 + t, token].item() for t, token in enumerate(response)])
    return found


@pytest.mark.parametrize("temperature", [0.7, 1.0])
@pytest.mark.parametrize("pad_id", [0, 1])  # PPO_DETAILS 2.2: padding that is the end token
def test_logprobs_are_those_of_each_sequence_alone(policy, temperature, pad_id):
    with torch.no_grad():
        found, entropy = response_logprobs_and_entropies(policy, sequences(pad_id), temperature)
        assert torch.equal(found, response_logprobs(policy, sequences(pad_id), temperature))
    for row, expected in enumerate(by_hand(policy, temperature)):
        assert found[row, : len(expected)].tolist() == pytest.approx(expected, abs=1e-5)
        assert not found[row, len(expected) :].any()
        assert (entropy[row, : len(expected)] > 0).all()
        assert not entropy[row, len(expected) :].any()


@torch.no_grad()
def test_values_stand_one_token_before_what_they_judge(policy):
    value = ScalarModel.from_policy(policy, seed=0)
    found = response_values(value, sequences())
    for row, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        ids = torch.tensor([prompt + response])
        alone = value.values(ids, torch.ones_like(ids, dtype=torch.bool))[0]
        before = alone[len(prompt) - 1 : len(prompt) + len(response) - 1].tolist()
        assert found[row, : len(response)].tolist() == pytest.approx(before, abs=1e-5)
        assert not found[row, len(response) :].any()


@pytest.mark.parametrize("tokens", [1, 8, 12, 100])
def test_pieces_hold_every_sequence_once_without_needless_padding(tokens):
    whole = sequences()
    seen = {}
    for rows, piece in whole.pieces(torch.tensor([3, 0, 2]), tokens):
        assert piece.attention_mask.sum() <= tokens + 9  # the longest sequence
        for row, ids, mask in zip(rows.tolist(), piece.tokens, piece.attention_mask, strict=True):
            seen[row] = ids[mask].tolist()
        assert piece.attention_mask[:, 0].any()  # the longest prompt fills its columns,
        assert piece.response_mask[:, -1].any()  # and the longest response its own
    assert seen == {row: PROMPTS[row] + RESPONSES[row] for row in (0, 2, 3)}


@torch.no_grad()
@pytest.mark.parametrize("tokens", [1, 8, 100])
def test_gaps_to_the_trainer_by_hand(policy, tokens):
    own = response_logprobs(policy, sequences(), 0.7)
    mask = sequences().response_mask
    sampled = own + torch.tensor([[0.25], [9.0], [-1.0], [0.0]]) * mask
    sampled[~mask] = 99.0  # what lies under the padding
    rollout = Rollout(sequences(), sampled.clone(), *[torch.zeros(4)] * 6)
    rows = torch.tensor([3, 0, 2])
    found = logprob_gaps(policy, rollout, rows, 0.7, tokens)
    # 0.25 in two tokens, -1 in one, 0 in five
    assert found["rollout/train_kl"] == pytest.approx(-0.5 / 8, abs=1e-6)
    assert found["rollout/mean_abs_dlogp"] == pytest.approx(1.5 / 8, abs=1e-6)
    assert found["rollout/max_abs_dlogp"] == pytest.approx(1, abs=1e-5)
    assert found["rollout/recomputed"] == 0
    assert torch.equal(rollout.logprobs, sampled)
    again = logprob_gaps(policy, rollout, rows, 0.7, tokens, keep=True)
    assert again["rollout/recomputed"] == 1
    assert torch.allclose(rollout.logprobs[rows][mask[rows]], own[rows][mask[rows]], atol=1e-5)
    assert torch.equal(rollout.logprobs[1], sampled[1])  # nobody asked for this one


def test_measurements_by_hand():
    # two responses of 2 and 1 tokens; what lies under the padding must change nothing
    mask = torch.tensor([[True, True], [True, False]])
    rollout = Rollout(
        sequences=Sequences(torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool), mask),
        logprobs=torch.tensor([[-1.0, -2.0], [-0.5, 99.0]]),
        ref_logprobs=torch.tensor([[-1.5, -2.25], [-0.25, -99.0]]),
        values=torch.tensor([[1.0, 2.0], [6.0, 0.0]]),
        token_scores=torch.tensor([[-0.5, -0.25], [-0.25, 0.0]]),
        scores=torch.tensor([2.0, -1.0]),
        raw_scores=torch.tensor([2.0, 0.0]),
        ended=torch.tensor([True, False]),
    )
    # log-ratios 0.5, 0.25 and -0.25: sums 0.75 and -0.25, mean 0.25 a response, 0.5 / 3 a token
    rewards = torch.tensor([[-0.05, 1.975], [-0.975, 0.0]])
    found = measurements(
        rollout, rewards, torch.zeros(2, 2), ["a b a b", "c"], kl_coef=0.1, reward_std=0.1
    )
    assert found["objective/kl"] == pytest.approx(0.25)
    assert found["objective/kl_per_token"] == pytest.approx(0.5 / 3)
    # k3 = exp(-k1) - 1 + k1: 0.106531, 0.028801, 0.034025; (0.135332 + 0.034025) / 2
    assert found["objective/kl_k3"] == pytest.approx(0.084678, abs=1e-5)
    assert found["objective/scores"] == 1.0
    assert found["objective/scores_std"] == 1.0
    assert found["objective/token_scores"] == (-0.75 - 0.25) / 2
    # -0.1 * 0.75 and -0.1 * -0.25: mean -0.025
    assert found["objective/non_score_reward"] == pytest.approx(-0.025)
    assert found["objective/rlhf_reward"] == pytest.approx((1.925 - 0.975) / 2)
    assert found["objective/entropy"] == pytest.approx((3 + 0.5) / 2)  # -log p of what was sampled
    assert found["val/num_eos_tokens"] == 1
    assert found["val/mean_value"] == 3.0
    assert math.isnan(found["val/explained_var"])  # the returns are constant
    assert found["completions/mean_length"] == 1.5
    assert (found["completions/min_length"], found["completions/max_length"]) == (1, 2)
    assert found["completions/clipped_ratio"] == 0.5
    assert found["watch/score_outliers"] == 2  # both are 1 from the mean, over 5 * 0.1
    # bigrams: (a b) (b a) (a b): 2 of 3 differ; no four words occur twice
    assert found["watch/distinct2"] == pytest.approx(2 / 3)
    assert found["watch/repeat4"] == 0
    assert found["watch/same"] in (0.5, 1.0)


def test_repetition_and_variety():
    said = ["to", "be", "or", "not", "to", "be", "or", "not"]
    assert repetition([said, ["to", "be"], []]) == pytest.approx(1 / 3)
    assert repetition([]) == 0
    # 7 bigrams, of which (to be), (be or), (or not) come twice: 4 different
    assert distinct([said]) == pytest.approx(4 / 7)
    assert distinct([["word"]]) == 0


def test_responses_to_one_prompt_are_in_one_piece_and_the_prompt_counts_once():
    prompts = [[5, 6, 7, 8], [9, 10], [5, 6, 7, 8], [11], [5, 6, 7, 8], [9, 10]]
    responses = [[1], [2, 3], [4, 5, 6], [7], [8, 9], [1]]
    sequences = Sequences(*rollout_batch(prompts, responses, 0))
    pieces = list(sequences.pieces(torch.arange(6), 10))
    assert sorted(rows.tolist() for rows, _ in pieces) == [[0, 2, 4], [3, 1, 5]]
    # 4 + 1 + 3 fill a budget of 8 already, so the third response goes with the prompt read again
    pieces = list(sequences.pieces(torch.tensor([0, 2, 4]), 8))
    assert sorted(sorted(rows.tolist()) for rows, _ in pieces) == [[0, 2], [4]]
    assert sorted(row for rows, _ in pieces for row in rows.tolist()) == [0, 2, 4]
