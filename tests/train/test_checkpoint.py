from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from instil.errors import InstilError
from instil.train import checkpoint
from instil.train.checkpoint import (
    load_checkpoint,
    optimizer_tensors,
    reseed,
    save_checkpoint,
    set_optimizer,
    set_weights,
)
from instil.train.fit import adam


def groups(value: float) -> dict[str, dict[str, torch.Tensor]]:
    return {
        "model": {"w": torch.full((3, 4), value), "b": torch.zeros(2)},
        "optimizer": {"w/step": torch.tensor(value)},
    }


def save(run: Path, *steps: int) -> None:
    for step in steps:
        save_checkpoint(run, step, groups(float(step)), {"kl_coef": 0.1 * step})


def loaded_step(run: Path) -> int:
    found = load_checkpoint(run)
    assert found is not None
    tensors, state = found
    step = state["step"]
    assert tensors["model"]["w"].tolist() == [[float(step)] * 4] * 3
    assert tensors["optimizer"]["w/step"].item() == step
    assert state["kl_coef"] == 0.1 * step
    return step


def test_the_newest_is_loaded_and_the_last_two_are_kept(tmp_path):
    assert load_checkpoint(tmp_path) is None
    save(tmp_path, 3, 6, 12)
    assert loaded_step(tmp_path) == 12
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [
        "step-000006",
        "step-000012",
    ]


def test_the_step_is_that_of_the_state_not_of_the_folders_name(tmp_path):
    # PPO_DETAILS 2.10: a step read from a folder's name, while the optimizer starts anew
    save(tmp_path, 3)
    folder = tmp_path / "checkpoints"
    (folder / "step-000003").rename(folder / "step-000900")
    assert loaded_step(tmp_path) == 3


def test_folders_that_are_not_ours_are_let_alone(tmp_path):
    save(tmp_path, 3)
    (tmp_path / "checkpoints" / "step-old").mkdir()
    (tmp_path / "checkpoints" / "step-000009.bak").mkdir()
    assert loaded_step(tmp_path) == 3


def fail_write(monkeypatch: pytest.MonkeyPatch, number: int) -> list[int]:
    """Let the Nth call that writes to the disk raise ENOSPC; returns a list with the count."""
    calls = [0]

    def failing(function):
        def call(*args, **kwargs):
            calls[0] += 1
            if calls[0] == number:
                raise OSError(errno.ENOSPC, "No space left on device")
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(checkpoint, "save_file", failing(checkpoint.save_file))
    monkeypatch.setattr(os, "replace", failing(os.replace))
    monkeypatch.setattr(os, "fsync", failing(os.fsync))
    monkeypatch.setattr(Path, "write_text", failing(Path.write_text))
    return calls


def test_whichever_write_fails_the_checkpoint_before_survives(tmp_path, monkeypatch):
    save(tmp_path, 3)
    number, failed = 0, []
    while True:
        number += 1
        with monkeypatch.context() as patch:
            calls = fail_write(patch, number)
            try:
                save(tmp_path, 6)
            except InstilError as error:
                failed.append(str(error))
        if calls[0] < number:
            break  # it needed fewer writes than this: every one has failed once
        found = [p.name for p in (tmp_path / "checkpoints").iterdir()]
        assert not [name for name in found if name.endswith(".tmp")]
        # only the last write, the fsync of the folder, comes when the new one is whole
        assert loaded_step(tmp_path) == (6 if "step-000006" in found else 3)
        shutil.rmtree(tmp_path / "checkpoints" / "step-000006", ignore_errors=True)
    # 2 groups, state, manifest; fsync of these 4 files and of their folder; rename; fsync
    assert len(failed) == 11
    assert all("No space left" in text and "make room" in text for text in failed)
    assert loaded_step(tmp_path) == 6


def test_what_a_kill_left_inside_a_save_is_cleared_by_the_next(tmp_path):
    save(tmp_path, 3)
    torn = tmp_path / "checkpoints" / ".step-000004.tmp"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    assert loaded_step(tmp_path) == 3
    save(tmp_path, 6)
    assert not torn.exists()


def files(run: Path) -> list[str]:
    save(run, 3, 6)
    return sorted(p.name for p in (run / "checkpoints" / "step-000006").iterdir())


