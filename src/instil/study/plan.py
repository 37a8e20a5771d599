"""Which models a study trains, and in which order: sizes x seeds, and what only some of them do.

As in the paper, one reward model serves the policies of every size (6B there, appendix C.2), and
the ablations are made at one size. A seed makes everything anew: world, users, labelers, training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from instil.config import from_recipe, read_recipe
from instil.errors import InstilError, nearest
from instil.jsonl import replace_files

Tables = Mapping[str, Mapping[str, Any]]

RATES = ("lr", "value_lr")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The table [study] of a recipe."""

    sizes: tuple[str, ...]
    """Names of the sizes, the smallest first."""
    width: tuple[int, ...]
    """Of each size; so are layers, heads, rate."""
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    rate: tuple[float, ...]
    """What the learning rates of the other tables are multiplied by."""
    seeds: tuple[int, ...]
    reward_size: str
    """Whose PPO start writes what is ranked, and becomes the reward model of every size."""
    scan_size: str
    """At which the scans of kl_coef, ptx_coef and of the mix of PPO's start are made."""
    folds: int = 5
    """Groups of labelers, each left out of a reward model once (section 4.1)."""
    best_of: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    best_of_prompts: int = 200

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads", "rate"):
            if len(getattr(self, name)) != len(self.sizes):
                raise InstilError(
                    f"[study] {name} has {len(getattr(self, name))} values for "
                    f"{len(self.sizes)} sizes; give one for each"
                )
        for name in ("reward_size", "scan_size"):
            if getattr(self, name) not in self.sizes:
                hint = nearest(getattr(self, name), self.sizes)
                raise InstilError(f"[study] {name}: no size {getattr(self, name)!r}{hint}")
        for name in ("sizes", "seeds", "best_of"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise InstilError(f"[study] {name} {list(values)}: give at least one, none twice")
        if self.folds < 2:
            raise InstilError(f"[study] folds {self.folds}: at least 2, one to leave out")


@dataclass(frozen=True, slots=True)
class Job:
    """What one process does: the story of one size and seed, or comparing the sizes of a seed."""

    seed: int
    size: str = ""
    """Empty: compare the sizes."""
    needs: tuple[str, ...] = ()
    """Names of the jobs that must be done before."""

    @property
    def name(self) -> str:
        """Its folder."""
        return f"{self.size or 'compare'}-{self.seed}"


def jobs(plan: Plan) -> list[Job]:
    """All jobs: those that others wait for first, then the longest."""
    others = [size for size in reversed(plan.sizes) if size != plan.reward_size]
    first = [Job(seed, plan.reward_size) for seed in plan.seeds]
    rest = [
        Job(seed, size, (f"{plan.reward_size}-{seed}",)) for size in others for seed in plan.seeds
    ]
    last = [Job(seed, "", tuple(f"{size}-{seed}" for size in plan.sizes)) for seed in plan.seeds]
    return [*first, *rest, *last]


def read_plan(recipe: Path) -> Plan:
    """The table [study] of a recipe."""
    return from_recipe(Plan, recipe, "study")


def write_recipes(plan: Plan, recipe: Path, folder: Path) -> None:
    """A demo's recipe for every size. One that is there already must say the same."""
    tables = read_recipe(recipe)
    files = {folder / f"{size}.toml": to_toml(tables_of(plan, tables, size)) for size in plan.sizes}
    files[folder / "study.toml"] = to_toml({"study": asdict(plan)})
    for path, text in files.items():
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise InstilError(
                f"{path}: the study was begun with another recipe than {recipe} is now; "
                "put it back or choose another --out"
            )
    replace_files({path: [text.encode()] for path, text in files.items()})


def tables_of(plan: Plan, tables: Tables, size: str) -> Tables:
    """The tables of one size: its shape, and its learning rates."""
    place = plan.sizes.index(size)
    shape = {name: getattr(plan, name)[place] for name in ("width", "layers", "heads")}
    found: dict[str, dict[str, Any]] = {}
    for name, table in tables.items():
        if name == "study":
            continue
        found[name] = {
            key: plan.rate[place] * value if key in RATES else value for key, value in table.items()
        }
    found["pretrain"] |= shape
    return found


def to_toml(tables: Tables) -> str:
    """Tables of numbers, texts, truth values and lists of them as TOML."""
    lines: list[str] = []
    for name, table in tables.items():
        lines += [
            f"[{name}]",
            *(f"{key} = {json.dumps(value)}" for key, value in table.items()),
            "",
        ]
    return "\n".join(lines)
