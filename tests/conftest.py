"""What every test of the suite itself begins with."""

from __future__ import annotations

import gc

import pytest


def pytest_collection_finish() -> None:
    """What has been loaded stays until the end: the garbage collector need not look through it again and again."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _as_wide_as_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's terminal: pytest-xdist tells its workers a width, and lines would be broken where no test expects it."""
    monkeypatch.delenv("COLUMNS", raising=False)
