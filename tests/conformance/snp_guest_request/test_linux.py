"""The candidates laid out as Linux is: what the suite still holds against them, each a fault of the suite's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.candidates.load import load
from conformance.engines import campaign
from conformance.engines.context import Context
from tests.conformance.snp_guest_request.judging import S

PEERS = Path(__file__).parents[1] / "peers" / "linux_snp_guest_request.py"

HOST = {"SNP-012", "SNP-041"}
"""The valid bits are read to be changed; a response put over the GHCB is the guest's own doing."""
GUEST = {"SNP-088", "SNP-090", "SNP-092"}
"""What the caller is told after "too small"; certificate pages of a request's own."""

ACCUSED = {
    "builtin:linux": HOST,
    f"{PEERS}:WholePages": HOST | {"SNP-016", "SNP-017", "SNP-018", "SNP-051", "SNP-068"},
    f"{PEERS}:ClearsResponse": HOST | {f"SNP-{n:03}" for n in (17, 18, 19, 20, 46, 68, 80)},
    f"{PEERS}:ProbesResponse": HOST | {f"SNP-{n:03}" for n in (17, 18, 46, 68, 80)},
    f"{PEERS}:KeepsMessage": HOST | {"SNP-021", "SNP-072"},
    f"{PEERS}:Killable": HOST,
    f"{PEERS}:LateOutput": HOST,
    "builtin:linux-guest": GUEST,
    f"{PEERS}:Released": GUEST,
    f"{PEERS}:Older": GUEST,
    f"{PEERS}:Strict": GUEST,
}
"""Clauses that random walks may cite, wrongly, by candidate."""


@pytest.mark.parametrize("spec", ACCUSED, ids=lambda spec: spec.rpartition(":")[2])
def test_nothing_else_is_held_against_it(spec: str) -> None:
    """Random walks cite no clause but those that are known to accuse it."""
    candidate = load(spec, S)
    context = Context(S, candidate, candidate.profile, seed=5, steps=2_000)

    campaign.run(context)

    assert {failure.clause.id for failure in context.failures} <= ACCUSED[spec]
