"""What all tests share: where the public test data lie, and repeatable property tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("instil", deadline=None, derandomize=True, database=None, max_examples=60)
settings.register_profile("quick", settings.get_profile("instil"), max_examples=15)
settings.load_profile("instil")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests run without coverage, which would double their time: nearly all that they reach
    others reach too, but for PostgreSQL."""
    for item in items:
        if item.get_closest_marker("slow") and "postgres" not in item.nodeid:
            item.add_marker(pytest.mark.no_cover)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data: INSTIL_SHARED, else `shared` beside the repository root."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    path = Path(os.environ.get("INSTIL_SHARED") or beside)
    if not path.is_dir():
        pytest.skip(f"no shared data at {path}; set INSTIL_SHARED to the folder that has them")
    return path
