"""What every `Sampler` promises, as tests that a test class inherits.

A class of `SamplerContract` has a fixture `make_sampler`: a function of a policy and a codec that
returns a sampler of them. `cut=True` asks for one that will be given top_p or top_k.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from instil.errors import InstilError
from instil.lm.batches import rollout_batch
from instil.lm.models import logprobs
from instil.lm.sampling import Sampler, Samples, SamplingParams
from instil.lm.text import Codec

MakeSampler = Callable[..., Sampler]

GREEDY = SamplingParams(max_tokens=12, temperature=0.0)
FREE = SamplingParams(max_tokens=12)


class SamplerContract:
    """Inherited by the tests of a sampler."""

    tolerance = 1e-4
    """Largest difference between the sampler's logprobs and the trainer's, in nats."""

    @pytest.fixture(params=["llama", "gpt2"])
    def policy(self, request, make_policy):
        """Tiny, but with heads as wide as fast attention wants them."""
        return make_policy(request.param, width=64)

    @pytest.fixture
    def prompts(self):
        noise = np.random.default_rng(0)
        return [noise.integers(2, 300, length).tolist() for length in (7, 1, 30, 3, 7, 12, 20, 5)]

    def test_each_prompt_has_one_response_that_stops_where_it_should(
        self, make_sampler, policy, codec, prompts
    ):
        stopping = Codec(codec.tokenizer, stop_ids=range(10, 40))  # so that some responses end
        prompts = prompts * 3
        samples = make_sampler(policy, stopping).sample(prompts, FREE, seed=0)
        assert len(samples.tokens) == len(samples.logprobs) == len(samples.ended) == len(prompts)
        for tokens, found, ended in zip(
            samples.tokens, samples.logprobs, samples.ended, strict=True
        ):
            assert 1 <= len(tokens) <= 12 and len(found) == len(tokens)
            assert all(type(token) is int and 0 <= token < codec.vocab_size for token in tokens)
            assert not set(tokens[:-1]) & set(stopping.eos_ids), "it went on after an end token"
            assert ended == (tokens[-1] in stopping.eos_ids), "the end token is part of a response"
            assert ended or len(tokens) == 12
        assert 0 < sum(samples.ended) < len(prompts)
        last = {
            tokens[-1] for tokens, end in zip(samples.tokens, samples.ended, strict=True) if end
        }
        assert len(last) > 1, "every one of the end ids ends a response"

    @pytest.mark.parametrize("temperature", [1.0, 0.7])
    def test_logprobs_are_the_trainers(self, make_sampler, policy, codec, prompts, temperature):
        params = SamplingParams(max_tokens=12, temperature=temperature)
        samples = make_sampler(policy, codec).sample(prompts, params, seed=1)
        assert gap(policy, codec, prompts, samples, temperature) < self.tolerance

    def test_a_response_depends_on_seed_prompt_and_index_alone(
        self, make_sampler, policy, codec, prompts
    ):
        sampler = make_sampler(policy, codec)
        repeated, indices = prompts * 2, [0] * len(prompts) + [1] * len(prompts)
        whole = sampler.sample(repeated, FREE, seed=2)
        assert sampler.sample(repeated, FREE, seed=2, indices=indices).tokens == whole.tokens
        backwards = sampler.sample(repeated[::-1], FREE, seed=2, indices=indices[::-1])
        assert backwards.tokens == whole.tokens[::-1]
        for place in (0, 5, 11):
            alone = sampler.sample([repeated[place]], FREE, seed=2, indices=[indices[place]])
            assert alone.tokens == [whole.tokens[place]]
            assert alone.logprobs[0] == pytest.approx(whole.logprobs[place], abs=self.tolerance)

    def test_other_seeds_and_indices_give_other_responses(
        self, make_sampler, policy, codec, prompts
    ):
        sampler = make_sampler(policy, codec)
        first = sampler.sample(prompts, FREE, seed=3).tokens
        for other in (
            sampler.sample(prompts, FREE, seed=4).tokens,
            sampler.sample(prompts, FREE, seed=3, indices=[1] * len(prompts)).tokens,
        ):
            assert sum(a == b for a, b in zip(first, other, strict=True)) <= 1
        repeats = sampler.sample([prompts[0]] * 6, FREE, seed=3).tokens
        assert len(set(map(tuple, repeats))) > 4 and repeats[0] == first[0]

    def test_temperature_0_takes_the_trainers_most_likely_tokens(
        self, make_sampler, policy, codec, prompts
    ):
        sampler = make_sampler(policy, codec)
        samples = sampler.sample(prompts, GREEDY, seed=0)
        for logits, tokens in each_logits(policy, prompts, samples):
            assert logits.argmax(dim=-1).tolist() == tokens
        assert gap(policy, codec, prompts, samples, temperature=1.0) < self.tolerance
        assert sampler.sample(prompts, GREEDY, seed=9).tokens == samples.tokens

    @pytest.mark.parametrize("settings", [{"top_k": 3}, {"top_p": 0.6}, {"top_k": 5, "top_p": 0.8}])
    def test_top_k_and_top_p_choose_tokens_and_leave_logprobs(
        self, make_sampler, policy, codec, prompts, settings
    ):
        params = SamplingParams(max_tokens=12, **settings)
        samples = make_sampler(policy, codec, cut=True).sample(prompts, params, seed=5)
        greedy = True
        for logits, tokens in each_logits(policy, prompts, samples):
            for row, token in zip(logits.softmax(dim=-1), tokens, strict=True):
                likelier = row[row > row[token]]
                kept = row.topk(params.top_k).values.sum() if params.top_k else 1.0
                assert not params.top_k or len(likelier) < params.top_k
                assert likelier.sum() < params.top_p * kept + 1e-5
                greedy &= not len(likelier)
        assert not greedy, "the most likely token is not all that they keep"
        assert gap(policy, codec, prompts, samples, temperature=1.0) < self.tolerance

    @pytest.mark.parametrize("temperature", [1.0, 0.5])
    def test_tokens_come_as_often_as_their_probabilities_say(
        self, make_sampler, policy, codec, temperature
    ):
        n, prompt = 600, [5, 6, 7]
        params = SamplingParams(max_tokens=1, temperature=temperature)
        samples = make_sampler(policy, codec).sample([prompt] * n, params, seed=6)
        logits = policy(input_ids=torch.tensor([prompt])).logits[0, -1].detach()
        every = (logits / temperature).log_softmax(dim=-1).double()
        expected = float((every.exp() * every).sum())  # the mean logprob of a sampled token
        spread = math.sqrt(float((every.exp() * every**2).sum()) - expected**2)
        found = np.mean([every[tokens[0]].item() for tokens in samples.tokens])
        assert abs(found - expected) < 4 * spread / math.sqrt(n)

    def test_samples_follow_new_weights(self, make_sampler, policy, codec, prompts):
        sampler = make_sampler(policy, codec)
        before = sampler.sample(prompts, FREE, seed=7)
        noise = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in policy.parameters():
                weight.add_(0.3 * weight.std() * torch.randn(weight.shape, generator=noise))
        assert gap(policy, codec, prompts, before, temperature=1.0) > 100 * self.tolerance
        self.update(sampler, policy)
        after = sampler.sample(prompts, FREE, seed=7)
        assert gap(policy, codec, prompts, after, temperature=1.0) < self.tolerance
        greedy = sampler.sample(prompts, GREEDY, seed=0)
        for logits, tokens in each_logits(policy, prompts, greedy):
            assert logits.argmax(dim=-1).tolist() == tokens

    def update(self, sampler: Any, policy: Any) -> None:
        """Tell the sampler that the policy's weights changed."""

    def test_what_does_not_fit_is_named(self, make_sampler, policy, codec):
        sampler = make_sampler(policy, codec)
        with pytest.raises(InstilError, match="prompt number 2 has no tokens"):
            sampler.sample([[5], []], FREE, seed=0)
        with pytest.raises(InstilError, match="prompt number 1 has 53 tokens; with max_tokens 12"):
            sampler.sample([[5] * 53], FREE, seed=0)
        full = sampler.sample([[5] * 52], FREE, seed=0).tokens[0]  # 52 + 12 is the context of 64
        assert len(full) == 12 or full[-1] in codec.eos_ids

    def test_no_prompts_have_no_responses(self, make_sampler, policy, codec):
        assert make_sampler(policy, codec).sample([], FREE, seed=0) == Samples([], [], [])


def gap(policy: Any, codec: Codec, prompts: Any, samples: Samples, temperature: float) -> float:
    """The largest difference between a sample's logprobs and those of the trainer."""
    tokens, mask, response_mask = rollout_batch(prompts, samples.tokens, codec.pad_id)
    where = torch.zeros_like(mask)
    where[:, -response_mask.shape[1] :] = response_mask
    with torch.no_grad():
        found = logprobs(policy, tokens, mask, where, temperature)
    expected = found[:, -response_mask.shape[1] :][response_mask]
    sampled = torch.tensor([x for row in samples.logprobs for x in row])
    return float((sampled - expected).abs().max())


def each_logits(policy: Any, prompts: Any, samples: Samples) -> Any:
    """For each response the logits (T, V) that its tokens were chosen from, and the tokens."""
    for prompt, tokens in zip(prompts, samples.tokens, strict=True):
        with torch.no_grad():
            logits = policy(input_ids=torch.tensor([[*prompt, *tokens]])).logits
        yield logits[0, len(prompt) - 1 : -1].float(), tokens
