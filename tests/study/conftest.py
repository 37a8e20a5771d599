"""The packaged study that is too small to show anything, run once for the tests that read it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

COMMAND = """
import sys
from pathlib import Path
from instil.study import Config, run

if __name__ == "__main__":
    run(Config(out=Path(sys.argv[1]), recipe="study-fast", workers=2, threads=1))
"""


@pytest.fixture(scope="session")
def start_study(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], subprocess.Popen]:
    """Starts a study in a directory; its messages go beside it."""
    script = tmp_path_factory.mktemp("script") / "study.py"
    script.write_text(COMMAND)

    def start(out: Path) -> subprocess.Popen:
        log = (out.parent / f"{out.name}.log").open("ab")
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(script), str(out)]
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    return start


@pytest.fixture(scope="session")
def finish_study(start_study: Callable[[Path], subprocess.Popen]) -> Callable[[Path], None]:
    """Runs a study to its end."""

    def finish(out: Path) -> None:
        status = start_study(out).wait(timeout=300)
        assert status == 0, (out.parent / f"{out.name}.log").read_text()

    return finish


@pytest.fixture(scope="session")
def study(finish_study: Callable[[Path], None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "study"
    finish_study(out)
    return out
