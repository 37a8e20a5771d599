"""The command line hands over to a command and turns what comes back into an exit status."""

from __future__ import annotations

import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import pytest

from instil import __version__, cli
from instil.cli import COMMANDS, main
from instil.errors import InstilError


@dataclass(frozen=True)
class Config:
    """A command of this test."""

    lr: float = 1.0
    """Anything."""


@pytest.fixture
def command(monkeypatch):
    """A command `try`; the test sets what it does: command.run = ..."""
    module = types.ModuleType("instil_try")
    module.Config, module.ran = Config, []
    module.run = module.ran.append
    monkeypatch.setitem(sys.modules, "instil_try", module)
    monkeypatch.setitem(cli.COMMANDS, "try", ("instil_try", "for this test"))
    return module


def raising(error):
    def run(config):
        raise error

    return run


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["-h", "ppo"]])
def test_the_help_lists_every_command(argv, capsys):
    assert main(argv) == 0
    page = capsys.readouterr().out
    assert page.startswith("usage: instil COMMAND")
    for name, (_, what) in COMMANDS.items():
        assert name in page and what in page


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_a_misspelt_command_is_a_wrong_command_line(capsys):
    assert main(["pppo"]) == 2
    shown = capsys.readouterr()
    assert shown.err == "instil: no command 'pppo'; did you mean \"ppo\"?\n"
    assert shown.out == ""


def test_a_command_gets_its_config(command):
    assert main(["try", "--lr", "3"]) == 0
    assert command.ran == [Config(lr=3.0)]


def test_a_mistake_is_one_line_without_a_traceback(command, capsys):
    command.run = raising(InstilError("a.jsonl:3: text: missing; add it to the line"))
    assert main(["try"]) == 1
    assert capsys.readouterr().err == ("instil try: a.jsonl:3: text: missing; add it to the line\n")


def test_a_mistake_in_the_recipe_too(command, tmp_path, capsys):
    recipe = tmp_path / "r.toml"
    recipe.write_text("[try]\nlr_ = 1\n")
    assert main(["try", "--config", str(recipe)]) == 1
    error = capsys.readouterr().err
    assert error == f'instil try: {recipe}:2: [try] lr_: unknown key; did you mean "lr"?\n'
    assert command.ran == []


def test_an_interruption_says_how_to_go_on(command, capsys):
    command.run = raising(KeyboardInterrupt())
    assert main(["try"]) == 130
    assert capsys.readouterr().err == "instil try: interrupted; the same command resumes\n"


@pytest.mark.parametrize("name", ["demo", "loop", "try"])
def test_what_is_for_one_process_says_so_once_under_torchrun(name, command, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        said.append((main([name]), capsys.readouterr().err))
    # a rank that failed in silence could end rank 0 before it has said why
    told = f"instil {name}: runs in one process; start it without torchrun\n"
    assert said == [(1, told), (0, "")]
    assert command.ran == []
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert main(["try"]) == 0


def test_our_own_bug_stays_loud(command):
    command.run = raising(ZeroDivisionError("ours"))
    with pytest.raises(ZeroDivisionError):
        main(["try"])


def test_a_wrong_flag_is_a_wrong_command_line(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["try", "--lrr", "3"])
    assert caught.value.code == 2
    assert command.ran == []


def test_python_m_instil_is_the_command():
    for argv, status in ((["--version"], 0), (["pppo"], 2)):
        done = subprocess.run([sys.executable, "-m", "instil", *argv], capture_output=True)
        assert done.returncode == status


def test_the_modules_of_the_commands_exist():
    root = Path(cli.__file__).parents[1]
    for module, what in COMMANDS.values():
        path = root.joinpath(*module.split("."))
        assert path.with_suffix(".py").exists() or (path / "__init__.py").exists(), module
        assert what and what[0].islower() and not what.endswith(".")
