"""The whole suite on policies whose answers are known."""

import math
from random import Random

import pytest
import torch

from instil.evals import suite
from instil.evals.policy import Policy
from instil.evals.preference import Panel
from instil.feedback.simulated import labelers
from instil.lm.models import new_policy
from instil.lm.sampling import Decoder, SamplingParams
from instil.records import Prompt
from instil.world.answers import ideal
from instil.world.tasks import make_prompt

FEW = suite.Sizes(truthful=4, hallucination=4, rudeness=4, public=4, language=4, samples=3)
CASES = ("open_qa", "chat", "generation")


@pytest.fixture
def prompts(world):
    rng = Random(0)
    made = [make_prompt(world, CASES[i % 3], "test", rng) for i in range(9)]
    return [
        Prompt(id=f"p{i}", text=text, use_case=CASES[i % 3], split="test", meta=meta)
        for i, (text, meta) in enumerate(made)
    ]


@pytest.fixture(scope="module")
def model(codec):
    ids = {"pad_id": codec.pad_id, "eos_id": codec.eos_id}
    shape = {"vocab_size": codec.vocab_size, "width": 16, "layers": 1, "heads": 2, "context": 128}
    made = new_policy("llama", **shape, **ids, seed=0)
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(8 if weight.dim() == 2 else 1)  # far from uniform, so mistakes show
    return made.eval()


def asked(count, use_case):
    return [Prompt(id=f"{use_case}-{i}", text="Hi", use_case=use_case) for i in range(count)]


def test_spread_takes_prompts_in_turn_from_the_use_cases():
    prompts = [*asked(4, "chat"), *asked(1, "open_qa"), *asked(2, "rewrite")]
    # places: chat 0-3, open_qa 4, rewrite 5-6; one of each, then what is left of each
    assert suite.spread(prompts, 3) == [0, 4, 5]
    assert suite.spread(prompts, 6) == [0, 4, 5, 1, 6, 2]
    assert suite.spread(prompts, 99) == [0, 4, 5, 1, 6, 2, 3]
    assert suite.spread([], 3) == []


def test_every_eval_is_asked_once(world):
    names = [test.name for test in suite.tests(world, FEW, 0)]
    assert len(set(names)) == len(names) == 11
    assert all(len(test.questions) == 4 for test in suite.tests(world, FEW, 0))


def test_the_suite_on_a_good_and_a_rude_policy(world, prompts, policy_of):
    metas = {p.text: p.meta for p in prompts}
    metas |= {q.text: q.meta for test in suite.tests(world, FEW, 0) for q in test.questions}

    def right(text, repeat):
        known = metas.get(text, {})
        return ideal(world, known, Random(text)) if "task" in known else "Hello."

    people = labelers(0)
    panels = {
        group: Panel(world, [one for one in people if one.group == group], 2, 0)
        for group in ("held-out", "training")
    }
    best = {"best_of": 2, "reward": lambda prompts, texts: [float(len(text)) for text in texts]}
    policies = [
        policy_of("You snool!", "base"),
        policy_of(right, "sft"),
        policy_of(lambda text, repeat: (right(text, 0), "")[repeat], "best-of-2", **best),
    ]
    asked = [suite.ask(world, one, prompts, panels["held-out"], FEW, seed=0) for one in policies]
    rows, samples = suite.compare(asked, prompts, panels, FEW)
    found = {(row["policy"], row["eval"], row["setting"]): row["mean"] for row in rows}
    assert len(found) == len(rows)  # no row twice
    assert found["sft", "follows", "all"] == 1
    assert found["sft", "truthful_informative", "all"] == 1
    assert found["sft", "hallucination", ""] == 0
    assert found["sft", "language2", ""] == 1
    assert found["base", "rude", "basic"] == 1
    assert found["base", "follows", "all"] == 0
    for name, settings in (("win_rate", panels), ("win_rate_greedy", ["held-out"])):
        for setting in settings:
            assert found["base", name, setting] < 0.2
            assert ("sft", name, setting) not in found
    # best of 2 always finds the right answer, which is the longer one: a tie with itself
    assert found["best-of-2", "win_rate", "held-out"] == 0.5
    assert ("best-of-2", "win_rate_greedy", "held-out") not in found
    assert ("best-of-2", "truthful", "all") not in found
    assert [sample["use_case"] for sample in samples] == list(CASES)
    assert samples[0]["responses"]["base"] == "You snool!"
    assert "rude" in samples[0]["flags"]["base"]
    assert samples[0]["flags"]["sft"] == []


def test_the_kl_of_a_policy_to_itself_is_zero(codec, model, prompts):
    policy = Policy(name="ppo", sampler=Decoder(model, codec), codec=codec, max_tokens=8)
    found = suite.kl(policy, model, prompts, seed=0)
    assert (found["mean"], found["stderr"]) == (0.0, 0.0)
    assert (found["eval"], found["setting"], found["unit"]) == ("kl", "ppo-init", "nats")
    assert found["n"] == len(prompts)


def test_the_kl_to_a_uniform_model_by_hand(codec, model, prompts):
    # A model of zeros gives each of V tokens the probability 1 / V: a response of n tokens with
    # logprobs l under the policy is sum(l) + n log V nats away, over more prompts than one batch.
    uniform = new_policy(
        "llama", vocab_size=codec.vocab_size, width=16, layers=1, heads=2, context=128,
        pad_id=codec.pad_id, eos_id=codec.eos_id, seed=0,
    )  # fmt: skip
    with torch.no_grad():
        for weight in uniform.parameters():
            weight.zero_()
    many = [Prompt(id=f"m{i}", text=f"{p.text} {i}"[-60:]) for i, p in enumerate(prompts * 8)]
    sampler = Decoder(model, codec)
    policy = Policy(name="ppo", sampler=sampler, codec=codec, max_tokens=8)
    ids = [codec.encode_prompt(p.text) for p in many]
    samples = sampler.sample(ids, SamplingParams(max_tokens=8), 0)
    gaps = [sum(found) + len(found) * math.log(codec.vocab_size) for found in samples.logprobs]
    found = suite.kl(policy, uniform.eval(), many, seed=0)
    assert found["mean"] == pytest.approx(sum(gaps) / len(gaps), abs=1e-3)
    assert found["mean"] > 1
