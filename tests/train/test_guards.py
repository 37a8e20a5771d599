from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from instil import cli
from instil.errors import InstilError
from instil.lm.dropout import set_dropout
from instil.lm.models import load_policy
from instil.lm.sampling import Decoder
from instil.train import ppo
from instil.train.guards import Limits, check_finite, check_gap, check_start

FINE = {
    "objective/kl": 1.0,
    "completions/clipped_ratio": 0.1,
    "watch/repeat4": 0.0,
    "watch/same": 0.1,
}
NO_TEXT = torch.empty(0, 0, dtype=torch.long)


def prompts(config) -> list[str]:
    return ["What color ? red", "What color  blue", "What color ?? green", "What color ? pink"] * 4


def first_step(models, config):
    return ppo.ppo_step(models, prompts(config), NO_TEXT, config, 0)


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_a_sound_start_passes_with_ratio_1_and_kl_0(ppo_config_of, temperature):
    # PPO_DETAILS 1.5: a temperature that sampling and scoring do not share
    config = ppo_config_of(temperature=temperature, minibatch_size=16)
    found, _ = first_step(ppo.load(config), config)
    assert abs(found["objective/kl"]) < 1e-5
    assert found["val/ratio"] == pytest.approx(1, abs=1e-5)
    assert found["policy/approxkl_avg"] < 1e-9
    assert found["rollout/max_abs_dlogp"] < 1e-4
    assert found["policy/clipfrac_avg"] == 0


def test_dropout_in_the_policy_is_found(ppo_config_of):
    config = ppo_config_of()
    models = ppo.load(config)
    set_dropout(models.policy, 0.2)
    with pytest.raises(InstilError, match=r"ratio is not 1.*dropout"):
        first_step(models, config)


def test_another_reference_is_found(ppo_config_of):
    config = ppo_config_of()
    models = ppo.load(config)
    with torch.no_grad():
        next(models.reference.parameters()).mul_(1.1)
    with pytest.raises(InstilError, match=r"KL is not 0.*not the same model"):
        first_step(models, config)


def test_a_value_that_is_not_the_reward_model_is_found(ppo_config_of):
    config = ppo_config_of()
    models = ppo.load(config)
    models.value.shift(0.5)
    with pytest.raises(InstilError, match=r"value at the last token.*gap 0\.5"):
        first_step(models, config)


def shift_samples(monkeypatch, off: float, rows=range(16)) -> None:
    """Let the decoder give wrong logprobs of the first tokens of some responses."""
    sample = Decoder.sample

    def shifted(*args, **kwargs):
        samples = sample(*args, **kwargs)
        found = [list(row) for row in samples.logprobs]
        for row in rows:
            found[row][0] -= off
        return replace(samples, logprobs=found)

    monkeypatch.setattr(Decoder, "sample", shifted)


@pytest.mark.parametrize("step", [0, 1])
def test_a_decoder_with_another_distribution_is_found(ppo_config_of, monkeypatch, step):
    config = ppo_config_of()
    models = ppo.load(config)
    shift_samples(monkeypatch, 0.02)
    told = rf"step {step}: the decoder's logprobs differ.*0\.02.*allowed: 0\.01"
    with pytest.raises(InstilError, match=told):
        ppo.ppo_step(models, prompts(config), NO_TEXT, config, step)


@pytest.mark.slow
def test_one_wrong_response_is_found_before_long(ppo_config_of, monkeypatch):
    # a step looks at one of its 16 responses, and each step at another
    config = ppo_config_of()
    models = ppo.load(config)
    shift_samples(monkeypatch, 0.02, rows=[3])
    passed = []

    def hundred_steps() -> None:
        for step in range(1, 101):
            ppo.collect(models, prompts(config), config, step, {})
            passed.append(step)

    with pytest.raises(InstilError, match=r"decoder's logprobs differ.*0\.02"):
        hundred_steps()
    assert passed


def test_a_limit_below_the_tolerance_counts(ppo_config_of, monkeypatch):
    config = ppo_config_of(logprob_gap=1e-4)
    shift_samples(monkeypatch, 5e-4)
    with pytest.raises(InstilError, match=r"decoder's logprobs differ.*allowed: 0\.0001"):
        ppo.collect(ppo.load(config), prompts(config), config, 1, {})


def test_a_gap_up_to_the_limit_is_allowed():
    check_gap(0.01, allowed=0.01, step=3)
    with pytest.raises(InstilError, match=r"step 3: .* by 0\.011 \(allowed: 0\.01\)"):
        check_gap(0.011, allowed=0.01, step=3)


def test_what_is_no_number_is_no_agreement(ppo_config_of, monkeypatch):
    shift_samples(monkeypatch, math.nan)
    config = ppo_config_of()
    with pytest.raises(InstilError, match=r"step 1: .* by nan .*weights that are not finite"):
        ppo.collect(ppo.load(config), prompts(config), config, 1, {})


