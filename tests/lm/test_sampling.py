import numpy as np
import pytest
import torch
from scipy import stats
from transformers import AutoModelForCausalLM

from instil.errors import InstilError
from instil.lm.batches import prompt_batch, rollout_batch
from instil.lm.dropout import set_dropout
from instil.lm.models import load_policy, logprobs
from instil.lm.sampling import Decoder, SamplingParams, choose, occurrences, repeat, uniforms
from instil.lm.text import Codec

GREEDY = SamplingParams(max_tokens=20, temperature=0.0)
FREE = SamplingParams(max_tokens=20)


@pytest.fixture(scope="module")
def prompts():
    rng = np.random.default_rng(0)
    return [rng.integers(2, 300, rng.integers(1, 15)).tolist() for _ in range(20)]


def generated(model, codec, prompt, max_tokens):
    """What transformers' own greedy decoding adds to one prompt."""
    ids = torch.tensor([prompt])
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max_tokens,
        do_sample=False,
        eos_token_id=list(codec.eos_ids),
        pad_token_id=codec.pad_id,
    )
    return output[0, len(prompt) :].tolist()


def test_greedy_equals_transformers(policy, codec, prompts):
    stopping = Codec(codec.tokenizer, stop_ids=range(10, 30))  # so that some responses end
    samples = Decoder(policy, stopping, batch_size=8).sample(prompts, GREEDY, seed=0)
    for prompt, tokens in zip(prompts, samples.tokens, strict=True):
        assert tokens == generated(policy, stopping, prompt, 20)
    assert 0 < sum(samples.ended) < len(prompts)
    for tokens, ended in zip(samples.tokens, samples.ended, strict=True):
        assert ended == (tokens[-1] in stopping.eos_ids)
        assert ended or len(tokens) == 20


