"""The pytest plugin, loaded wherever the suite is installed: `pytest --candidate uio_msi=my_driver.py:Uio`.

It holds the options alone. What they ask for is in `conformance.runs.items`, which is not imported before
somebody names a candidate: a project's other test runs pay nothing.
"""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options; they mean what the command line's mean."""
    group = parser.getgroup("conformance", "conformance of a candidate")
    group.addoption(
        "--candidate",
        action="append",
        default=[],
        metavar="SUBSYSTEM=SPEC",
        help="the implementation under test, for instance uio_msi=my_driver.py:Uio (repeatable)",
    )
    group.addoption("--conformance-engine", metavar="E", help="engines, comma separated; default: all but symbolic")
    group.addoption("--conformance-profile", metavar="P", help="default: the one the candidate declares")
    group.addoption("--conformance-budget", metavar="TIME", help="hunt that long (10m) instead of running the gate")
    group.addoption("--conformance-seed", type=int, metavar="N", help="seed of all random choices")
    group.addoption("--conformance-corpus", metavar="DIR", help="your own traces, tried first; a hunt adds to them")
    group.addoption(
        "--conformance-report",
        action="append",
        default=[],
        metavar="FORM:PATH",
        help="also write a report (repeatable)",
    )
    group.addoption("--baseline", metavar="FILE", help="failures that are known; see conformance baseline")
    group.addoption(
        "--conformance-allow-untracked",
        action="store_true",
        default=None,
        help="known failures need no ticket and no last day",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Add the units of a run to what pytest collects, once a candidate is named; refuse wrong options at once."""
    config.addinivalue_line("markers", "conformance: a unit of work of the conformance suite")
    options = ("engine", "profile", "budget", "seed", "corpus", "report", "allow-untracked")
    names = ["--baseline", *(f"--conformance-{name}" for name in options)]
    given = [name for name in names if config.getoption(name) not in (None, [])]
    if config.getoption("--candidate"):
        from conformance.runs import items

        items.register(config)
    elif given:
        raise pytest.UsageError(f"{given[0]}: needs --candidate SUBSYSTEM=SPEC")
