"""`--dry-run` of every trainer: a table, and nothing else."""

from __future__ import annotations

import re

import pytest

from instil import cli
from instil.lm.models import load_policy
from instil.train import dry_run
from instil.train.checkpoint import weights

LORA = ["--lora-rank", "1"]
BRIEF = ["--micro-batch-tokens", "256", "--dry-run"]
"""Small passes are traced soon."""


def rows(text):
    """The rows of a table, in MiB."""
    return {
        match[1].strip(): int(match[2].replace(",", ""))
        for match in re.finditer(r"^(.+?)\s+([\d,]+) MiB$", text, re.M)
    }


@pytest.fixture
def in_bytes(monkeypatch):
    """Tables of the toy models in bytes, which would be 0 MiB."""
    monkeypatch.setattr("instil.train.forecast._mib", lambda size: f"{size:,} MiB")


@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("sft", []),
        *(
            pytest.param(command, more, marks=pytest.mark.slow)
            for command in ("pretrain", "sft", "rm", "dpo", "ppo")
            for more in (LORA, ["--activation-checkpointing"])
        ),
        *(
            pytest.param(command, [], marks=pytest.mark.slow)
            for command in ("pretrain", "rm", "dpo", "ppo", "rm+likelihood", "ppo+likelihood")
        ),
    ],
    ids=str,
)
def test_a_dry_run_says_what_is_held_and_writes_nothing(
    command, more, world, tmp_path, capsys, in_bytes
):
    if command == "pretrain" and more == LORA:
        more = [*LORA, "--model", str(world.root / "base")]
    out = tmp_path / "out"
    assert cli.main([*world.arguments(command, out), *more, *BRIEF]) == 0
    assert not list(tmp_path.iterdir())
    printed = capsys.readouterr().out
    assert printed.startswith("memory of the process on cpu: fits")
    found = rows(printed)
    assert found["training: activations"] > 0
    model = load_policy(world.root / "base" / "final")
    size = 4 * sum(p.numel() for p in model.parameters())
    models = 2 if command.startswith("ppo") else 1
    assert found.get("weights of the likelihood") == (size if "likelihood" in command else None)
    assert found["weights"] == pytest.approx(models * size, rel=0.1)
    if more[:1] == LORA[:1]:
        assert found["optimizer states"] < 0.5 * found["weights"]
        assert "weights of the reference" not in found
    elif command != "pretrain":  # muon keeps one moment of matrices
        assert found["optimizer states"] == pytest.approx(2 * found["weights"], rel=0.01)


@pytest.mark.slow
def test_ppo_counts_each_model_once(world, tmp_path, capsys, in_bytes):
    assert cli.main([*world.arguments("ppo", tmp_path / "out"), *BRIEF]) == 0
    found = rows(capsys.readouterr().out)
    policy = load_policy(world.sft / "final")
    size = 4 * sum(p.numel() for p in policy.parameters())
    assert found["weights of the reference"] == found["average of the weights"] == size
    head = 4 * (policy.config.hidden_size + 1)
    assert found["weights of the reward model"] == size + head
    assert found["weights"] == 2 * size + head
    assert found["training: gradients"] == 2 * size + head


def test_the_cache_holds_what_the_sampler_may_write(world):
    policy = load_policy(world.sft / "final")
    # 2 layers, keys and values, 2 heads of 16 numbers of 4 bytes
    assert dry_run.cache_bytes(policy) == 2 * 2 * 2 * 16 * 4
    policy.base_model.__dict__["precision"] = "bf16"
    assert dry_run.cache_bytes(policy) == 2 * 2 * 2 * 16 * 2


@pytest.mark.slow
def test_smaller_passes_take_less(world, tmp_path, capsys, in_bytes):
    found = []
    for tokens in ("64", "256"):
        words = [*world.arguments("sft", tmp_path / "out"), "--micro-batch-tokens", tokens]
        assert cli.main([*words, "--dry-run"]) == 0
        found.append(rows(capsys.readouterr().out)["training: activations"])
    assert found[0] < 0.6 * found[1]


@pytest.mark.slow
def test_where_it_does_not_fit_it_says_what_to_change(world, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(dry_run, "room", lambda device: 2**20)
    assert cli.main([*world.arguments("rm", tmp_path / "out"), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "does not fit" in printed and "--lora-rank 16" in printed


@pytest.mark.slow
def test_each_of_several_processes_holds_its_part(world, tmp_path, capsys, in_bytes, monkeypatch):
    words = [*world.arguments("rm", tmp_path / "out"), *BRIEF]
    assert cli.main(words) == 0
    alone = rows(capsys.readouterr().out)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("memory of each of 4 processes on cpu")
    assert rows(printed)["optimizer states"] == pytest.approx(alone["optimizer states"] / 4, abs=1)
    assert rows(printed)["whole weights of one model at a time"] == alone["weights"]
    monkeypatch.setenv("RANK", "1")
    assert cli.main(words) == 0
    assert not capsys.readouterr().out


@pytest.mark.slow
def test_a_run_after_a_dry_run_is_a_run(world, tmp_path):
    words = world.arguments("rm", tmp_path / "out")
    assert cli.main([*words, "--dry-run"]) == 0
    assert cli.main(words) == 0
    model = load_policy(world.sft / "final")
    assert all(type(p.data).__name__ == "Tensor" for p in weights(model).values())
