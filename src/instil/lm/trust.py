"""Which model directories are opened: local, in safetensors, without code of their own.

A model from elsewhere is data and must stay data. Weights in pickle files run code when they are
read, and `auto_map` in a config asks the library to import Python files that lie beside it; both
are refused before the library sees the directory. Architectures come from transformers itself.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from instil.errors import InstilError

_CODE = ("auto_map", "trust_remote_code", "custom_pipelines")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")


def check_configs(path: Path) -> None:
    """Refuse a directory that is missing, that holds an adapter, or in which a JSON config asks for
    code to be run."""
    if not path.is_dir():
        raise InstilError(f"{path}: no such directory; give the directory of a saved model")
    if (path / "adapter_config.json").exists():
        raise InstilError(
            f"{path}: holds an adapter alone; merge it into its base model first (a run has both, "
            "merged, in final/)"
        )
    for file in sorted(path.glob("*config.json")):
        key = _first_code_key(read_json(file))
        if key:
            raise InstilError(
                f'{file}: "{key}" asks to run code that comes with the model; only models whose '
                "architecture is part of transformers are loaded"
            )


def check_model(path: Path) -> None:
    """Refuse what `check_configs` does, and a directory without a config or without safetensors."""
    check_configs(path)
    if not (path / "config.json").exists():
        raise InstilError(f"{path}: no config.json; give the directory of a saved model")
    if not any(path.glob("*.safetensors")):
        pickles = sorted(file.name for kind in _PICKLES for file in path.glob(kind))
        if pickles:
            raise InstilError(
                f"{path}: the weights are in {pickles[0]}, a pickle file, which can run code when "
                "it is read; convert them to model.safetensors in a place you trust"
            )
        raise InstilError(f"{path}: no weights; expected model.safetensors")


def read_json(file: Path) -> Any:
    """The JSON value of a config file, or an `InstilError` that names the file."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InstilError(f"{file}: not readable as JSON: {error}") from error


@contextmanager
def opening(path: Path, kind: str) -> Iterator[None]:
    """Around a `from_pretrained`: failures become an `InstilError`, chatter is kept away."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InstilError(f"{path}: cannot be loaded as a {kind}: {reason}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def _first_code_key(value: Any) -> str:
    """The first key, at any depth, that asks for code; "" if there is none."""
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            for key in _CODE:
                if item.get(key):
                    return key
            todo.extend(item.values())
        elif isinstance(item, list):
            todo.extend(item)
    return ""
