from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from instil.errors import InstilError
from instil.lm.models import load_policy
from instil.lm.text import Codec
from instil.train import dpo, rankings
from instil.train.rankings import Item, items_of_step

RANKINGS = [
    ([5, 6, 7], [[8, 9, 0], [10, 0], [11, 12, 13, 14, 0]], [2, 1, 3]),
    ([20, 21], [[22, 0], [23, 24, 25, 0], [26, 0], [27, 28, 0]], [1, 2, 2, 3]),
    ([30, 31, 32, 33, 34], [[35, 0], [36, 37, 38, 39, 40, 0]], [2, 1]),
    ([5, 6, 7], [[41, 42, 0], [43, 0]], [1, 2]),
]
"""Prompt, responses, ranks; two rankings are of one prompt."""


def items() -> list[Item]:
    return [
        Item(
            prompt_id=str(number),
            split="train",
            group="training",
            labeler_id="ann",
            prompt=prompt,
            responses=responses,
            response_ids=[f"{number}-{k}" for k in range(len(responses))],
            ranks=ranks,
            lengths=[1] * len(responses),
        )
        for number, (prompt, responses, ranks) in enumerate(RANKINGS)
    ]


def settings(**changes) -> dpo.Config:
    files = dict.fromkeys(("prompts", "responses", "rankings"), (Path("x"),))
    return dpo.Config(model=Path("x"), out=Path("x"), **(files | changes))


@pytest.fixture(scope="module")
def codec(world) -> Codec:
    return Codec.load(world.sft / "final")


@pytest.fixture(scope="module")
def policies(world, codec):
    """The reference, a policy some way from it, both in float64, and rankings that know it."""
    reference = load_policy(world.sft / "final").double()
    policy = copy.deepcopy(reference)
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in policy.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=noise, dtype=weight.dtype)
    known = rankings.with_reference(
        items(), lambda some: rankings.reference_logprobs(reference, codec, 50, some)
    )
    return reference, policy, known


def step(policy, codec, known, tokens, **changes):
    """Loss, metrics and gradients of one step over all rankings."""
    config = settings(batch_size=len(known), **changes)
    batches = dpo._batches(known, codec, config, tokens, 0)
    weight = sum(batch.weight for batch in batches)
    policy.zero_grad()
    loss, sums = 0.0, {}
    for batch in batches:
        part, shares = dpo._loss(policy, config, batch, weight)
        part.backward()
        loss += part.item()
        sums = {name: sums.get(name, 0.0) + share for name, share in shares.items()}
    return loss, sums, [weight.grad.clone() for weight in policy.parameters()]


def alone(policy, prompt, response):
    """The plain way: one sequence, all logits."""
    ids = torch.tensor([[*prompt, *response]])
    logits = policy(input_ids=ids).logits[0, len(prompt) - 1 : -1]
    return F.log_softmax(logits, dim=-1)[range(len(response)), response].sum()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_and_gradient_are_those_of_each_pair_alone_and_unpacked(policies, codec, smoothing):
    reference, policy, known = policies
    loss, sums, gradients = step(policy, codec, known, 10_000, label_smoothing=smoothing)
    policy.zero_grad()
    means, better, right = [], [], []
    for prompt, responses, ranks in RANKINGS:
        pairs = [
            (chosen, rejected)
            for chosen, first in zip(responses, ranks, strict=True)
            for rejected, second in zip(responses, ranks, strict=True)
            if first < second
        ]
        losses, rewards = [], []
        for pair in pairs:
            won, lost = (
                0.1 * (alone(policy, prompt, r) - alone(reference, prompt, r).detach())
                for r in pair
            )
            margin = won - lost
            losses.append(
                -(1 - smoothing) * F.logsigmoid(margin) - smoothing * F.logsigmoid(-margin)
            )
            rewards.append([won.item(), lost.item()])
        means.append(sum(losses) / len(pairs))
        better.append([sum(column) / len(pairs) for column in zip(*rewards, strict=True)])
        right.append(sum(won > lost for won, lost in rewards) / len(pairs))
    expected = sum(means) / len(means)
    expected.backward()
    assert loss == pytest.approx(expected.item(), abs=1e-6)
    for gradient, weight in zip(gradients, policy.parameters(), strict=True):
        assert torch.allclose(gradient, weight.grad, rtol=1e-5, atol=1e-7)
    won, lost = (sum(column) / len(better) for column in zip(*better, strict=True))
    assert sums["rewards/chosen"] == pytest.approx(won, abs=1e-6)
    assert sums["rewards/rejected"] == pytest.approx(lost, abs=1e-6)
    assert sums["rewards/margins"] == pytest.approx(won - lost, abs=1e-6)
    assert sums["rewards/accuracies"] == pytest.approx(sum(right) / len(right))


