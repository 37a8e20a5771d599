"""Recipe tables and flags become one checked config."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from instil import config
from instil.config import (
    check_table,
    find,
    from_command_line,
    from_recipe,
    read_recipe,
    recipe_table,
    to_dict,
)
from instil.errors import InstilError
from instil.train import rm


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What two commands share."""

    out: Path
    """Where to write."""
    lr: float = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(Base):
    """Settings of a command that only this test knows."""

    prompts: tuple[Path, ...] = ()
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float | None = None
    value: Path | None = None
    tensorboard: bool = False
    kind: Literal["llama", "gpt2"] = "llama"
    steps: int = 3
    name: str = ""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InstilError(f"steps {self.steps} must be at least 1")


RECIPE = """\
# two commands

[sft]
lr = 3e-4

[ppo]
out = "runs/ppo"
lr = 1
prompts = ["a.jsonl", "b.jsonl"]
betas = [0.8, 0.9]
clip = 0.2
value = "runs/rm"
tensorboard = true
kind = "gpt2"
name = "-a b"
"""

OF_RECIPE = Config(
    out=Path("runs/ppo"),
    lr=1.0,
    prompts=(Path("a.jsonl"), Path("b.jsonl")),
    betas=(0.8, 0.9),
    clip=0.2,
    value=Path("runs/rm"),
    tensorboard=True,
    kind="gpt2",
    name="-a b",
)


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text(RECIPE)
    return path


def test_a_table_becomes_a_config(recipe):
    found = from_recipe(Config, recipe, "ppo")
    assert found == OF_RECIPE
    assert isinstance(found.lr, float)  # 1 in the recipe


def test_what_is_given_beats_the_recipe(recipe):
    found = from_recipe(Config, recipe, "ppo", lr=2.0, out=Path("elsewhere"))
    assert (found.lr, found.out, found.clip) == (2.0, Path("elsewhere"), 0.2)


def test_the_command_line_reads_the_same_table(recipe):
    assert from_command_line("ppo", Config, ["--config", str(recipe)]) == OF_RECIPE
    assert from_command_line("ppo", Config, [f"--config={recipe}"]) == OF_RECIPE


def test_a_flag_beats_the_recipe_and_the_recipe_the_default(recipe):
    flags = ["--lr", "5", "--prompts", "c", "--no-tensorboard", "--clip", "None", "--out=x"]
    found = from_command_line("ppo", Config, [*flags, "--config", str(recipe)])
    assert (found.lr, found.prompts, found.tensorboard) == (5.0, (Path("c"),), False)
    assert (found.clip, found.out, found.steps) == (None, Path("x"), 3)
    assert found.betas == (0.8, 0.9)


