"""The life of the TD as the kernel keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from conformance.environment.simulator import Simulator
from conformance.environment.tdp_mirror.secure_ept import SecureEpt
from conformance.model.tdp_mirror import Config
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror.constants import TD_INIT, TD_RUNNABLE

if TYPE_CHECKING:
    from conformance.environment.door import Environment


class Td(Simulator):
    """struct kvm_tdx: the state that the candidate stores, whether prefault is allowed, nr_premapped.

    Whether the TD really runs, and whether it has its key, the firmware knows.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (c.PREFAULT_AFTER_FINALIZE,)

    def __init__(self, door: Environment, config: Config, sept: SecureEpt) -> None:
        super().__init__(door)
        self.sept = sept
        self.state = TD_INIT if config.deep else TD_RUNNABLE
        self.allowed = not config.deep or config.early
        """Whether prefault is."""
        self.premaps = 0
        """Leaves of the mirror that the TD gets when it is finalized."""

    def hkid_assigned(self) -> int:
        """The key."""
        return int(self.sept.key)

    def td_state(self) -> int:
        """As stored."""
        return self.state

    def set_td_state(self, state: int) -> None:
        """Store."""
        self.state = state

    def pre_fault_allowed(self) -> int:
        """The flag."""
        return int(self.allowed)

    def allow_pre_fault(self) -> None:
        """Allow prefault: only once the TD is seen to run (TDP-101)."""
        self.door.require(
            c.PREFAULT_AFTER_FINALIZE, self.state == TD_RUNNABLE, "prefault allowed before the TD is RUNNABLE"
        )
        self.allowed = True

    def premapped(self, change: int) -> int:
        """nr_premapped."""
        self.premaps += change
        return self.premaps