def test_stories260k_tells_its_published_story_and_ends(stories):
    codec, model = Codec.load(stories), load_policy(stories)
    start = [1, *codec.encode_response("Once upon a time")[:-1]]
    samples = Decoder(model, codec).sample([start], SamplingParams(60, temperature=0.0), seed=0)
    assert codec.tokenizer.decode(start + samples.tokens[0], skip_special_tokens=True) == (
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the "
        "park. One day, she saw a big, red ball. She wanted to play with it, but it was too "
        "high.\nLily"
    )
    theirs = AutoModelForCausalLM.from_pretrained(stories)
    long = SamplingParams(200, temperature=0.0)
    texts = ["The dog", "Tom was sad because"]
    several = [[1, *codec.encode_response(text)[:-1]] for text in texts]
    samples = Decoder(model, codec).sample(several, long, seed=0)
    for prompt, tokens in zip(several, samples.tokens, strict=True):
        assert tokens == generated(theirs, codec, prompt, 200)
    assert samples.ended == [True, True] and {tokens[-1] for tokens in samples.tokens} == {1}


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_sampled_logprobs_are_those_of_a_full_forward_pass(policy, codec, prompts, temperature):
    params = SamplingParams(max_tokens=20, temperature=temperature, top_k=50)
    samples = Decoder(policy, codec, batch_size=8).sample(prompts, params, seed=3)
    for prompt, tokens, found in zip(prompts, samples.tokens, samples.logprobs, strict=True):
        logits = policy(input_ids=torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
        expected = (logits / temperature).log_softmax(-1)[range(len(tokens)), tokens]
        assert found == pytest.approx(expected.tolist(), abs=1e-5)
        numbers = torch.from_numpy(uniforms(3, prompt, 0, len(tokens)))  # one for each position
        assert choose(logits, params, numbers).tolist() == tokens


def test_sampled_and_trained_logprobs_agree(policy, codec, prompts):
    # what PPO needs: the ratio is 1 before the first step
    samples = Decoder(policy, codec).sample(prompts, FREE, seed=4)
    tokens, mask, response_mask = rollout_batch(prompts, samples.tokens, codec.pad_id)
    where = torch.zeros_like(mask)
    where[:, -response_mask.shape[1] :] = response_mask
    found = logprobs(policy, tokens, mask, where)[:, -response_mask.shape[1] :]
    sampled = torch.zeros_like(found)
    sampled[response_mask] = torch.tensor([x for row in samples.logprobs for x in row])
    assert torch.allclose(found, sampled, atol=1e-5)


def test_a_sample_does_not_depend_on_its_batch(policy, codec, prompts):
    repeated, indices = repeat(prompts, 3)
    whole = Decoder(policy, codec).sample(repeated, FREE, seed=1)
    small = Decoder(policy, codec, batch_size=7).sample(repeated, FREE, seed=1, indices=indices)
    assert small.tokens == whole.tokens and small.ended == whole.ended
    for place in (0, 17, 40):
        alone = Decoder(policy, codec).sample(
            [repeated[place]], FREE, seed=1, indices=[indices[place]]
        )
        assert alone.tokens == [whole.tokens[place]]
    shorter = Decoder(policy, codec).sample(repeated, SamplingParams(5), seed=1)
    assert shorter.tokens == [tokens[:5] for tokens in whole.tokens]


def test_seeds_and_repeats_differ(policy, codec, prompts):
    decoder = Decoder(policy, codec)
    one = decoder.sample(prompts, FREE, seed=1)
    assert decoder.sample(prompts, FREE, seed=1) == one
    assert all(
        a != b for a, b in zip(one.tokens, decoder.sample(prompts, FREE, 2).tokens, strict=True)
    )
    twice = decoder.sample([prompts[0]] * 4, FREE, seed=1).tokens
    assert len({tuple(tokens) for tokens in twice}) == 4 and twice[0] == one.tokens[0]


def test_samples_follow_the_models_distribution(make_policy, codec):
    model, prompt = make_policy("llama"), [5, 6, 7]
    samples = Decoder(model, codec).sample([prompt] * 3000, SamplingParams(1), seed=0)
    counts = np.bincount([tokens[0] for tokens in samples.tokens], minlength=300)
    expected = model(input_ids=torch.tensor([prompt])).logits[0, -1].softmax(-1).tolist()
    expected = np.array(expected) * 3000
    common = expected >= 5  # the rest together, as the test wants
    observed = [*counts[common], counts[~common].sum()]
    wanted = np.array([*expected[common], expected[~common].sum()])
    assert common.sum() > 5
    assert stats.chisquare(observed, wanted * 3000 / wanted.sum()).pvalue > 0.001


def test_the_token_is_where_the_number_falls():
    # probabilities 0.1, 0.2, 0.3, 0.4 take up [0, 0.1), [0.1, 0.3), [0.3, 0.6), [0.6, 1)
    numbers = [0.0, 0.05, 0.11, 0.29, 0.31, 0.59, 0.61, 0.999]
    assert chosen(numbers) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert chosen([0.0, 1 - 2**-53]) == [0, 3]


def test_top_k_and_top_p_keep_the_likely_tokens_in_proportion():
    # tokens 2 and 3 are left: 0.3 / 0.7 = 0.4286 is the border
    numbers = [0.0, 0.42, 0.43, 1 - 2**-53]
    assert chosen(numbers, top_k=2) == [2, 2, 3, 3]
    assert chosen(numbers, top_p=0.7) == [2, 2, 3, 3]
    assert chosen(numbers, top_p=0.69) == [2, 2, 3, 3]  # 0.4 alone is not enough
    assert chosen(numbers, top_p=0.39) == [3, 3, 3, 3]
    assert chosen(numbers, top_k=9) == [0, 2, 2, 3]
    assert chosen(numbers, temperature=0.0) == [3, 3, 3, 3]


def test_temperature_sharpens():
    # 0.1, 0.2, 0.3, 0.4 squared and divided by 0.3: 0.0333, 0.1333, 0.3, 0.5333
    assert chosen([0.03, 0.04, 0.16, 0.17, 0.46, 0.47], temperature=0.5) == [0, 1, 1, 2, 2, 3]


def chosen(numbers, **params):
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().expand(len(numbers), 4)
    settings = SamplingParams(max_tokens=1, **params)
    return choose(logits, settings, torch.tensor(numbers, dtype=torch.float64)).tolist()


def test_the_numbers_are_pinned():
    # taken from the first version: a change would alter every run that is resumed
    assert uniforms(7, [1, 2, 3], 0, 2).tolist() == [0.23975331008848566, 0.4954707313460769]
    assert (uniforms(7, [1, 2, 3], 0, 2) == uniforms(7, np.array([1, 2, 3]), 0, 9)[:2]).all()


def test_repeats_are_counted():
    assert occurrences([[1], [2], [1], [1]]) == [0, 0, 1, 2]
    assert repeat([[1], [2]], 2) == ([[1], [1], [2], [2]], [0, 1, 0, 1])
    assert repeat([[1], [1]], 2)[1] == [0, 1, 2, 3]  # equal prompts still get different samples


def test_dropout_is_off_while_sampling_and_back_on_after(policy, codec, prompts):
    plain = Decoder(policy, codec).sample(prompts, FREE, seed=0)
    set_dropout(policy, 0.5)
    policy.train()
    assert Decoder(policy, codec).sample(prompts, FREE, seed=0) == plain
    assert policy.training


def test_which_id_pads_makes_no_difference(policy, codec, prompts):
    tokenizer = Codec.__new__(Codec)
    tokenizer.__dict__.update(codec.__dict__, pad_id=codec.eos_id)
    for params in (FREE, GREEDY):
        ours = Decoder(policy, codec).sample(prompts, params, seed=0)
        assert Decoder(policy, tokenizer).sample(prompts, params, seed=0) == ours
    assert prompt_batch(prompts, codec.eos_id).mask.equal(prompt_batch(prompts, 1).mask)


def test_nothing_to_sample(policy, codec):
    assert Decoder(policy, codec).sample([], FREE, seed=0).tokens == []


def test_mistakes_are_named(policy, codec):
    with pytest.raises(InstilError, match="max_tokens 0 is not at least 1"):
        SamplingParams(0)
    with pytest.raises(InstilError, match="temperature -1 is not 0"):
        SamplingParams(1, temperature=-1)
    with pytest.raises(InstilError, match="top_p 0 is not in"):
        SamplingParams(1, top_p=0)
    with pytest.raises(InstilError, match="top_k -1 is negative"):
        SamplingParams(1, top_k=-1)
    decoder = Decoder(policy, codec)
    with pytest.raises(InstilError, match="prompt number 2 has 45 tokens; with max_tokens 20"):
        decoder.sample([[2], [2] * 45], FREE, seed=0)
    with pytest.raises(InstilError, match="prompt number 1 has no tokens"):
        decoder.sample([[]], FREE, seed=0)
