"""The pytest plugin: the same runs as the command line's, as pytest items."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options; they are described in the README."""
    group = parser.getgroup("conformance", "conformance of a candidate")
    group.addoption(
        "--candidate",
        action="append",
        default=[],
        metavar="SUBSYSTEM=SPEC",
        help="the implementation under test, for instance uio_msi=my_driver.py:Uio (repeatable)",
    )