def test_the_micro_batches_change_neither_loss_nor_metrics_nor_gradient(policies, codec):
    _, policy, known = policies
    assert len(items_of_step(known, settings(batch_size=4), 12, 0)) == 4
    loss, sums, gradients = step(policy, codec, known, 10_000)
    parts, part_sums, part_gradients = step(policy, codec, known, 12)
    assert parts == pytest.approx(loss, abs=1e-12)
    assert part_sums == pytest.approx(sums, abs=1e-9)
    for gradient, part in zip(gradients, part_gradients, strict=True):
        assert torch.allclose(gradient, part, rtol=1e-5, atol=1e-8)  # norms are in fp32


def test_k_copies_of_the_responses_weigh_as_one(policies, codec):
    _, policy, known = policies
    copied = [
        replace(
            item, responses=3 * item.responses, ranks=3 * item.ranks, reference=3 * item.reference
        )
        for item in known[:2]
    ] + known[2:]
    loss, _, gradients = step(policy, codec, known, 10_000)
    again, _, again_gradients = step(policy, codec, copied, 10_000)
    assert again == pytest.approx(loss, abs=1e-12)
    for gradient, same in zip(gradients, again_gradients, strict=True):
        assert torch.allclose(gradient, same, rtol=1e-5, atol=1e-8)


def test_a_prompt_is_read_once_for_all_its_responses(policies, codec):
    _, policy, known = policies
    read = []
    hook = policy.get_input_embeddings().register_forward_hook(
        lambda _module, given, _found: read.append(given[0].numel())
    )
    (batch,) = dpo._batches(known[:3], codec, settings(batch_size=3), 10_000, 0)
    dpo._loss(policy, settings(), batch, 3)
    hook.remove()
    assert read == [int(batch.lengths.sum())]
    assert read[0] == sum(len(p) + sum(map(len, responses)) for p, responses, _ in RANKINGS[:3])


def test_the_reference_is_each_response_alone_in_the_order_of_the_rankings(policies):
    reference, _, known = policies
    for item in known:
        expected = [alone(reference, item.prompt, response).item() for response in item.responses]
        assert item.reference == pytest.approx(expected, abs=1e-9)


def test_it_starts_at_the_reference_and_learns_the_toy_preference(reference, helpers):
    run = reference("dpo")
    rows = helpers.metrics(run)
    first, last = rows[0], rows[-1]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert first["rewards/chosen"] == pytest.approx(0, abs=1e-5)
    assert last["loss"] < 0.98 * first["loss"]
    assert last["rewards/margins"] > 0.05
    assert last["rewards/accuracies"] > 0.5
    assert last["logps/chosen"] - last["logps/rejected"] > 0
    assert {"learning_rate", "num_tokens", "grad_norm", "rewards/rejected"} <= last.keys()
    evaluated = [row for row in rows if "eval/rewards/accuracies" in row]
    assert [row["step"] for row in evaluated] == [4, 8, last["step"]]
    low, high = (evaluated[-1][f"eval/rewards/accuracies/ci_{end}"] for end in ("low", "high"))
    assert low <= evaluated[-1]["eval/rewards/accuracies"] <= high
    report = json.loads((run / "accuracy.json").read_text())["accuracy"]
    assert [row["split"] for row in report] == ["test", "valid"]
    assert all(row["model"]["mean"] > 0.5 for row in report)
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    assert {"step", "prompt", "response", "rank", "score"} <= samples[0].keys()


def test_the_result_is_a_plain_model_in_which_the_better_response_has_gained(
    reference, world, codec
):
    prompt = codec.encode_prompt("What color ? red")
    responses = [codec.encode_response(f"It is {word}.") for word in ("red", "what")]
    margins = []
    for folder in (world.sft / "final", reference("dpo") / "final"):
        policy = AutoModelForCausalLM.from_pretrained(folder)
        with torch.no_grad():
            better, worse = (alone(policy, prompt, response) for response in responses)
        margins.append(float(better - worse))
    assert margins[1] > margins[0] + 1


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"beta": 0.0}, "beta 0.0 must be greater than 0"),
        ({"label_smoothing": 0.5}, "label_smoothing 0.5 must be"),
        ({"label_smoothing": -0.1}, "label_smoothing -0.1 must be"),
        ({"max_tokens": 0}, "max_tokens 0"),
        ({"lr": 0.0}, "lr 0.0"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, named):
    with pytest.raises(InstilError, match=named):
        settings(**wrong)


def test_defaults_are_the_papers():
    config = settings()
    assert (config.beta, config.batch_size, config.lr, config.warmup) == (0.1, 64, 1e-6, 150)
