"""A run directory: what was run, with what, and what came of it.

    run.json        resolved config, hashes of the files that it names, versions, threads, status;
                    written before anything else
    run.lock        held while a process works here
    metrics.jsonl   one object per step; append-only, rewound to the checkpoint on resume
    samples.jsonl   what the model wrote as training went on
    checkpoints/    train/checkpoint.py
    final/          the result, a plain Hugging Face directory

A finished run is never overwritten; an unfinished one is resumed by the same command. Metrics are
reproducible to the bit except the fields whose name begins with "time".
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from instil import __version__, jsonl
from instil.config import to_dict
from instil.errors import InstilError

RESULTS = {"checkpoints", "best", "final", "metrics.jsonl"}
"""What only a run writes."""

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "msgspec")


class Run:
    """One run directory, held by this process. Use `Run.open`."""

    def __init__(self, path: Path, info: dict[str, Any], lock: Any) -> None:
        self.path = path
        self.info = info
        self.stop_requested = False
        self._lock = lock
        self._board: Any = None

    @classmethod
    @contextmanager
    def open(
        cls, out: Path, command: str, config: Any, *, threads: int = 0, reopen: bool = False
    ) -> Iterator[Run]:
        """Create or resume the run in `out`; with `reopen`, also when it is finished.

        Raises InstilError when another process works there, when the run is finished, or when it
        was started with another config (the fields that differ are named). A run that fails before
        its first step leaves nothing behind, so that the mended command can take its place.
        """
        found = out.is_dir()
        try:
            out.mkdir(parents=True, exist_ok=True)
            lock = (out / "run.lock").open("a+", encoding="utf-8")
        except OSError as error:
            raise InstilError(f"{out}: cannot make the run directory ({error.strerror})") from error
        with lock:
            _take_lock(lock, out)
            info, before = _read_info(out), _contents(out)
            if before & RESULTS and not info:
                raise InstilError(
                    f"{out}: holds files of a run but no run.json; choose another --out"
                )
            resumed = bool(info and (before or info["status"] == "finished"))
            if resumed:
                _check_same(out, info, command, to_dict(config), threads, reopen)
                _check_data(out, info, _digests(config))
                info["status"] = "running"  # one that had stopped by itself goes on
            else:
                info = _new_info(command, to_dict(config), threads) | {"data": _digests(config)}
            write_json(out / "run.json", info)
            run = cls(out, info, lock)
            try:
                with run._signals():
                    yield run
            except InstilError:
                if not resumed and _contents(out) == before:
                    _forget(out, directory=not found)
                raise

    @property
    def final(self) -> Path:
        """Where the result goes; present only when the run is finished."""
        return self.path / "final"

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Append the metrics of one step and show them."""
        with _mendable():
            jsonl.append_line(self.path / "metrics.jsonl", {"step": step, **metrics})
        if self.info["config"].get("tensorboard"):
            self._to_tensorboard(step, metrics)

    def samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append what the model wrote at one step."""
        with _mendable():
            for row in rows:
                jsonl.append_line(self.path / "samples.jsonl", {"step": step, **row})

    def rewind(self, step: int) -> None:
        """Forget metrics and samples after `step`, and a torn last line: resume repeats them."""
        for name in ("metrics.jsonl", "samples.jsonl"):
            path = self.path / name
            if path.exists():
                kept = [row for row in read_lines(path) if row["step"] <= step]
                with _mendable():
                    lines = (msgspec.json.encode(row) + b"\n" for row in kept)
                    jsonl.replace_files({path: lines})

    def finish(self, **results: Any) -> None:
        """Mark the run finished; from now on it is only read."""
        self.info |= {"status": "finished", "time_finished": _now(), **results}
        write_json(self.path / "run.json", self.info)

    def stopped(self, reason: str) -> None:
        """Note why the run stopped by itself."""
        self.info |= {"status": f"stopped: {reason}"}
        write_json(self.path / "run.json", self.info)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first SIGINT or SIGTERM asks the loop to stop after its step; the second aborts."""

        def ask(number: int, frame: Any) -> None:
            if self.stop_requested:
                raise KeyboardInterrupt
            self.stop_requested = True

        try:
            before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not the main thread: whoever runs us handles signals
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _to_tensorboard(self, step: int, metrics: Mapping[str, Any]) -> None:
        if self._board is None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise InstilError(
                    "tensorboard is not installed; pip install 'instil[tensorboard]'"
                ) from error
            self._board = SummaryWriter(str(self.path / "tb"), purge_step=step)
        for name, value in metrics.items():
            if isinstance(value, int | float):
                self._board.add_scalar(f"train/{name}", value, step)
        self._board.flush()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a metrics or samples file; a torn last line is left out."""
    rows = []
    for line in path.read_bytes().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def read_info(path: Path) -> dict[str, Any]:
    """run.json of a run directory."""
    if not (info := _read_info(path)):
        raise InstilError(f"{path}: no run.json there; give the directory of a run")
    return info


def model_dir(path: Path) -> Path:
    """The model in `path`: its final/ when it is a run directory, else `path` itself."""
    if (path / "final" / "config.json").exists():
        return path / "final"
    if (path / "run.json").exists():
        raise InstilError(f"{path}: this run is not finished; start the same command again")
    return path


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that the file is whole or as before."""
    with _mendable():
        jsonl.write_json(path, value)


