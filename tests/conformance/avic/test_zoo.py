"""The zoo of AVIC: every known defect is found, and blamed on its clause."""

from __future__ import annotations

import pytest

from conformance.candidates.defect import Defect
from conformance.candidates.defects.avic import DEFECTS
from conformance.candidates.load import load
from conformance.runs.strength import kill
from tests.conformance.avic.judging import AVIC


@pytest.mark.gates
@pytest.mark.parametrize("defect", [x for x in DEFECTS if x.candidate is not None], ids=lambda x: x.id)
def test_every_defect_is_killed_by_its_clause(defect: Defect) -> None:
    """The suite finds it, and cites a clause that the facts name for it."""
    found = kill(AVIC, defect, load(f"builtin:{defect.id}", AVIC))

    assert found.is_killed
    assert found.is_expected, found.failure


def test_what_is_not_in_the_zoo_says_why() -> None:
    """Each defect of the facts has a driver or a reason."""
    facts = {f"AP-{n:02d}" for n in range(1, 36)} | {f"UP-{n:02d}" for n in range(1, 31)}

    assert all(bool(x.candidate) != bool(x.why_not) for x in DEFECTS)
    assert facts <= {x.id for x in DEFECTS}
