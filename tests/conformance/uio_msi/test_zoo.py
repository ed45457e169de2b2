"""Every known defect is found, and blamed on its clause."""

from __future__ import annotations

import pytest

from conformance.candidates.defect import Defect
from conformance.candidates.defects.uio_msi import DEFECTS
from conformance.candidates.load import load
from conformance.model.step import Parallel, Step
from conformance.model.uio_msi.operations import FIRST_FD, DeviceReset, IrqSet, Open, Probe
from conformance.runs.strength import kill
from tests.conformance.uio_msi.driving import S, run, warned


@pytest.mark.gates
@pytest.mark.parametrize("defect", [d for d in DEFECTS if d.candidate is not None], ids=lambda d: d.id)
def test_defect_is_killed_by_its_clause(defect: Defect) -> None:
    """Found, blamed on a clause the defect names, in no more steps than the facts give."""
    found = kill(S, defect, load(f"builtin:{defect.id}", S))

    assert found.failure is not None
    assert found.is_expected
    assert defect.steps is None or found.steps <= defect.steps


def test_zoo_is_complete() -> None:
    """Every defect of the posted driver and of its relatives has a driver or a reason."""
    ids = {defect.id for defect in DEFECTS}

    assert {f"UIO-D{n:02}" for n in range(1, 40)} | {f"UIO-U{n:02}" for n in range(1, 19)} <= ids
    assert all(bool(defect.why_not) != (defect.candidate is not None) for defect in DEFECTS)


def test_message_that_nobody_saw_written_may_be_missing() -> None:
    """UIO-032 stays a SHOULD when a set after a reset was undone beside another thread."""
    factory = load("builtin:UIO-D35", S).factory
    race = Parallel(Step(IrqSet(0, FIRST_FD)), Step(IrqSet(0, -1)))

    report = run(factory, Probe(), Open(), DeviceReset(), race, IrqSet(0, FIRST_FD))

    assert warned(report) == {"UIO-032"}