def versions() -> dict[str, str]:
    """Versions that a bug report needs."""
    found = {"instil": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def say(message: str) -> None:
    """Progress for people, on standard error."""
    print(message, file=sys.stderr, flush=True)


def _take_lock(lock: Any, out: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        holder = lock.read().strip() or "another process"
        raise InstilError(
            f"{out}: {holder} works in this run directory; wait for it or choose another --out"
        ) from None
    if not os.fstat(lock.fileno()).st_nlink:
        raise InstilError(f"{out}: another process has just given it up; try again")
    lock.truncate(0)
    with suppress(OSError):  # a full disk is found, and named, when run.json is written
        os.write(lock.fileno(), f"process {os.getpid()} on {platform.node()}\n".encode())


def _read_info(out: Path) -> dict[str, Any]:
    path = out / "run.json"
    if not path.exists():
        return {}
    try:
        info: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise InstilError(f"{path}: not JSON ({error}); this run cannot be resumed") from error
    if not isinstance(info, dict) or not {"command", "config", "status", "threads"} <= info.keys():
        raise InstilError(f"{path}: is not the run.json of a run; choose another --out")
    return info


def _contents(out: Path) -> set[str]:
    """What is in a run directory besides the two files that every start writes."""
    return {path.name for path in out.iterdir()} - {"run.json", "run.lock"}


def _forget(out: Path, directory: bool) -> None:
    """Leave no trace of a run that wrote nothing."""
    for name in ("run.json", "run.lock"):
        (out / name).unlink(missing_ok=True)
    if directory:
        with suppress(OSError):  # it holds something that is not ours
            out.rmdir()


def _new_info(command: str, config: dict[str, Any], threads: int) -> dict[str, Any]:
    return {
        "command": command,
        "config": config,
        "versions": versions(),
        "threads": threads,
        "status": "running",
        "time_started": _now(),
    }


def _check_same(
    out: Path,
    info: dict[str, Any],
    command: str,
    config: dict[str, Any],
    threads: int,
    reopen: bool,
) -> None:
    if info["status"] == "finished" and not reopen:
        raise InstilError(
            f"{out}: this run is finished and never overwritten; choose another --out"
        )
    if info["command"] != command:
        raise InstilError(f"{out}: holds a run of `instil {info['command']}`; choose another --out")
    old = info["config"]
    names = {**old, **config}.keys() - {"out"}  # one place may have two names
    differ = [name for name in names if old.get(name) != config.get(name)]
    if differ:
        changes = ", ".join(f"{n} was {old.get(n)!r}, is {config.get(n)!r}" for n in sorted(differ))
        raise InstilError(
            f"{out}: cannot resume with another config: {changes}; choose another --out"
        )
    now = versions()
    if changed := [n for n, before in info.get("versions", {}).items() if now.get(n) != before]:
        say(
            f"{out}: started with another version of {', '.join(changed)}: "
            "the result may not be equal to the bit"
        )
    if threads != info["threads"]:
        say(
            f"{out}: started with {info['threads']} threads, resumed with {threads}: "
            "the result will not be equal to the bit"
        )


def _check_data(out: Path, info: dict[str, Any], data: dict[str, str]) -> None:
    before = info.get("data", {})
    if changed := [path for path, digest in before.items() if data.get(path) != digest]:
        raise InstilError(
            f"{out}: {', '.join(changed)}: not what it was when the run began; "
            "put it back or choose another --out"
        )


def _digests(config: Any) -> dict[str, str]:
    """Path -> SHA-256 of every file that the config names."""
    found = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        for path in value if isinstance(value, tuple) else (value,):
            if isinstance(path, Path) and path.is_file():
                with suppress(OSError), path.open("rb") as file:  # who reads it says what is wrong
                    found[str(path)] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


@contextmanager
def _mendable() -> Iterator[None]:
    """Say how to go on when a file of the run cannot be written."""
    try:
        yield
    except InstilError as error:
        raise InstilError(f"{error}; make room and start the same command again") from error


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