@pytest.mark.parametrize(
    "name", ["MANIFEST.json", "model.safetensors", "optimizer.safetensors", "state.json"]
)
def test_every_damage_is_found_and_the_one_before_is_used(name, tmp_path, capsys):
    assert name in files(tmp_path)
    damaged = tmp_path / "checkpoints" / "step-000006" / name
    whole, chance = damaged.read_bytes(), random.Random(name)

    def check() -> None:
        assert loaded_step(tmp_path) == 3
        assert "step-000006" in (told := capsys.readouterr().err)
        assert name == "MANIFEST.json" or name in told

    for bit in chance.sample(range(8 * len(whole)), 50):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        damaged.write_bytes(flipped)
        check()
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        damaged.write_bytes(whole[:length])
        check()
    damaged.unlink()
    check()
    damaged.write_bytes(whole)
    assert loaded_step(tmp_path) == 6


def test_files_swapped_between_steps_are_found(tmp_path, capsys):
    save(tmp_path, 3, 6)
    folder = tmp_path / "checkpoints"
    shutil.copy(
        folder / "step-000003" / "optimizer.safetensors",
        folder / "step-000006" / "optimizer.safetensors",
    )
    assert loaded_step(tmp_path) == 3
    assert "optimizer.safetensors is damaged" in capsys.readouterr().err


def test_all_damaged_is_an_error_not_a_new_start(tmp_path):
    save(tmp_path, 3)
    (tmp_path / "checkpoints" / "step-000003" / "state.json").write_text("{}")
    with pytest.raises(InstilError, match="every checkpoint is damaged"):
        load_checkpoint(tmp_path)


def test_weights_of_another_model_are_refused():
    model = nn.Linear(3, 2)
    set_weights(model, {"weight": torch.ones(2, 3), "bias": torch.ones(2)})
    assert model.weight.sum().item() == 6
    with pytest.raises(InstilError, match="another model: extra"):
        set_weights(
            model, {"weight": torch.ones(2, 3), "bias": torch.ones(2), "extra": torch.ones(1)}
        )
    with pytest.raises(InstilError, match="another model: bias"):  # copy_ would broadcast
        set_weights(model, {"weight": torch.ones(2, 3), "bias": torch.ones(1)})
    assert model.weight.sum().item() == 6


def test_adam_goes_on_to_the_bit_from_its_saved_moments(tmp_path):
    def step(model: nn.Module, optimizer: torch.optim.Optimizer, scale: float) -> None:
        (model(torch.ones(1, 3)).sum() * scale).backward()
        optimizer.step()
        optimizer.zero_grad()

    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = adam(model.parameters(), 0.1, (0.9, 0.95), decay=0.1)
    step(model, optimizer, 1.0)
    tensors = {"model": checkpoint.weights(model), "optimizer": optimizer_tensors(optimizer, model)}
    save_checkpoint(tmp_path, 1, tensors, {})
    other = nn.Linear(3, 2)
    again = adam(other.parameters(), 0.1, (0.9, 0.95), decay=0.1)
    saved, _ = load_checkpoint(tmp_path)
    set_weights(other, saved["model"])
    set_optimizer(again, other, saved["optimizer"])
    for scale in (-2.0, 0.5):
        step(model, optimizer, scale)
        step(other, again, scale)
    assert torch.equal(model.weight, other.weight)
    assert torch.equal(model.bias, other.bias)


def test_chance_is_a_function_of_seed_and_step():
    def draw(seed: int, step: int) -> float:
        reseed(seed, step)
        return torch.rand(1).item()

    assert draw(0, 1) == draw(0, 1)
    assert len({draw(seed, step) for seed in range(4) for step in range(4)}) == 16


FULL_DISK = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))  # bytes in a file; weights need more
from instil.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_full_disk_is_one_clear_line_and_the_run_goes_on_when_there_is_room(
    world, reference, helpers, tmp_path
):
    from instil import cli

    out = tmp_path / "rm"
    words = world.arguments("rm", out)
    process = subprocess.run(
        [sys.executable, "-c", FULL_DISK, *words], capture_output=True, text=True, timeout=120
    )
    assert process.returncode == 1
    last = process.stderr.splitlines()[-1]
    assert last.startswith("instil rm: ")
    assert "step-000003: cannot write the checkpoint" in last
    assert "File too large" in last
    assert "make room and start the same command again" in last
    assert "Traceback" not in process.stderr
    assert not list(out.rglob("*.tmp"))
    assert not list((out / "checkpoints").iterdir())
    assert json.loads((out / "run.json").read_text())["status"] == "running"

    assert cli.main(words) == 0
    assert helpers.metrics(out) == helpers.metrics(reference("rm"))
    assert helpers.fingerprint(out) == helpers.fingerprint(reference("rm"))
