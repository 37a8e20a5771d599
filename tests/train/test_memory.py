"""LoRA, activation checkpointing and bf16 in the trainers: less memory, the same method."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from instil import cli
from instil.errors import InstilError
from instil.lm.batches import text_batch
from instil.lm.models import load_policy, logprobs
from instil.lm.reward import load_reward
from instil.lm.scalar import ScalarModel
from instil.train import ppo, ppo_models
from instil.train.memory import MemoryConfig, prepare

LORA = ["--lora-rank", "4", "--lora-alpha", "8"]


def slow(*commands):
    return [pytest.param(command, marks=pytest.mark.slow) for command in commands]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"lora_rank": -1}, "lora_rank"),
        ({"lora_rank": 4, "lora_alpha": 0}, "lora_alpha"),
        ({"lora_targets": ("q_proj",)}, "lora_targets"),
        ({"micro_batch_tokens": -1}, "micro_batch_tokens"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, named):
    with pytest.raises(InstilError, match=named):
        MemoryConfig(**wrong)


# ------------------------------------------------------------------------------------- LoRA


@pytest.fixture(scope="module")
def adapted(world, tmp_path_factory):
    """A whole run of a command with LoRA, made when it is first asked for."""
    made = {}

    def of(command):
        if command not in made:
            made[command] = tmp_path_factory.mktemp("lora") / command
            assert cli.main([*world.arguments(command, made[command]), *LORA]) == 0
        return made[command]

    return of


@pytest.mark.parametrize("command", ["sft", *slow("rm", "dpo", "ppo")])
def test_a_lora_run_that_was_stopped_ends_as_one_that_was_not(
    command, adapted, world, helpers, tmp_path, monkeypatch
):
    words = [*world.arguments(command, tmp_path / command), *LORA]
    with monkeypatch.context() as patch:
        helpers.stop_after(patch, 5)
        assert cli.main(words) == 130
    kept = tmp_path / command / "checkpoints" / "step-000005"
    for file in kept.glob("*.safetensors"):
        names = load_file(file).keys()
        assert names and all("lora_" in name or name.startswith("head.") for name in names)
    assert cli.main(words) == 0
    whole = adapted(command)
    assert helpers.metrics(tmp_path / command) == helpers.metrics(whole)
    assert helpers.fingerprint(tmp_path / command) == helpers.fingerprint(whole)
    name = "adapter/adapter_model.safetensors"
    assert (tmp_path / command / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize("command", ["sft", *slow("rm", "dpo", "ppo")])
def test_final_is_plain_and_is_what_peft_makes_of_base_and_adapter(command, adapted, world):
    run = adapted(command)
    base = (world.root / "base" if command == "sft" else world.sft) / "final"
    if command == "rm":
        more = {"num_labels": 1, "pad_token_id": 0}
        kind = AutoModelForSequenceClassification
    else:
        more, kind = {}, AutoModelForCausalLM
    final = kind.from_pretrained(run / "final", **more)
    theirs = PeftModel.from_pretrained(kind.from_pretrained(base, **more), run / "adapter")
    tokens = torch.randint(2, 200, (3, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, expected = (model(input_ids=tokens).logits for model in (theirs, final))
    assert torch.allclose(found, expected, atol=1e-5)
    assert not any("lora" in name for name in load_file(run / "final" / "model.safetensors"))


@pytest.mark.parametrize("command", ["sft", *slow("rm", "dpo")])
def test_adapters_learn(command, adapted, helpers):
    first, *_, last = helpers.metrics(adapted(command))
    assert last["loss"] < 0.95 * first["loss"]


def test_ppo_with_adapters_holds_each_model_once(ppo_config_of):
    plain = ppo_models.load(ppo_config_of())
    models = ppo_models.load(ppo_config_of(lora_rank=4))

    def weights(*held):
        return {p for model in held for p in model.parameters()}

    found = weights(models.policy, models.value, models.reference, models.reward.model)
    learn = {p for p in weights(models.policy, models.value) if p.requires_grad}
    frozen = [p for p in found - learn if p not in weights(models.reward.model.head)]
    expected = weights(plain.policy) | weights(plain.value.backbone)
    assert sum(p.numel() for p in frozen) == sum(p.numel() for p in expected)
    assert sum(p.numel() for p in learn) < sum(p.numel() for p in frozen) / 3
    for optimizer, model in (
        (models.policy_optimizer, models.policy),
        (models.value_optimizer, models.value),
    ):
        inside = {p for group in optimizer.param_groups for p in group["params"]}
        assert inside == weights(model) & learn
    assert set(models.ema) == {n for n, p in models.policy.named_parameters() if p in learn}


def test_while_adapters_learn_reference_and_reward_stay_to_the_bit(ppo_config_of, world):
    config = ppo_config_of(lora_rank=4, lr=0.1, value_lr=0.1, warmup=0, steps=2)
    models = ppo_models.load(config)
    prompts = ppo_models.training_prompts(models, config)[: config.batch_size]
    text = torch.empty(0, 0, dtype=torch.long)
    first, _ = ppo.ppo_step(models, prompts, text, config, 0)  # checks ratio 1, KL 0, the value
    second, _ = ppo.ppo_step(models, prompts, text, config, 1)
    assert first["objective/kl"] == pytest.approx(0, abs=1e-4)
    assert abs(second["objective/kl"]) > 0.01
    batch = text_batch([([5, 6, 7], [8, 9, 10, 11])], 1)
    tokens = [([5, 6, 7], [8, 9, 10, 11])]
    source, reward = load_policy(world.sft / "final"), load_reward(world.rm)

    def of(policy):
        with torch.no_grad():
            return logprobs(policy, batch.tokens, batch.mask, batch.loss_mask)

    with models.whole_reference() as reference:
        assert torch.equal(of(reference), of(source))
    with models.whole_reward() as judge:
        assert judge.score_tokens(tokens) == reward.score_tokens(tokens)
    assert not torch.isclose(of(models.policy), of(source), atol=1e-3).all()
    scored = models.value.scores(batch.tokens, batch.mask)
    assert abs(scored.item() - reward.score_tokens(tokens)[0]) > 1e-3


def test_from_scratch_there_is_nothing_to_adapt(world, tmp_path, capsys):
    assert cli.main([*world.arguments("pretrain", tmp_path / "base"), *LORA]) == 1
    assert "give --model" in capsys.readouterr().err


# ------------------------------------------------------------------ activation checkpointing


def passed(model, settings, dropout_seed=3):
    """Loss and gradients of a pass over sequences of unequal lengths, and the bytes it keeps."""
    prepare(model, MemoryConfig(**settings), seed=0)
    batch = text_batch([([5, 6, 7], [8] * 30), ([9], [10, 11]), ([5, 6], [12] * 17)], 1)
    kept = {}

    def keep(tensor):
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    model.train()
    torch.manual_seed(dropout_seed)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        if isinstance(model, ScalarModel):
            loss = model.values(batch.tokens, batch.mask)[batch.mask].square().mean()
        else:
            loss = -logprobs(model, batch.tokens, batch.mask, batch.loss_mask).mean()
    loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return loss, gradients, sum(kept.values())


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("rank", [0, 4])
@pytest.mark.parametrize("kind", ["policy", "scalar"])
def test_checkpointed_activations_change_memory_alone(world, dropout, rank, kind):
    source = load_policy(world.sft / "final", dropout=dropout)
    if kind == "scalar":
        source = ScalarModel.from_policy(source, seed=0)
    settings = {"lora_rank": rank}
    loss, gradients, kept = passed(copy.deepcopy(source), settings)
    settings |= {"activation_checkpointing": True}
    again, same, less = passed(copy.deepcopy(source), settings)
    assert torch.equal(loss, again)
    assert gradients.keys() == same.keys()
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, same[name], rtol=1e-5, atol=1e-8)
    assert less < kept / 2
    if dropout and kind == "policy":
        assert passed(copy.deepcopy(source), settings, dropout_seed=4)[0] != loss


@pytest.mark.parametrize("command", ["sft", *slow("pretrain", "rm", "dpo", "ppo")])
def test_a_run_with_checkpointed_activations_ends_as_one_without(
    command, world, reference, helpers, tmp_path
):
    words = [*world.arguments(command, tmp_path / command), "--activation-checkpointing"]
    assert cli.main(words) == 0
    assert helpers.metrics(tmp_path / command) == helpers.metrics(reference(command))
    assert helpers.fingerprint(tmp_path / command) == helpers.fingerprint(reference(command))


# ---------------------------------------------------------------------------------- precision


@pytest.mark.parametrize("command", ["sft", *slow("ppo")])
def test_auto_is_fp32_on_a_cpu(command, world, reference, helpers, tmp_path):
    words = [*world.arguments(command, tmp_path / command), "--precision", "fp32"]
    assert cli.main(words) == 0
    assert helpers.fingerprint(tmp_path / command) == helpers.fingerprint(reference(command))


@pytest.mark.parametrize("lora", [[], LORA], ids=["all weights", "adapters"])
@pytest.mark.parametrize("command", ["sft", *slow("pretrain", "rm", "ppo")])
def test_a_run_in_bf16_learns_and_keeps_fp32_weights(
    command, lora, world, reference, helpers, tmp_path
):
    words = [*world.arguments(command, tmp_path / command), "--precision", "bf16", *lora]
    if command == "pretrain":
        words += ["--model", str(world.root / "base")]
    assert cli.main(words) == 0
    for file in (tmp_path / command).rglob("*.safetensors"):
        assert {tensor.dtype for tensor in load_file(file).values()} <= {torch.float32}
    exact, (first, *_, last) = reference(command), helpers.metrics(tmp_path / command)
    if command == "ppo":
        assert last["objective/scores"] > first["objective/scores"]
    elif command != "pretrain":  # which goes on from where it ended
        assert last["loss"] < 0.95 * first["loss"]
        if not lora:
            start = helpers.metrics(exact)[0]["loss"]
            assert first["loss"] != start and first["loss"] == pytest.approx(start, rel=0.02)
