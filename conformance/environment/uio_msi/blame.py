"""What unsafe memory means where a clause says why it had to be safe."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from conformance.specs.clause import Clause
from conformance.specs.uio_msi import clauses as c
from conformance.verdict import Breach, Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment


def blame(door: Environment, breach: Breach, clause: Clause, where: str) -> NoReturn:
    """Raise what broke memory safety as a breach of the clause that says why it was unsafe there."""
    if breach.clause not in (None, c.MEMORY_SAFE, c.REFERENCE_OUTLIVES_HANDLER):
        raise breach
    door.breach = None
    raise door.remember(Violation(clause, f"{where}: {breach.detail}", breach.kind)) from None
