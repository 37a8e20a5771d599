"""`instil env`: what a bug report needs."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

from instil.runs import versions


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Print versions of instil and of what it stands on."""


def run(config: Config) -> None:
    """Print one `name version` a line."""
    for name, version in versions().items():
        print(f"{name:13} {version}")
    print(f"{'platform':13} {platform.platform()}")
    print(f"{'cores':13} {os.cpu_count()}")
