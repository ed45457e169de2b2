"""Every known defect of cet is found, and blamed on its clause."""

from __future__ import annotations

import pytest

from conformance.candidates.defect import Defect
from conformance.candidates.defects.cet import DEFECTS
from conformance.candidates.load import load
from conformance.runs.strength import kill
from tests.conformance.cet.judging import S


@pytest.mark.gates
@pytest.mark.parametrize("defect", [d for d in DEFECTS if d.candidate is not None], ids=lambda d: d.id)
def test_every_defect_is_killed_by_its_clause(defect: Defect) -> None:
    """And in no more steps than the analysis needs, macros expanded."""
    found = kill(S, defect, load(f"builtin:{defect.id}", S))

    assert found.is_killed
    assert found.is_expected
    assert defect.steps is None or found.steps <= defect.steps
