"""Mistakes at the command line: one line that says how to mend it, and nothing damaged."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from instil import cli

COMMANDS = ("pretrain", "sft", "rm", "dpo", "ppo")
INPUT = {
    "pretrain": "--text",
    "sft": "--demonstrations",
    "rm": "--rankings",
    "dpo": "--rankings",
    "ppo": "--prompts",
}


@pytest.fixture
def fails(capsys):
    """Run a command that must fail with status 1 and give the one line it says why."""

    def run(words: list[str]) -> str:
        capsys.readouterr()
        assert cli.main(words) == 1
        told = capsys.readouterr()
        assert told.out == ""
        assert "Traceback" not in told.err
        errors = [line for line in told.err.splitlines() if line.startswith("instil ")]
        assert len(errors) == 1
        assert told.err.rstrip().endswith(errors[0])
        return errors[0]

    return run


def changed(words: list[str], flag: str, value: Path | str) -> list[str]:
    at = words.index(flag)
    return [*words[: at + 1], str(value), *words[at + 2 :]]


def snapshot(folder: Path) -> dict[str, bytes]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {str(p): p.read_bytes() for p in files if p.name != "run.lock"}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_path_is_named_and_leaves_no_run_behind(command, world, tmp_path, fails):
    out = tmp_path / "runs" / command
    gone = tmp_path / "gone.jsonl"
    assert str(gone) in fails(changed(world.arguments(command, out), INPUT[command], gone))
    assert not out.exists()


@pytest.mark.parametrize("command", ["sft", "rm", "dpo", "ppo"])
def test_a_wrong_model_is_named_and_the_mended_command_starts_in_its_place(
    command, world, tmp_path, fails
):
    out = tmp_path / command
    words = world.arguments(command, out)
    told = fails(changed(words, "--model", tmp_path / "no-model"))
    assert str(tmp_path / "no-model") in told
    assert not out.exists()
    if command == "ppo":
        assert "no-rm" in fails(changed(words, "--rm", tmp_path / "no-rm"))
    if command == "rm":  # a folder that was there before stays, with what is in it
        out.mkdir()
        (out / "notes.txt").write_text("mine")
        fails(changed(words, "--model", tmp_path / "no-model"))
        assert [p.name for p in out.iterdir()] == ["notes.txt"]
        assert cli.main(words) == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_a_malformed_line_is_named_by_file_and_number(command, world, tmp_path, fails):
    words = world.arguments(command, tmp_path / "out")
    flag = INPUT[command]
    lines = Path(words[words.index(flag) + 1]).read_text().splitlines()
    bad = tmp_path / "bad.jsonl"
    bad.write_text("\n".join([*lines[:2], '{"schema": "instil.', *lines[2:]]) + "\n")
    assert f"{bad}:3" in fails(changed(words, flag, bad))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_key_of_a_recipe_is_named_by_line_and_nearest_key(
    command, world, tmp_path, fails
):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f"# a recipe\n[other]\nx = 1\n\n[{command}]\nseed = 1\nbatch_sise = 4\n")
    words = [*world.arguments(command, tmp_path / "out"), "--config", str(recipe)]
    told = fails(words)
    assert f"{recipe}:7: [{command}] batch_sise: unknown key" in told
    assert 'did you mean "batch_size"?' in told
    recipe.write_text(f'[{command}]\nlr = "fast"\n')
    assert f"{recipe}:2: [{command}] lr = 'fast'" in fails(words)
    recipe.write_text("[pp]\nlr = 1.0\n")
    assert f"no table [{command}]" in fails(words)
    assert not (tmp_path / "out").exists()


def test_a_setting_that_cannot_work_is_one_line(world, tmp_path, fails):
    words = world.arguments("ppo", tmp_path / "out")
    assert "accept-biased-rollouts" in fails([*words, "--top-p", "0.9"])
    assert "not a multiple" in fails([*words, "--minibatch-size", "5"])
    assert "context of 64 tokens; lower max_tokens" in fails([*words, "--max-tokens", "64"])
    assert "fewer than one batch of 64" in fails([*words, "--batch-size", "64"])
    told = fails([*words, "--ptx-ratio", "1000"])
    assert "one batch takes 8000" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_finished_run_is_never_overwritten(command, world, reference, fails):
    run = reference(command)
    before = snapshot(run)
    words = world.arguments(command, run)
    assert "finished and never overwritten; choose another --out" in fails(words)
    assert "finished" in fails([*words, "--lr", "1"])
    assert snapshot(run) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_another_config_on_resume_is_refused_and_its_fields_named(
    command, world, tmp_path, fails, helpers, monkeypatch
):
    out = tmp_path / command
    words = world.arguments(command, out)
    with monkeypatch.context() as patch:
        helpers.stop_after(patch, 2)
        assert cli.main(words) == 130
    before = snapshot(out)
    told = fails([*words, "--lr", "0.5", "--seed", "9"])
    assert "lr was " in told
    assert "is 0.5" in told
    assert "seed was 3, is 9" in told
    assert "batch_size" not in told
    other = COMMANDS[COMMANDS.index(command) - 1]
    assert f"holds a run of `instil {command}`" in fails(world.arguments(other, out))
    assert snapshot(out) == before


def test_data_that_changed_before_the_resume_is_refused(
    world, tmp_path, fails, helpers, monkeypatch
):
    out, data = tmp_path / "rm", tmp_path / "rankings.jsonl"
    old = (world.root / "rankings.jsonl").read_bytes()
    data.write_bytes(old)
    words = changed(world.arguments("rm", out), "--rankings", data)
    with monkeypatch.context() as patch:
        helpers.stop_after(patch, 2)
        assert cli.main(words) == 130
    data.write_bytes(old.replace(b"ann", b"ben"))
    assert f"{data}: not what it was when the run began" in fails(words)
    data.write_bytes(old)
    assert cli.main(words) == 0


def test_the_same_place_under_another_name_resumes(world, tmp_path, helpers, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        helpers.stop_after(patch, 2)
        assert cli.main(world.arguments("rm", tmp_path / "rm")) == 130
    assert cli.main(world.arguments("rm", Path("rm"))) == 0


@pytest.mark.slow
def test_a_second_trainer_on_one_run_directory_is_told_who_holds_it(
    world, tmp_path, fails, reference, helpers
):
    out = tmp_path / "ppo"
    words = world.arguments("ppo", out)
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["instil.train.ppo", "instil.train.rm", "instil.cli"])
    first = forks.Process(target=cli.main, args=(words,))
    first.start()
    limit = time.monotonic() + 60
    while not (out / "metrics.jsonl").exists():
        assert first.is_alive()
        assert time.monotonic() < limit
    os.kill(first.pid, signal.SIGSTOP)
    told = fails(words)
    os.kill(first.pid, signal.SIGCONT)
    assert f"process {first.pid} on " in told
    assert "choose another --out" in told
    first.join(60)
    assert json.loads((out / "run.json").read_text())["status"] == "finished"
    assert helpers.fingerprint(out) == helpers.fingerprint(reference("ppo"))


@pytest.mark.parametrize("command", ["sft", "rm", "dpo", "ppo"])
def test_a_tokenizer_without_an_end_token_is_refused(command, world, tmp_path, fails):
    flag = "--model"
    words = world.arguments(command, tmp_path / "out")
    source = Path(words[words.index(flag) + 1]) / "final"
    model = tmp_path / "endless"
    model.mkdir()
    for file in source.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    settings = json.loads((model / "tokenizer_config.json").read_text())
    del settings["eos_token"]
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    (model / "special_tokens_map.json").unlink(missing_ok=True)
    assert "no end-of-text token" in fails(changed(words, flag, model))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["sft", "rm", "dpo"])
def test_a_prompts_file_without_the_needed_prompt(command, world, tmp_path, fails):
    lines = world.prompts.read_text().splitlines()
    short = tmp_path / "prompts.jsonl"
    short.write_text("\n".join(lines[:7] + lines[8:]) + "\n")
    told = fails(changed(world.arguments(command, tmp_path / "out"), "--prompts", short))
    assert "p7 by ann: no such prompt in --prompts; give the file that holds it" in told
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_not_finished_is_no_model(world, tmp_path, fails, helpers, monkeypatch):
    with monkeypatch.context() as patch:
        helpers.stop_after(patch, 1)
        assert cli.main(world.arguments("rm", tmp_path / "rm")) == 130
    told = fails(changed(world.arguments("ppo", tmp_path / "ppo"), "--rm", tmp_path / "rm"))
    assert "this run is not finished; start the same command again" in told


def test_damage_of_run_json_is_named(world, tmp_path, fails):
    out = tmp_path / "rm"
    out.mkdir()
    for text in ("{", "[]", '{"a": 1}', "\udc80".encode("utf-8", "surrogatepass").hex()):
        (out / "run.json").write_text(text)
        assert "run.json" in fails(world.arguments("rm", out))
        assert (out / "run.json").read_text() == text
    (out / "run.json").unlink()
    (out / "checkpoints").mkdir()
    assert "no run.json; choose another --out" in fails(world.arguments("rm", out))
