"""A TOML recipe and command-line flags become one frozen dataclass.

A recipe has one table per step; a flag beats the recipe, the recipe beats the default:

    instil ppo --config my.toml                          # the table [ppo] of a file
    instil sft --config instructgpt --table ppo-init     # another table, of a packaged recipe

Every key is checked when the file is read: an unknown one names its nearest relative, a value of
the wrong type names file, line and field.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

import msgspec

from instil.errors import InstilError, nearest

Config = TypeVar("Config")

RECIPES = Path(__file__).parent / "recipes"


def read_recipe(path: Path) -> dict[str, dict[str, Any]]:
    """The tables of a TOML recipe, unchecked."""
    try:
        recipe = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InstilError(f"{path}: no such recipe") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InstilError(f"{path}: {error}") from error
    for name, table in recipe.items():
        if not isinstance(table, dict):
            raise InstilError(f'{path}: "{name}" stands outside a table; put it under [COMMAND]')
    return recipe


def find(name: str) -> Path:
    """A recipe by its path, or one that comes with instil by its name without .toml."""
    given = Path(name)
    if given.suffix == ".toml" or given.is_file():
        return given
    path = RECIPES / f"{name}.toml"
    if not path.exists():
        known = [recipe.stem for recipe in RECIPES.glob("*.toml")]
        raise InstilError(f"{name}: no such file, and no recipe of that name{nearest(name, known)}")
    return path


def recipe_table(path: Path, table: str) -> dict[str, Any]:
    """One table of a recipe."""
    recipe = read_recipe(path)
    if table not in recipe:
        raise InstilError(f"{path}: no table [{table}]{nearest(table, recipe)}")
    return recipe[table]


def check_table(kind: type, table: Mapping[str, Any], path: Path, name: str) -> dict[str, Any]:
    """The table's values as the fields of dataclass `kind` want them, or an error with its line."""
    hints = get_type_hints(kind)
    fields = {field.name for field in dataclasses.fields(kind)}
    values = {}
    for key, value in table.items():
        field = key.replace("-", "_")
        where = f"{path}:{_line_of(path, name, key)}: [{name}] {key}"
        if field not in fields:
            raise InstilError(f"{where}: unknown key{nearest(field, fields)}")
        try:
            values[field] = msgspec.convert(value, hints[field], strict=True, dec_hook=_to_path)
        except msgspec.ValidationError as error:
            raise InstilError(f"{where} = {value!r}: {error}") from error
    return values


def from_recipe(kind: type[Config], path: Path, table: str, **given: Any) -> Config:
    """A config from one table of a recipe; `given` beats the recipe."""
    return kind(**{**check_table(kind, recipe_table(path, table), path, table), **given})


def from_command_line(command: str, kind: type[Config], argv: Sequence[str]) -> Config:
    """Flags over recipe over defaults, for one command."""
    import tyro  # 0.3 s: only when a command is run

    argv, recipe, table = _take_recipe(list(argv), command)
    flags: list[str] = []
    if recipe is not None:
        values = check_table(kind, recipe_table(recipe, table), recipe, table)
        for field, value in values.items():
            flags += _as_flags(field, value)
    argv = _together(argv, kind)
    return tyro.cli(kind, args=flags + argv, prog=f"instil {command}", description=kind.__doc__)


def to_dict(config: Any) -> dict[str, Any]:
    """A config as what JSON gives back (tuples are lists), so that it compares with run.json."""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(values, enc_hook=str))
    return plain


def _together(argv: Sequence[str], kind: type) -> list[str]:
    """`--model a --model b` as `--model a b`, where a field takes several; else the last counts."""
    several = {
        "--" + name.replace("_", "-")
        for name, hint in get_type_hints(kind).items()
        if get_origin(hint) is tuple
    }
    values: dict[str, list[str]] = {}
    rest: list[str] = []
    target = rest
    for word in argv:
        flag, has_value, value = word.partition("=")
        flag = flag.replace("_", "-")
        if word.startswith("--") and flag in several:
            target = values.setdefault(flag, [])
            target += [value] if has_value else []
        elif word.startswith("--"):
            target = rest
            target.append(word)
        else:
            target.append(word)
    return rest + [word for flag, given in values.items() for word in (flag, *given)]


def _take_recipe(argv: list[str], command: str) -> tuple[list[str], Path | None, str]:
    """Split `--config FILE` and `--table NAME` from the other flags."""
    taken: dict[str, str] = {}
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        flag, has_value, value = word.partition("=")
        if flag not in ("--config", "--table"):
            rest.append(word)
            continue
        value = value if has_value else next(words, "")
        if not value:
            raise InstilError(f"{flag} needs a value: {flag} recipes/demo.toml")
        taken[flag] = value
    recipe = find(taken["--config"]) if "--config" in taken else None
    if recipe is None and "--table" in taken:
        raise InstilError("--table names a table of a recipe; give the recipe with --config FILE")
    return rest, recipe, taken.get("--table", command)


def _as_flags(field: str, value: Any) -> list[str]:
    flag = "--" + field.replace("_", "-")
    if isinstance(value, bool):
        return [flag if value else "--no-" + flag[2:]]
    if isinstance(value, tuple | list):
        return [flag, *map(str, value)]
    return [f"{flag}={value}"]  # one word, so that a value may begin with a dash


def _to_path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise msgspec.ValidationError(f"Expected `{kind.__name__}`, got `{type(value).__name__}`")


def _line_of(path: Path, table: str, key: str) -> int:
    """The line of `key` in `[table]`; the table's own line when it cannot be told."""
    header, inside = 0, False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if match := re.match(r"\s*\[([^\]]+)\]", line):
            inside = match[1].strip().strip('"') == table
            header = number if inside else header
        elif inside and re.match(rf'\s*"?{re.escape(key)}"?\s*=', line):
            return number
    return header
