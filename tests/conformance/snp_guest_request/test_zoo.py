"""Every known defect is found, for a reason that the facts name."""

from __future__ import annotations

import pytest

from conformance.candidates.defect import Defect
from conformance.candidates.defects.snp_guest_request import DEFECTS
from conformance.candidates.load import load
from conformance.runs.strength import kill
from tests.conformance.snp_guest_request.judging import S


@pytest.mark.gates
@pytest.mark.parametrize("defect", [d for d in DEFECTS if d.candidate], ids=lambda d: d.id)
def test_defect_is_killed_by_its_clause(defect: Defect) -> None:
    """Found, and for a reason that the facts name or the note explains."""
    outcome = kill(S, defect, load(f"builtin:{defect.id}", S))

    assert outcome.is_killed
    assert outcome.failure is not None
    assert outcome.failure.clause.id in defect.clauses, outcome.failure.signature


def test_minimiser_stays_in_worlds_the_candidate_can_live_in() -> None:
    """A guest's driver is never put under a VMM, though that world is the plainest."""
    defect = next(d for d in DEFECTS if d.id == "SNP-G01")
    outcome = kill(S, defect, load("builtin:SNP-G01", S))

    assert outcome.failure is not None
    assert outcome.failure.trace is not None
    assert outcome.failure.trace.config.side == "guest"


def test_zoo_is_complete() -> None:
    """Every defect of the facts is there, with a candidate or a reason why not."""
    ids = [f"SNP-D{n:02}" for n in range(1, 38)] + [f"SNP-U{n:02}" for n in range(1, 15)]
    ids += [f"SNP-G{n:02}" for n in range(1, 7)] + [f"SNP-V{n:02}" for n in range(1, 28)]

    assert [defect.id for defect in DEFECTS] == ids
    assert all((defect.candidate is None) == bool(defect.why_not) for defect in DEFECTS)
    known = {clause.id for clause in S.clauses}
    assert all(set(defect.clauses) <= known for defect in DEFECTS)
