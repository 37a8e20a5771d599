"""What ARCHITECTURE.md promises about structure, kept by tests."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import get_type_hints

import pytest

import instil
from instil import advantages, losses
from instil.cli import COMMANDS
from instil.config import RECIPES, from_recipe, read_recipe
from instil.train import ppo_config

PACKAGE = Path(instil.__file__).parent
TESTS = Path(__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(PACKAGE)) for path in FILES]

STAIRS = [
    {"errors", "losses", "advantages", "stats"},
    {"records", "config", "compare", "compute"},
    {"jsonl"},
    {"runs"},
    {"progress", "processes", "env"},
    {"stages"},
    {"intake", "convert", "world"},
    {"lm", "labeling"},
    {"feedback", "train", "report"},
    {"evals"},
    {"story"},
    {"demo", "loop"},
    {"study"},
    {"cli"},
    {"__main__"},
]
STAIR = {room: number for number, rooms in enumerate(STAIRS) for room in rooms}

WITHOUT_TORCH = {
    *(
        "errors",
        "stats",
        "compare",
        "compute",
        "records",
        "config",
        "jsonl",
        "runs",
        "progress",
        "processes",
        "stages",
        "env",
    ),
    *("intake", "convert", "world", "labeling", "report", "cli"),
}

NETWORK = {
    "aiohttp",
    "ftplib",
    "http",
    "httpx",
    "httpx2",
    "huggingface_hub",
    "requests",
    "smtplib",
    "socket",
    "urllib",
    "urllib3",
}

ENDPOINT = "evals/endpoint.py"
"""What may open a connection, to the URL that the user gave."""

VARIANTS = {
    "demo": "instil.story.Size",
    "loop": "instil.loop.Size",
    "ppo-init": "instil.train.sft.Config",
    "ppo-ptx": "instil.train.ppo.Config",
    "study": "instil.study.plan.Plan",
}
"""Tables of recipes that are not the config of the command they are called after."""

PLAIN = {
    "adam_eps",
    "batch_size",
    "betas",
    "clip",
    "demonstrations",
    "discount",
    "epochs",
    "heads",
    "layers",
    "lr",
    "max_tokens",
    "model",
    "out",
    "patience",
    "prompts",
    "rankings",
    "responses",
    "seed",
    "temperature",
    "top_k",
    "top_p",
    "value_lr",
    "weight_decay",
    "width",
}
"""Config fields whose names say everything that a docstring would."""

TESTED_ELSEWHERE: dict[str, str] = {
    "__init__.py": "the version only; see test_cli.py",
    "__main__.py": "run by test_cli.py",
    "labeling/migrations/versions/v0001_first.py": "tests/labeling/test_migrations.py",
    "labeling/migrations/versions/v0002_survey.py": "tests/labeling/test_migrations.py",
    "convert/rows.py": "one format a function; test_convert.py has a row of each",
    "report/details.py": "test_report.py reads the page that it is a part of, as below",
    "report/figures.py": "",
    "report/page.py": "",
    "report/source.py": "",
    "report/tables.py": "",
}
"""Modules without a test file of their own, and why."""


def room(path: Path) -> str:
    """The room that a file stands in: `lm` for lm/text.py."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, also inside functions: `instil.lm.text`, `json`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: write imports from the package's name"
            if node.module == "instil":
                yield from (f"instil.{name.name}" for name in node.names)
            else:
                yield node.module or ""


def rooms_of(path: Path) -> Iterator[str]:
    """The rooms of instil that a file imports from."""
    for module in imports(path):
        if module.startswith("instil.") and module != "instil.__version__":
            yield module.split(".")[1]


def test_every_room_has_a_stair():
    assert {room(path) for path in FILES} - {"__init__"} == set(STAIR)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_imports_only_go_down(path):
    here = room(path)
    if here == "__init__":
        assert not list(imports(path)), "instil/__init__.py imports nothing"
        return
    for other in rooms_of(path):
        assert other == here or STAIR[other] < STAIR[here], f"{path} may not import {other}"


def test_the_import_test_sees_an_import_inside_a_function(tmp_path):
    file = tmp_path / "x.py"
    file.write_text("def f():\n    from instil.cli import main\n    import instil.demo\n")
    assert list(rooms_of(file)) == ["cli", "demo"]


def test_only_the_command_line_finds_modules_by_name():
    found = [
        name
        for name, path in zip(NAMES, FILES, strict=True)
        if "import_module" in path.read_text(encoding="utf-8")
    ]
    # lm/reward.py imports the user's own module:function, evals/text.py what an extra brings; never
    # one of ours
    assert found == ["cli.py", "evals/text.py", "lm/reward.py"]


