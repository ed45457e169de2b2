"""Mappings of device memory into the kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from conformance.environment.ledger import Ledger
from conformance.environment.simulator import Simulator
from conformance.specs.clause import Clause
from conformance.specs.uio_msi import clauses as c
from conformance.specs.uio_msi.constants import PAGE_SIZE
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment
    from conformance.environment.uio_msi.context import Context

FIRST_IOMAP = 1 << 36


class IoMemory(Simulator):
    """ioremap's area: which mappings there are. What lies behind them cannot be read or written."""

    CLAUSES = (c.NOTHING_RELEASED_TWICE,)
    CALL_CLAUSES: ClassVar[Mapping[str, tuple[Clause, ...]]] = {"iounmap": (c.NOTHING_RELEASED_TWICE,)}

    def __init__(self, door: Environment, context: Context) -> None:
        super().__init__(door)
        self.context = context
        self.ledger: Ledger[int] = Ledger(FIRST_IOMAP)
        """Physical addresses by where they are mapped; an unmapped page lies between two."""

    def ioremap(self, addr: int, size: int) -> int:
        """As the port says."""
        self.context.may_sleep("ioremap")
        if self.door.refused("ioremap"):
            return 0
        return self.ledger.hand_out(addr, (size + PAGE_SIZE - 1) // PAGE_SIZE * PAGE_SIZE + PAGE_SIZE)

    def iounmap(self, token: int) -> None:
        """As the port says."""
        if self.ledger.take_back(token) is None:
            raise Violation(c.NOTHING_RELEASED_TWICE, f"iounmap of {token:#x}, which is not mapped")
