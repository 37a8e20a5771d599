import copy

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config

from instil.errors import InstilError
from instil.lm.dropout import set_dropout
from instil.lm.models import load_policy, logprobs, save_policy
from instil.lm.scalar import ScalarModel

TOKENS = torch.arange(10, 22)[None]
ONES = torch.ones_like(TOKENS, dtype=torch.bool)
WHERE = ONES & (torch.arange(12) > 0)


def outcome(model):
    return logprobs(model, TOKENS, ONES, WHERE)


def test_it_acts_in_train_mode_only(policy):
    plain = outcome(policy)
    keys = list(policy.state_dict())
    set_dropout(policy, 0.2)
    assert torch.equal(outcome(policy), plain)
    policy.train()
    assert not torch.allclose(outcome(policy), plain, atol=1e-3)
    assert not torch.equal(outcome(policy), outcome(policy))
    policy.eval()
    assert torch.equal(outcome(policy), plain)
    assert list(policy.state_dict()) == keys


def test_it_can_be_taken_back_and_copied(policy):
    plain = outcome(policy)
    set_dropout(policy, 0.5)
    twin = copy.deepcopy(policy)
    set_dropout(policy, 0.0)
    assert torch.equal(outcome(policy.train()), plain)
    assert not torch.equal(outcome(twin.train()), plain)


def test_it_drops_the_share_it_is_told_and_keeps_the_mean(policy):
    set_dropout(policy, 0.25)
    policy.train()
    layer = next(m for m in policy.modules() if isinstance(m, torch.nn.ModuleList))[0]
    seen = []
    attention = layer.attn if hasattr(layer, "attn") else layer.self_attn
    attention.register_forward_hook(lambda module, _, output: seen.append(output[0]))
    layer.mlp.register_forward_hook(lambda module, _, output: seen.append(output))
    with torch.no_grad():
        policy(input_ids=TOKENS.repeat(200, 1))
        policy.eval()
        policy(input_ids=TOKENS.repeat(200, 1))
    for dropped, whole in ((seen[0], seen[2]), (seen[1], seen[3])):
        share = (dropped == 0).float().mean().item()
        assert share == pytest.approx(0.25, abs=0.01)  # 76,800 draws: 6 standard errors
        assert not (whole == 0).any()
    kept = seen[0] != 0
    assert torch.allclose(seen[0][kept], seen[2][kept] / 0.75)  # attention of the first layer


def test_a_loaded_model_has_no_other_dropout(codec, tmp_path):
    # GPT-2's own defaults drop 10 % in four places
    config = GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=2, n_positions=64)
    assert config.attn_pdrop == config.embd_pdrop == config.resid_pdrop == 0.1
    save_policy(AutoModelForCausalLM.from_config(config), codec, tmp_path)
    model = load_policy(tmp_path)
    plain = outcome(model)
    assert torch.equal(outcome(model.train()), plain)
    assert not torch.equal(outcome(load_policy(tmp_path, dropout=0.2).train()), plain)


def test_a_scalar_model_made_from_a_policy_has_none(policy):
    set_dropout(policy, 0.5)
    scalar = ScalarModel.from_policy(policy, seed=0)
    before = scalar.eval().values(TOKENS, ONES)
    assert torch.equal(scalar.train().values(TOKENS, ONES), before)


def test_mistakes_are_named(policy):
    with pytest.raises(InstilError, match=r"dropout 1.0 is not in \[0, 1\)"):
        set_dropout(policy, 1.0)
    with pytest.raises(InstilError, match="no attention and MLP layers were found in Linear"):
        set_dropout(torch.nn.Linear(2, 2), 0.1)
