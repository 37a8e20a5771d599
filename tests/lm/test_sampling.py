import numpy as np
import pytest
import torch
from scipy import stats
from transformers import AutoModelForCausalLM

from instil.errors import InstilError
from instil.lm import sampling
from instil.lm.batches import prompt_batch, random_bits, rollout_batch
from instil.lm.dropout import set_dropout
from instil.lm.models import load_policy, logprobs, new_policy
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


@pytest.mark.slow
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
        assert choose(logits, params, numbers)[0].tolist() == tokens


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


BEYOND = 1 - 2**-53  # the largest number that is drawn


def by_the_book(logits, params, numbers):
    """Tokens by the sums of all probabilities in float64, how far each number is from the next
    border, and the logprobs of the tokens."""
    every = (logits.double() / (params.temperature or 1)).log_softmax(-1)
    kept = every.exp()
    if params.top_k:
        kept = kept.where(kept >= kept.topk(min(params.top_k, kept.shape[1])).values[:, -1:], 0)
    if params.top_p < 1:
        ordered, ids = kept.sort(descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered
        ordered = ordered.where(before < params.top_p * ordered.sum(-1, keepdim=True), 0)
        kept = torch.zeros_like(kept).scatter(1, ids, ordered)
    upto = kept.cumsum(-1) / kept.sum(-1, keepdim=True)
    tokens = (upto <= numbers[:, None]).sum(-1).clamp(max=kept.shape[1] - 1)
    distance = (upto - numbers[:, None]).abs().amin(-1)
    return tokens, distance, every.gather(1, tokens[:, None]).squeeze(1)


@pytest.mark.parametrize("size", [1, 5, 300, 511, 512, 513, 4099])
@pytest.mark.parametrize(
    "settings",
    [{}, {"temperature": 0.3}, {"top_k": 7}, {"top_p": 0.9}, {"top_k": 90, "top_p": 0.5}],
)
def test_choosing_is_the_inverse_of_the_cumulative_probabilities(size, settings):
    params = SamplingParams(1, **settings)
    noise = torch.Generator().manual_seed(size)
    rows = 800_000 // max(size, 400)
    logits = 3 * torch.randn(rows, size, generator=noise)
    numbers = torch.rand(rows, generator=noise, dtype=torch.float64)
    tokens, found = choose(logits, params, numbers)
    expected, distance, logprob = by_the_book(logits, params, numbers)
    clear = distance > 1e-6  # nearer than that, rounding decides
    assert clear.float().mean() > 0.9
    assert torch.equal(tokens[clear], expected[clear])
    assert torch.allclose(found[clear], logprob[clear].float(), atol=2e-5)
    assert found.dtype == torch.float32 and tokens.max() < size


@pytest.mark.parametrize("size", [5, 300, 513, pytest.param(4099, marks=pytest.mark.slow)])
def test_chosen_tokens_come_as_often_as_their_probabilities_say(size):
    n = 40_000
    noise = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(1, size, generator=noise)
    numbers = torch.rand(n, generator=noise, dtype=torch.float64)
    parts = [choose(logits.expand(1000, size), FREE, part)[0] for part in numbers.split(1000)]
    counts = torch.cat(parts).bincount(minlength=size).double()
    expected = n * logits[0].double().softmax(-1)
    common = expected >= 5  # the rest together, as the test wants
    observed = [*counts[common].tolist(), counts[~common].sum().item()]
    wanted = [*expected[common].tolist(), expected[~common].sum().item()]
    if not wanted[-1]:
        observed, wanted = observed[:-1], wanted[:-1]
    assert stats.chisquare(observed, wanted).pvalue > 0.001


@pytest.mark.parametrize("size", [5, 300, 513, 4099])
@pytest.mark.parametrize("settings", [{}, {"top_k": 4}, {"top_p": 0.5}])
def test_no_number_falls_on_a_token_without_probability(size, settings):
    noise = torch.Generator().manual_seed(1)
    for share in (0.2, 0.9):
        logits = torch.randn(200, size, generator=noise)
        impossible = torch.rand(200, size, generator=noise) < share
        impossible[:, [0, -1]] = True  # the ends, where 0 and the largest number fall
        impossible[:, size // 2] = False
        logits[impossible] = -torch.inf
        upto = logits.double().softmax(-1).cumsum(-1)
        border = upto[:, size // 3] / upto[:, -1]  # between two tokens, up to rounding
        for numbers in (torch.zeros(200), torch.full((200,), BEYOND).double(), border):
            numbers = numbers.double().clamp(max=BEYOND)
            tokens, found = choose(logits, SamplingParams(1, **settings), numbers)
            assert not impossible[torch.arange(200), tokens].any()
            assert found.isfinite().all()


@pytest.mark.parametrize("size", [5, 300, 513, 1024])
def test_numbers_at_the_borders_fall_on_a_neighbour(size):
    # from 1 to 1e-30: small probabilities vanish in the sums of large ones
    noise = torch.Generator().manual_seed(2)
    logits = (12 * torch.randn(100, size, generator=noise)).sort(descending=True).values
    logits[50:] = logits[50:].flip(1)
    every = logits.double().softmax(-1)
    upto = every.cumsum(-1) / every.sum(-1, keepdim=True)
    rows = torch.arange(100)
    for last in {0, 1, size // 4, 126, 127, 128, 255, size // 2, size - 2} & set(range(size)):
        border = upto[:, last]
        below, above = border.nextafter(torch.zeros(())), border.nextafter(torch.ones(()))
        for numbers in (border, below, above, border * (1 - 1e-7)):
            tokens, found = choose(logits, FREE, numbers.clamp(max=BEYOND))
            assert found.isfinite().all() and tokens.max() < size
            start = upto[rows, tokens] - every[rows, tokens]
            assert (start <= numbers + 1e-6).all()
            assert (numbers <= upto[rows, tokens] + 1e-6).all()


def test_a_place_is_found_at_every_border_of_sums_that_round():
    noise = torch.Generator().manual_seed(3)
    weights = 10 ** (-20 * torch.rand(100, 40, generator=noise, dtype=torch.float64))
    weights[torch.rand(100, 40, generator=noise) < 0.3] = 0
    upto = weights.cumsum(1)
    for target in upto.T:
        for number in (target, target.nextafter(torch.ones(())), target.nextafter(torch.zeros(()))):
            place, rest = sampling._place(weights, number)
            assert (weights.gather(1, place[:, None]) > 0).all()
            assert (rest >= 0).all()


def test_a_token_that_is_certain_is_chosen_by_every_number():
    logits = torch.full((3, 700), -torch.inf)
    logits[:, 513] = 2.0
    numbers = torch.tensor([0.0, 0.5, BEYOND], dtype=torch.float64)
    tokens, found = choose(logits, FREE, numbers)
    assert tokens.tolist() == [513] * 3 and found.tolist() == [0.0] * 3


def chosen(numbers, **params):
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().expand(len(numbers), 4)
    settings = SamplingParams(max_tokens=1, **params)
    return choose(logits, settings, torch.tensor(numbers, dtype=torch.float64))[0].tolist()


def test_the_numbers_are_pinned():
    # taken from the first version: a change would alter every run that is resumed
    assert uniforms(7, [1, 2, 3], 0, 2).tolist() == [0.23975331008848566, 0.4954707313460769]
    assert (uniforms(7, [1, 2, 3], 0, 2) == uniforms(7, np.array([1, 2, 3]), 0, 9)[:2]).all()


PINNED = {
    "llama": [
        [76, 89, 174, 93, 76, 89, 89, 42, 98, 176, 86, 40],
        [57, 222, 116, 122, 149, 251, 11, 148, 191, 191, 191, 191],
        [76, 28, 221, 248, 10, 76, 28, 221, 167, 113, 210, 26],
    ],
    "gpt2": [
        [269, 103, 103, 43, 144, 103, 92, 42, 67, 103, 43, 92],
        [92, 92, 92, 92, 92, 122, 92, 92, 92, 269, 269, 269],
        [177, 92, 103, 269, 43, 103, 67, 103, 67, 103, 269, 92],
    ],
}
PINNED_CUT = {
    "llama": [
        [76, 89, 179, 93, 76, 89, 89, 89, 119, 76, 166, 231],
        [57, 251, 215, 141, 8, 148, 191, 148, 191, 148, 191, 84],
        [76, 89, 119, 76, 89, 89, 89, 89, 10, 179, 179, 179],
    ],
    "gpt2": [
        [269, 103, 103, 43, 269, 269, 106, 67, 67, 103, 67, 269],
        [92, 92, 92, 92, 92, 251, 177, 115, 92, 269, 92, 92],
        [177, 92, 103, 269, 269, 106, 103, 103, 269, 195, 269, 106],
    ],
}


@pytest.mark.parametrize("architecture", PINNED)
def test_the_samples_are_pinned(architecture, codec):
    # taken from the first version, which read and chose in another way
    shape = {"vocab_size": 300, "width": 32, "layers": 2, "heads": 2, "context": 64}
    model = new_policy(architecture, **shape, seed=0, pad_id=1, eos_id=0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            bits = random_bits(weight.numel(), "golden", name) >> np.uint64(11)
            weight.copy_(torch.from_numpy(4 * (bits * 2.0**-53 - 0.5)).view_as(weight))
    asked = [[5, 6, 7, 8], [9], [5, 6, 7, 8]]  # the third is the first again: its index is 1
    decoder = Decoder(model, codec)
    assert decoder.sample(asked, SamplingParams(12), seed=11).tokens == PINNED[architecture]
    cut = SamplingParams(12, temperature=0.7, top_k=20, top_p=0.9)
    assert decoder.sample(asked, cut, seed=11).tokens == PINNED_CUT[architecture]


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