def test_fields_are_spelt_with_a_dash_or_an_underscore(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text('[ppo]\nout = "x"\nkl-coef = 0.1\n')

    @dataclass(frozen=True)
    class Dashed:
        """Made here."""

        out: Path
        kl_coef: float = 0.0

    assert check_table(Dashed, recipe_table(path, "ppo"), path, "ppo")["kl_coef"] == 0.1
    argv = ["--out", "x", "--kl_coef", "0.3"]
    assert from_command_line("ppo", Dashed, argv).kl_coef == 0.3


def test_a_flag_that_takes_several_values_may_be_repeated(tmp_path):
    one, other = Path("a.jsonl"), Path("b.jsonl")
    paths = ["--prompts", "p.jsonl", "--responses", "r.jsonl", "--out", str(tmp_path)]
    for flags in (
        ["--rankings", "a.jsonl", "b.jsonl"],
        ["--rankings", "a.jsonl", "--lr", "1e-3", "--rankings=b.jsonl"],
    ):
        made = from_command_line("rm", rm.Config, ["--model", "m", *flags, *paths])
        assert (made.rankings, made.model) == ((one, other), Path("m"))
    twice = ["--model", "m", "--rankings", "a.jsonl", *paths, "--lr", "1e-3", "--lr", "2e-3"]
    assert from_command_line("rm", rm.Config, twice).lr == 2e-3  # one value: the last counts


def test_another_table_for_the_same_command(recipe):
    argv = ["--config", str(recipe), "--table", "sft", "--out", "x"]
    assert from_command_line("ppo", Config, argv).lr == 3e-4


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("lrr = 1", 'r.toml:2: [ppo] lrr: unknown key; did you mean "lr"?'),
        ("\n\nzebra = 1\n[sft]\nzebra = 2", "r.toml:4: [ppo] zebra: unknown key; known: betas"),
        ('lr = "fast"', "r.toml:2: [ppo] lr = 'fast': Expected `float`, got `str`"),
        ("steps = 1.5", "r.toml:2: [ppo] steps = 1.5: Expected `int`, got `float`"),
        ("steps = true", "r.toml:2: [ppo] steps = True: Expected `int`, got `bool`"),
        ('kind = "bert"', "r.toml:2: [ppo] kind = 'bert': Invalid enum value 'bert'"),
        ("out = 3", "r.toml:2: [ppo] out = 3: Expected `Path`, got `int`"),
        ('prompts = "a"', "r.toml:2: [ppo] prompts = 'a': Expected `array`, got `str`"),
        ("betas = [0.9]", "r.toml:2: [ppo] betas = [0.9]: Expected `array` of length 2"),
        ("\n# no\nlr.x = 1", "r.toml:1: [ppo] lr = {'x': 1}: Expected `float`, got `object`"),
    ],
)
def test_a_wrong_table_is_named_by_file_line_and_field(tmp_path, table, message):
    path = tmp_path / "r.toml"
    path.write_text(f"[ppo]\n{table}\n")
    with pytest.raises(InstilError) as caught:
        from_recipe(Config, path, "ppo", out=Path("x"))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr = 1\n", '"lr" stands outside a table; put it under [COMMAND]'),
        ("[ppo\n", "r.toml: Expected ']'"),
        ("[sft]\n[ppo2]\n", 'r.toml: no table [ppo]; did you mean "ppo2"?'),
        (b"[ppo]\nx = '\xff'", "r.toml: 'utf-8' codec can't decode"),
        (None, "r.toml: no such recipe"),
    ],
)
def test_a_recipe_that_cannot_be_read(tmp_path, text, message):
    path = tmp_path / "r.toml"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InstilError) as caught:
        recipe_table(path, "ppo")
    assert message in str(caught.value)


def test_a_directory_is_no_recipe(tmp_path):
    with pytest.raises(InstilError, match="directory"):
        read_recipe(tmp_path)


def test_a_recipe_of_instil_goes_by_its_name(monkeypatch, recipe, tmp_path):
    monkeypatch.setattr(config, "RECIPES", tmp_path)
    (tmp_path / "here" / "r").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")  # where a directory has the same name
    assert find("r") == recipe
    assert from_command_line("ppo", Config, ["--config", "r"]) == OF_RECIPE
    with pytest.raises(InstilError, match=r"demmo: no such file, and no recipe .*; known: r$"):
        from_command_line("ppo", Config, ["--config", "demmo"])
    (tmp_path / "here" / "s").write_text(RECIPE)
    assert find("s") == Path("s")  # a file beside us beats the name
    with pytest.raises(InstilError, match=r"^r\.toml: no such recipe$"):
        from_command_line("ppo", Config, ["--config", "r.toml"])  # a path is a path


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--config"], "--config needs a value"),
        (["--config="], "--config needs a value"),
        (["--table", "sft"], "--table names a table of a recipe; give the recipe with --config"),
    ],
)
def test_half_a_recipe_flag(argv, message):
    with pytest.raises(InstilError, match=message):
        from_command_line("ppo", Config, argv)


def test_an_unknown_flag_is_a_wrong_command_line(capsys):
    with pytest.raises(SystemExit) as caught:
        from_command_line("ppo", Config, ["--out", "x", "--lrr", "1"])
    assert caught.value.code == 2
    assert "--lrr" in capsys.readouterr().err


def test_the_help_has_the_docstrings(capsys):
    with pytest.raises(SystemExit) as caught:
        from_command_line("ppo", Config, ["--help"])
    assert caught.value.code == 0
    page = capsys.readouterr().out
    assert "usage: instil ppo" in page
    assert "Settings of a command that only this test knows." in page
    assert "Where to write." in page


def test_a_check_over_fields_speaks_for_itself():
    with pytest.raises(InstilError, match="steps 0 must be at least 1"):
        from_command_line("ppo", Config, ["--out", "x", "--steps", "0"])


def test_a_config_as_json_is_what_json_gives_back():
    plain = to_dict(OF_RECIPE)
    assert plain == json.loads(json.dumps(plain))
    assert plain["out"] == "runs/ppo"
    assert plain["betas"] == [0.8, 0.9]  # a list: run.json compares equal on resume
    assert plain["prompts"] == ["a.jsonl", "b.jsonl"]
    assert to_dict(Config(out=Path("x")))["clip"] is None
