"""Whole-or-absent checkpoints with checksums, and exact resume.

A checkpoint is a directory `step-000200`: one safetensors file per group of tensors (weights, Adam
moments, EMA), `state.json` for plain values, `MANIFEST.json` with the SHA-256 of each. It is made
under another name, flushed to disk and renamed, so a kill or a full disk leaves the one before.
Loading verifies the checksums: a flipped bit is found before it is trained on, and the checkpoint
before is used instead, with a message.

No random state is stored: what is random in training is a function of (seed, step), see `reseed`.

With several processes rank 0 writes and reads whole tensors, so a checkpoint does not know how many
there were: a run that was saved by two can go on with one, and back.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from instil.errors import InstilError
from instil.runs import say
from instil.train import dist

WRITE_ERRORS = (OSError, SafetensorError)
"""What a full disk raises: safetensors has an error of its own."""

Groups = Mapping[str, Mapping[str, Tensor]]


def reseed(seed: int, step: int) -> None:
    """Make everything random in this step (dropout) a function of (seed, step) and the rank."""
    rank = f"/{dist.rank()}" if dist.rank() else ""
    key = hashlib.blake2b(f"{seed}/{step}{rank}".encode(), digest_size=8).digest()
    torch.manual_seed(int.from_bytes(key, "big") >> 1)


def save_checkpoint(
    run: Path, step: int, groups: Groups, state: Mapping[str, Any], keep: int = 2
) -> None:
    """Write `run/checkpoints/step-...` whole or not at all, then drop all but the last `keep`.

    Tensors may be in shards: every rank calls this, and rank 0 writes.
    """
    if dist.first():
        with dist.busy():
            _write(run / "checkpoints", step, groups, state, keep)
    else:
        for tensors in groups.values():
            dist.on_first(tensors)
    dist.from_first(lambda: None)  # wait: the end of one rank ends them all


def _write(folder: Path, step: int, groups: Groups, state: Mapping[str, Any], keep: int) -> None:
    target = folder / f"step-{step:06d}"
    temporary = folder / f".{target.name}.tmp"
    for torn in folder.glob(".step-*.tmp"):  # left by a kill inside a save
        shutil.rmtree(torn, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        for name, tensors in groups.items():
            save_file(dist.on_first(tensors), temporary / f"{name}.safetensors")
        (temporary / "state.json").write_text(json.dumps({"step": step, **state}))
        sums = {path.name: _sha256(path) for path in sorted(temporary.iterdir())}
        (temporary / "MANIFEST.json").write_text(json.dumps(sums, indent=2))
        sync(temporary)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
        _sync(folder)
    except WRITE_ERRORS as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise InstilError(
            f"{target}: cannot write the checkpoint ({error}); the one before is kept: "
            "make room and start the same command again"
        ) from error
    for old in _steps(folder)[:-keep]:
        shutil.rmtree(folder / f"step-{old:06d}", ignore_errors=True)


def load_checkpoint(run: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]] | None:
    """The newest checkpoint whose checksums hold: (groups, state), or None to begin anew.

    With several processes rank 0 reads; the groups of the others are empty, as `set_tensors` and
    `set_optimizer` want them.
    """
    with dist.busy():
        found = _read(run / "checkpoints") if dist.first() else None
    state = dist.from_first(lambda: found and found[1])
    if state is None:
        return None
    return (found[0] if found else defaultdict(dict)), state


def _read(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]] | None:
    for step in reversed(_steps(folder)):
        path = folder / f"step-{step:06d}"
        if damage := _damage(path):
            say(f"{path}: {damage}; using the checkpoint before it")
            continue
        sums = json.loads((path / "MANIFEST.json").read_text())
        names = [name for name in sums if name.endswith(".safetensors")]
        groups = {name.removesuffix(".safetensors"): load_file(path / name) for name in names}
        state: dict[str, Any] = json.loads((path / "state.json").read_text())
        return groups, state
    if _steps(folder):
        raise InstilError(f"{folder}: every checkpoint is damaged; delete the run and start again")
    return None


def weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The tensors of a model that learn, by name; tied weights once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def set_weights(model: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Copy saved weights into a model of the same shape."""
    set_tensors(weights(model), saved)


def set_tensors(own: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Copy saved tensors into those of the same names; only rank 0 needs to have them."""
    if saved or dist.first():
        wrong = sorted(own.keys() ^ saved.keys())[:3]
        wrong += [n for n in own.keys() & saved.keys() if own[n].shape != saved[n].shape][:3]
        if wrong:
            raise InstilError(f"the checkpoint is of another model: {', '.join(wrong)} differ")
    for name, tensor in own.items():
        dist.fill(tensor, saved.get(name))


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """An optimizer's moments and step counts, named after the parameters they belong to."""
    return {
        f"{name}/{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def set_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, saved: Mapping[str, Tensor]
) -> None:
    """The inverse of `optimizer_tensors`; only rank 0 needs to have what was saved."""
    parameters = dict(model.named_parameters())
    for key in dist.from_first(lambda: list(saved)):
        name, field = key.rsplit("/", 1)
        optimizer.state[parameters[name]][field] = dist.place(saved.get(key), parameters[name])


def _steps(folder: Path) -> list[int]:
    names: Iterable[Path] = folder.glob("step-*") if folder.exists() else ()
    found = (re.fullmatch(r"step-(\d{6,})", path.name) for path in names)
    return sorted(int(match[1]) for match in found if match)


def _damage(path: Path) -> str:
    """What is wrong with a checkpoint, or nothing."""
    manifest = path / "MANIFEST.json"
    try:
        sums = json.loads(manifest.read_text())
    except (OSError, ValueError):
        return "MANIFEST.json is missing or damaged"
    for name, expected in sums.items():
        if not (path / name).exists():
            return f"{name} is missing"
        try:
            found = _sha256(path / name)
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
        if found != expected:
            return f"{name} is damaged (its checksum differs)"
    return ""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(folder: Path) -> None:
    """Force the files of a folder to the disk, and their names."""
    for path in [*(p for p in folder.rglob("*") if p.is_file()), folder]:
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