@pytest.mark.parametrize(("broken", "told"), [("policy", "ratio"), ("reference", "KL")])
def test_a_start_whose_logprobs_are_no_numbers_is_found(ppo_config_of, broken, told):
    config = ppo_config_of()
    models = ppo.load(config)
    rollout, _ = ppo.collect(models, prompts(config), config, 1, {})
    rollout = replace(rollout, ref_logprobs=rollout.logprobs.clone())
    (rollout.logprobs if broken == "policy" else rollout.ref_logprobs)[0, 0] = math.nan
    with pytest.raises(InstilError, match=rf"the {told} is not .* by nan"):
        check_start(models.policy, models.value, rollout, 1.0, 512, value_is_reward=False)


def test_the_value_at_the_last_token_is_the_reward_models_score(ppo_config_of):
    # PPO_DETAILS 1.8 and 1.21, read off the values of the whole sequence
    config = ppo_config_of()
    models = ppo.load(config)
    rollout, _ = ppo.collect(models, prompts(config), config, 0, {})
    s = rollout.sequences
    values = models.value.values(s.tokens, s.attention_mask)
    last = s.prompt_width + s.response_mask.sum(1) - 1
    at_end = values[torch.arange(len(last)), last][rollout.ended]
    assert len(at_end) > 4
    assert torch.allclose(at_end, rollout.raw_scores[rollout.ended], atol=1e-5)


def test_limits():
    limits = Limits(kl=5.0, truncation=0.5, repetition=0.2, same=0.5)
    assert limits.exceeded(FINE) == ""
    assert "objective/kl 5.1 is over 5" in limits.exceeded(FINE | {"objective/kl": 5.1})
    assert "no longer end" in limits.exceeded(FINE | {"completions/clipped_ratio": 0.6})
    assert "repeat themselves" in limits.exceeded(FINE | {"watch/repeat4": 0.3})
    assert "get one response" in limits.exceeded(FINE | {"watch/same": 0.6})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_named(value, tmp_path):
    check_finite(3, tmp_path, loss=1.0)
    with pytest.raises(InstilError, match=r"step 3: gradient is .*there was no checkpoint yet"):
        check_finite(3, tmp_path, loss=1.0, gradient=value)


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        (["--max-kl", "1e-4", "--lr", "1e-2"], "objective/kl"),
        (["--max-truncation", "1e-9", "--max-tokens", "2"], "completions/clipped_ratio"),
        (["--max-repetition", "-1"], "watch/repeat4"),
        (["--max-same", "0"], "watch/same"),
    ],
)
def test_a_run_over_a_limit_stops_and_leaves_the_last_good_checkpoint(
    limit, reason, world, tmp_path, capsys
):
    out = tmp_path / "ppo"
    words = [*world.arguments("ppo", out), "--checkpoint-every", "1", "--patience", "2", *limit]
    assert cli.main(words) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"instil ppo: stopped: {reason}")
    steps = len((out / "metrics.jsonl").read_text().splitlines())
    kept = sorted(p.name for p in (out / "checkpoints").glob("*"))
    if reason == "objective/kl":  # step 1 is sampled from the reference itself: it is good
        assert steps == 3
        assert kept == ["step-000001"]
        assert f"the policy of step 1, the last good checkpoint, is in {out / 'last-good'}" in told
        good = load_policy(out / "last-good").state_dict()
        averaged = load_file(out / "checkpoints" / "step-000001" / "ema.safetensors")
        assert all(torch.equal(good[name], weight) for name, weight in averaged.items())
    else:
        assert steps == 2
        assert kept == []
        assert "there was no checkpoint yet" in told
        assert not (out / "last-good").exists()
    assert json.loads((out / "run.json").read_text())["status"].startswith("stopped: " + reason)
    assert not (out / "final").exists()


def test_nan_in_the_reward_function_stops_before_the_weights(
    world, tmp_path, monkeypatch, capsys, helpers
):
    (tmp_path / "odd_reward.py").write_text(
        "calls = [0]\n"
        "def score(prompts, responses):\n"
        "    calls[0] += 1\n"
        "    return [float('nan') if calls[0] == 4 else float(len(r)) for r in responses]\n"
    )
    monkeypatch.chdir(tmp_path)
    words = world.arguments("ppo", tmp_path / "ppo")
    words[words.index("--rm") + 1] = "odd_reward:score"
    assert cli.main(words) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert "odd_reward:score: score nan for the response" in told
    assert [p.name for p in (tmp_path / "ppo" / "checkpoints").iterdir()] == ["step-000003"]
    assert helpers.metrics(tmp_path / "ppo")[-1]["step"] == 3


def test_nan_in_the_reward_model_stops_before_the_weights(ppo_config_of, tmp_path):
    config = ppo_config_of()
    models = ppo.load(config)
    before = {n: p.detach().clone() for n, p in models.policy.named_parameters()}
    with torch.no_grad():
        models.reward.model.head.bias.fill_(math.nan)
    with pytest.raises(InstilError, match="is nan; it never reached the weights"):
        ppo.ppo_step(models, prompts(config), NO_TEXT, config, 1)
    after = dict(models.policy.named_parameters())
    assert all(torch.equal(before[name], after[name]) for name in before)