def test_rooms_that_need_no_torch_do_not_load_it():
    modules = [
        ".".join(("instil", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
            ".__init__"
        )
        for path in FILES
        if room(path) in WITHOUT_TORCH
    ]
    code = (
        "import importlib, json, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print(json.dumps([m for m in ('torch', 'transformers') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == []


def test_the_help_is_instant():
    # what makes it slow are imports: of models, of arrays, of the parser of flags
    code = (
        "import json, sys\n"
        "from instil.cli import main\n"
        "assert main(['--help']) == 0\n"
        "heavy = ('torch', 'transformers', 'tyro', 'numpy', 'msgspec', 'rich')\n"
        "print(json.dumps([m for m in heavy if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_no_file_is_too_long_to_read():
    lines = {
        name: path.read_text(encoding="utf-8").count("\n")
        for name, path in zip(NAMES, FILES, strict=True)
    }
    long = {name: count for name, count in lines.items() if count > 400}
    assert not long, f"split these where a second subject begins: {long}"


def test_nothing_reaches_for_the_network():
    found = {
        name: reached
        for name, path in zip(NAMES, FILES, strict=True)
        if (reached := {module.split(".")[0] for module in imports(path)} & NETWORK)
        and name != ENDPOINT
    }
    assert not found


def test_every_module_has_a_test_file():
    missing = []
    for path in FILES:
        name = path.relative_to(PACKAGE)
        if str(name) in TESTED_ELSEWHERE or "def " not in path.read_text(encoding="utf-8"):
            continue
        wanted = [TESTS / name.parent / f"test_{name.name}"]
        if name.name == "__init__.py":  # a package's own code is tested under the package's name
            package = name.parent
            wanted = [TESTS / folder / f"test_{package.name}.py" for folder in (package, "")]
        if not any(file.exists() for file in wanted):
            missing.append(f"src/instil/{name}")
    assert not missing, f"no test file of the same name, no reason why: {', '.join(missing)}"


def test_modules_tested_elsewhere_exist():
    assert set(TESTED_ELSEWHERE) <= set(NAMES)


def documented(kind: type) -> set[str]:
    """The fields of a dataclass, inherited ones too, that have a docstring under them."""
    found: set[str] = set()
    for base in kind.__mro__:
        if not dataclasses.is_dataclass(base):
            continue
        body = ast.parse(inspect.cleandoc(inspect.getsource(base))).body[0].body
        for field, text in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                found.add(field.target.id)
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_a_config_and_a_run(command):
    module = import_module(COMMANDS[command][0])
    kind = module.Config
    assert dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen
    assert kind.__doc__ and not kind.__doc__.startswith("Config(")
    assert list(inspect.signature(module.run).parameters) == ["config"]
    unclear = {field.name for field in dataclasses.fields(kind)} - documented(kind) - PLAIN
    assert not unclear, f"say under each what it is, and its unit: {sorted(unclear)}"


def test_every_recipe_fits_its_commands():
    recipes = sorted(RECIPES.glob("*.toml"))
    assert recipes, f"no recipes in {RECIPES}"
    for path in recipes:
        for table, values in read_recipe(path).items():
            assert table in VARIANTS or table in COMMANDS, f"{path.name}: what is [{table}]?"
            where = VARIANTS.get(table) or f"{COMMANDS[table][0]}.Config"
            module, _, name = where.rpartition(".")
            kind = getattr(import_module(module), name)
            paths = {
                field: (Path("x"),) if hint == tuple[Path, ...] else Path("x")
                for field, hint in get_type_hints(kind).items()
                if field not in values and hint in (Path, tuple[Path, ...])
            }
            if "rm" in get_type_hints(kind):
                paths["rm"] = "x"
            from_recipe(kind, path, table, **paths)  # a recipe may leave out paths, nothing else


def test_the_method_page_names_what_exists():
    page = (TESTS.parent / "docs" / "method.md").read_text(encoding="utf-8")
    sources = [path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py")]
    defined = {name for text in sources for name in re.findall(r"^def (test_\w+)", text, re.M)}
    named = set(re.findall(r"`(test_\w+)`", page))
    assert len(named) > 40
    assert not named - defined, "docs/method.md names tests that do not exist"
    rows = [line.split(" | ") for line in page.splitlines() if re.match(r"\| \d+ \|", line)]
    assert [int(row[0].strip("| ")) for row in rows] == list(range(1, len(rows) + 1))
    fields = {field.name for field in dataclasses.fields(ppo_config.Config)}
    settings = {name for row in rows for name in re.findall(r"`(\w+)`", row[3])}
    assert settings <= fields, f"not settings of ppo: {sorted(settings - fields)}"


def test_every_public_formula_is_on_the_method_page():
    page = (TESTS.parent / "docs" / "method.md").read_text(encoding="utf-8")
    for module in (losses, advantages):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__ and not name.startswith("_"):
                assert f"`{name}`" in page, f"{module.__name__}.{name} is not in docs/method.md"


def test_the_map_of_the_house_shows_every_file():
    page = (TESTS.parent / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for path in FILES:
        parts = path.relative_to(PACKAGE).parts
        if len(parts) == 1 or parts[0] in ("lm", "train"):
            assert parts[-1] in page, f"ARCHITECTURE.md does not show {path.relative_to(PACKAGE)}"
        assert f"{parts[0]}/" in page or parts[0] in page
