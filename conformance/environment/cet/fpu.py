"""The FPU code: whose registers of components 11 and 12 a physical CPU holds, and where the others' are."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from conformance.environment.cet.registers import COUNT, PL0, PL1, PL2, PL3, XSTATE, U
from conformance.environment.cet.vcpus import PerVcpu
from conformance.model.cet.state import COMPONENTS
from conformance.specs.cet import Profile
from conformance.specs.cet import clauses as c
from conformance.specs.cet.constants import CET_S, CET_U, EINVAL
from conformance.specs.clause import Clause
from conformance.verdict import Violation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from conformance.environment.cet.platform import Platform
    from conformance.environment.cet.processors import Processors
    from conformance.environment.cet.threads import Thread
    from conformance.environment.door import Environment


class FpuState:
    """The FPU registers of one vCPU's thread: its user mode's, and its guest's."""

    __slots__ = ("fpstate", "in_use", "locked", "own", "reload", "user", "user_saved")

    def __init__(self, own: tuple[int, int]) -> None:
        self.own = own
        """U_CET and PL3_SSP of the thread's user mode."""
        self.user = own
        self.user_saved = True
        """The user registers are in memory, not in hardware."""
        self.fpstate: list[int] | None = None
        self.in_use = False
        self.reload = False
        """In use, but hardware holds somebody else's registers."""
        self.locked = 0
        """Depth of `fpu_get`."""


