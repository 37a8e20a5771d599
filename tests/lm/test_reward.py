from __future__ import annotations

import math
import shutil
from dataclasses import replace

import pytest
import torch

from instil.errors import InstilError
from instil.lm.reward import Likelihood, PythonReward, RewardModel, load_reward, save_reward
from instil.lm.scalar import ScalarModel


@pytest.fixture
def reward(codec, make_policy) -> RewardModel:
    return RewardModel(ScalarModel.from_policy(make_policy("llama"), seed=0), codec)


@pytest.mark.parametrize("tokens", [1, 20, 10_000])  # one pass each, two passes, one pass
def test_scores_are_in_order_and_do_not_depend_on_the_batch(reward, monkeypatch, tokens):
    monkeypatch.setattr("instil.lm.reward.tokens_per_pass", lambda model: tokens)
    prompts = ["Which river?", "A recipe", "Which river runs?", "She"]
    responses = ["The Aller.", "for lentil soup: rinse the lentils", "No.", "folded"]
    together = reward(prompts, responses)
    alone = [reward([p], [r])[0] for p, r in zip(prompts, responses, strict=True)]
    assert together == pytest.approx(alone, abs=1e-5)
    assert len(set(together)) == 4


def test_the_score_is_read_at_the_end_token(reward):
    # PPO_DETAILS 1.8: prompt, response and end token alone, the number at the last of them
    codec = reward.codec
    ids = codec.encode_prompt("Which river?") + codec.encode_response("The Aller.")
    assert ids[-1] == codec.eos_id
    tokens = torch.tensor([ids])
    value = reward.model.values(tokens, torch.ones_like(tokens, dtype=torch.bool))[0, -1].item()
    assert reward(["Which river?"], ["The Aller."]) == pytest.approx([value], abs=1e-6)


def test_saved_and_loaded_with_its_spread(reward, tmp_path):
    save_reward(tmp_path / "rm", replace(reward, std=2.0), mean=0.5)
    again = load_reward(tmp_path / "rm")
    assert again.std == 2.0
    assert again(["A recipe"], ["soup"]) == pytest.approx(reward(["A recipe"], ["soup"]), abs=1e-6)
    (tmp_path / "rm" / "instil_reward.json").unlink()
    assert math.isnan(load_reward(tmp_path / "rm").std)


def test_a_likelihood_is_added_to_the_score(reward, make_policy, tmp_path):
    policy = make_policy("gpt2")
    both = replace(reward, likelihood=Likelihood(policy, weight=0.3, temperature=0.5))
    prompts, responses = ["Which river?", "A recipe"], ["The Aller.", "for lentil soup"]
    for prompt, response, alone, found in zip(
        prompts, responses, reward(prompts, responses), both(prompts, responses), strict=True
    ):
        asked = reward.codec.encode_prompt(prompt)
        said = reward.codec.encode_response(response)  # with its end token, which counts, too
        with torch.no_grad():
            logits = policy(torch.tensor([asked + said])).logits[0, len(asked) - 1 : -1]
        each = (logits / 0.5).log_softmax(dim=-1)[torch.arange(len(said)), said]
        assert found == pytest.approx(alone + 0.3 * each.sum().item(), abs=1e-4)
    save_reward(tmp_path / "rm", both, mean=0.0)
    again = load_reward(tmp_path / "rm")
    assert again(prompts, responses) == pytest.approx(both(prompts, responses), abs=1e-5)
    for part in ("instil_reward.json", "likelihood"):
        copy = tmp_path / part
        shutil.copytree(tmp_path / "rm", copy, ignore=shutil.ignore_patterns(part))
        with pytest.raises(InstilError, match=r"only one of likelihood/ and .* copy the whole"):
            load_reward(copy)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("return [1.0]", "1 scores for 2 responses"),
        ("return None", "returned NoneType"),
        ("return 3.0", "returned float"),
        ("return ['good', 'bad']", "returned list, not one number"),
        ("return [1.0, float('inf')]", "score inf for the response 'b'"),
    ],
)
def test_a_reward_function_that_returns_something_else(body, complaint, tmp_path, monkeypatch):
    name = f"reward_{abs(hash(body))}"
    (tmp_path / f"{name}.py").write_text(f"def score(prompts, responses):\n    {body}\n")
    monkeypatch.chdir(tmp_path)
    reward = load_reward(f"{name}:score")
    assert isinstance(reward, PythonReward)
    with pytest.raises(InstilError, match=complaint):
        reward(["p", "q"], ["a", "b"])


def test_a_reward_function_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "thin.py").write_text("score = 3\n")
    for spec, complaint in (
        ("nowhere:score", "No module named 'nowhere'"),
        ("thin:other", "has no attribute 'other'"),
        ("thin:score", "int is not a function"),
    ):
        with pytest.raises(InstilError, match=complaint):
            load_reward(spec)


def test_a_reward_function_gets_texts_and_gives_floats(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lengths.py").write_text(
        "import torch\ndef score(prompts, responses):\n"
        "    return torch.tensor([len(p) + len(r) for p, r in zip(prompts, responses)])\n"
    )
    assert load_reward("lengths:score")(["ab", "c"], ["d", ""]) == [3.0, 1.0]
