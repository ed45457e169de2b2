"""The memory that the driver allocates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

FIRST_TOKEN = 0x1_0000
"""Allocations lie here and above, one page or more apart; what is below is static data of the module."""


class Heap(Simulator):
    """kmalloc's memory: which addresses are allocated, and which were once.

    An address is never allocated twice, so that a stale one shows. What the memory holds is the driver's own affair
    and is not kept; an access beyond an allocation's size, but within its last page, is not noticed.
    """

    CLAUSES = (c.NOTHING_RELEASED_TWICE, c.MEMORY_SAFE)
    CALL_CLAUSES: ClassVar[Mapping[str, tuple[Clause, ...]]] = {"kfree": (c.NOTHING_RELEASED_TWICE,)}

    def __init__(self, door: Environment, context: Context) -> None:
        super().__init__(door)
        self.context = context
        self.ledger: Ledger[int] = Ledger(FIRST_TOKEN)
        """Sizes by address."""
        self.allocations = self.ledger.out
        self.of_module: set[int] = set()
        """Allocations made when the module was loaded; they outlive a binding."""
        self.at_free: Callable[[int, int], None] = _nothing
        """Told the address and the size of what is freed."""

    def kzalloc(self, size: int) -> int:
        """As the port says."""
        return self._allocate("kzalloc", size)

    def kcalloc(self, n: int, size: int) -> int:
        """As the port says."""
        return self._allocate("kcalloc", n * size)

    def kasprintf(self, text: str) -> int:
        """As the port says."""
        return self._allocate("kasprintf", len(text) + 1)

    def _allocate(self, call: str, size: int) -> int:
        self.context.needs_process(call)
        if self.door.refused(call):
            return 0
        token = self.ledger.hand_out(size, _whole_pages(size))
        if self.door.driver is None:
            self.of_module.add(token)
        return token

    def kfree(self, token: int) -> None:
        """As the port says."""
        if not token:
            return
        size = self.ledger.take_back(token)
        if size is not None:
            self.at_free(token, size)
        elif token in self.ledger.back:
            raise Violation(c.NOTHING_RELEASED_TWICE, f"kfree of {token:#x}, which is free already")
        else:
            raise Violation(c.MEMORY_SAFE, f"kfree of {token:#x}, which was never allocated")

    def is_held(self, address: int) -> bool:
        """Whether an address lies in memory that the driver holds; static data of the module it always does."""
        if address < FIRST_TOKEN or address & -PAGE_SIZE in self.allocations:
            return True
        return any(token <= address < token + _whole_pages(size) for token, size in self.allocations.items())

    def is_freed(self, address: int) -> bool:
        """Whether an address lies in memory that the driver held once."""
        return address < self.ledger.next and not self.is_held(address)


def _whole_pages(size: int) -> int:
    return (max(size, 1) + PAGE_SIZE - 1) // PAGE_SIZE * PAGE_SIZE


def _nothing(_token: int, _size: int) -> None:
    """Nothing lives in that memory."""