class Fpu(PerVcpu[FpuState]):
    """fpu/core.c: guest fpstates, the registers of user mode, and fpregs_lock.

    Where the profile has the candidate swap PL0..PL2_SSP by hand, only U_CET and PL3_SSP are swapped here.
    Other components, and the size and layout of an fpstate, are not modelled.
    """

    CLAUSES = (
        c.FPU_BALANCED,
        c.FPU_RESIDENT,
        c.INIT_ANYWHERE,
        c.INIT_SPARES_OTHERS,
        c.USER_STATE_IS_THE_TASKS,
        c.DESTROYED_LEAVES_NOTHING,
    )
    CALL_CLAUSES: ClassVar[Mapping[str, tuple[Clause, ...]]] = {
        "load_guest_fpu": (c.FPU_BALANCED,),
        "put_guest_fpu": (c.FPU_BALANCED,),
        "fpstate_clear": (c.INIT_SPARES_OTHERS,),
    }

    def __init__(self, door: Environment, platform: Platform, processors: Processors, profile: Profile) -> None:
        super().__init__(door)
        self.platform = platform
        self.files = processors.files
        self.managed = profile.fpu_managed
        self.swapped = XSTATE if profile.fpu_managed else (U, PL3)
        """Registers that are swapped here."""

    def add(self, vcpu: int) -> None:
        """A thread with registers of its own in user mode."""
        self.parts[vcpu] = FpuState(self._own(vcpu))

    def _own(self, number: int) -> tuple[int, int]:
        """User mode's U_CET and PL3_SSP of a task of the host."""
        if not self.platform.host.shstk:
            return 0, 0
        return 1, 0x7F00_0000_0000 | number << 16

    # -- switches

    def save(self, thread: Thread) -> None:
        """Move the thread's FPU registers, guest's or user's, to memory."""
        regs, part = self.files[thread.cpu], self.parts[thread.number]
        if part.in_use:
            if not part.reload:
                assert part.fpstate is not None
                for place in self.swapped:
                    part.fpstate[place] = regs[place]
                part.reload = True
        elif not part.user_saved:
            part.user = (regs[U], regs[PL3])
            part.user_saved = True

    def restore(self, thread: Thread) -> None:
        """Move them back into hardware, as before VM entry, return to user mode, or `fpu_get`."""
        regs, part = self.files[thread.cpu], self.parts[thread.number]
        if part.in_use:
            if part.reload:
                assert part.fpstate is not None
                for place in self.swapped:
                    regs[place] = part.fpstate[place]
                part.reload = False
        elif part.user_saved:
            regs[U], regs[PL3] = part.user
            part.user_saved = False

    def before_entry(self, thread: Thread) -> None:
        """VM entry follows: the guest's registers are in hardware."""
        part = self.parts[thread.number]
        if not part.in_use:
            raise Violation(c.FPU_BALANCED, "VM entry without the guest FPU")
        if part.reload:
            self.restore(thread)

    def require_loaded(self, vcpu: int) -> None:
        """KVM_RUN has begun."""
        self.door.require(c.FPU_BALANCED, self.parts[vcpu].in_use, "KVM_RUN without the guest FPU")

    def require_put(self, vcpu: int) -> None:
        """An ioctl is over."""
        put = not self.parts[vcpu].in_use
        self.door.require(c.FPU_BALANCED, put, "returned to userspace with the guest FPU loaded")

    def require_given_back(self, vcpu: int) -> None:
        """The vCPU was destroyed."""
        given = self.parts[vcpu].fpstate is None
        self.door.require(c.DESTROYED_LEAVES_NOTHING, given, "the guest fpstate was not given back")

    def back_to_user(self, thread: Thread) -> None:
        """Return to user mode, which finds its own registers."""
        self.restore(thread)
        regs, own = self.files[thread.cpu], self.parts[thread.number].own
        if (regs[U], regs[PL3]) != own:
            found = f"user mode sees U_CET={regs[U]:#x} PL3_SSP={regs[PL3]:#x}"
            raise Violation(c.USER_STATE_IS_THE_TASKS, f"{found}, its own are {own[0]:#x} {own[1]:#x}")
        self.door.hold(c.USER_STATE_IS_THE_TASKS)

    def host_task(self, cpu: int) -> None:
        """Another task's user mode: its registers are restored."""
        regs = self.files[cpu]
        regs[U], regs[PL3] = self._own(64 + cpu)

    def is_resident(self, thread: Thread) -> bool:
        """Whether the guest's registers are locked into hardware."""
        part = self.parts[thread.number]
        return part.in_use and part.locked > 0

    # -- environment calls

    def alloc_guest_fpstate(self, vcpu: int) -> int:
        """A zeroed guest fpstate."""
        part = self.of(vcpu)
        refusal = self.door.refused("alloc_guest_fpstate")
        if refusal:
            return refusal
        part.fpstate = [0] * COUNT
        return 0

    def free_guest_fpstate(self, vcpu: int) -> None:
        """Give it back, not in use."""
        part = self.of(vcpu)
        held = part.fpstate is not None and not part.in_use
        self.door.require(c.FPU_BALANCED, held, "the fpstate is in use or was given back")
        part.fpstate = None

    def load_guest_fpu(self, vcpu: int) -> None:
        """Save the user's registers, load the guest's."""
        part, thread = self.of(vcpu), self.door.frame.actor
        if thread is None or thread.number != vcpu or part.in_use or part.fpstate is None:
            raise Violation(c.FPU_BALANCED, f"load_guest_fpu({vcpu}) while it is in use, or by another thread")
        self.door.hold(c.FPU_BALANCED)
        self.save(thread)
        part.in_use = part.reload = True
        self.restore(thread)

    def put_guest_fpu(self, vcpu: int) -> None:
        """Save the guest's registers, load the user's."""
        part, thread = self.of(vcpu), self.door.frame.actor
        if thread is None or thread.number != vcpu or not part.in_use:
            raise Violation(c.FPU_BALANCED, f"put_guest_fpu({vcpu}) without load")
        self.door.hold(c.FPU_BALANCED)
        self.save(thread)
        part.in_use = part.reload = False
        part.user_saved = True
        self.restore(thread)
        if self.managed:
            regs = self.files[thread.cpu]
            regs[PL0] = regs[PL1] = regs[PL2] = 0

    def guest_fpu_in_use(self, vcpu: int) -> bool:
        """Loaded and not yet put."""
        return self.of(vcpu).in_use

    def fpu_get(self) -> None:
        """fpregs_lock, and reload what a softirq or the scheduler took."""
        thread = self.door.frame.actor
        if thread is None:
            raise Violation(c.FPU_RESIDENT, "fpu_get outside of any vCPU's thread")
        self.door.atomic += 1
        self.parts[thread.number].locked += 1
        self.restore(thread)

    def fpu_put(self) -> None:
        """fpregs_unlock."""
        thread = self.door.frame.actor
        part = None if thread is None else self.parts[thread.number]
        if part is None or not part.locked:
            raise Violation(c.FPU_RESIDENT, "fpu_put without fpu_get")
        part.locked -= 1
        self.door.atomic -= 1

    def fpstate_clear(self, vcpu: int, component: int) -> None:
        """Initial state for one component of an fpstate that is not in use."""
        part = self.of(vcpu)
        require = self.door.require
        require(c.INIT_ANYWHERE, not part.in_use, f"fpstate_clear({vcpu}, {component}) while the guest FPU is in use")
        require(c.INIT_SPARES_OTHERS, component in (3, 4, CET_U, CET_S), f"component {component} is cleared")
        if part.fpstate is not None:
            for place in COMPONENTS.get(component, ()):
                part.fpstate[place] = 0

    def copy_uabi_to_fpstate(self, vcpu: int, component: int, words: tuple[int, ...]) -> int:
        """User components only."""
        part = self.of(vcpu)
        self.door.require(c.FPU_BALANCED, not part.in_use, "copy_uabi_to_fpstate while the guest FPU is in use")
        return -EINVAL if component in COMPONENTS else 0
