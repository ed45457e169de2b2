"""What guests, userspace and hardware may show of CET state.

The state is per vCPU and says nothing of physical CPUs or backing stores: preemption changes no
value, which is the point of the subsystem. `Vcpu.origin` and `since` remember how a vCPU's values
came about and what they survived, so that a wrong value later cites the clause that says it should have survived that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from conformance.model.cet.capabilities import BOTH, Known, capabilities
from conformance.model.cet.operations import Config, Cpuid, Host
from conformance.specs.cet import Profile
from conformance.specs.cet import clauses as c
from conformance.specs.cet.constants import CET_S, CET_U, INTERNAL_GUEST_SSP, MSRS, SH_STK_EN

PL0, PL1, PL2, PL3 = 2, 3, 4, 5
U, S, TABLE, XSS, SSP = 0, 1, 6, 7, 8
"""Places in `Vcpu.regs`: the MSRs by number, then SSP."""
PLACE = {msr: place for place, msr in enumerate(MSRS)} | {INTERNAL_GUEST_SSP: SSP}
COMPONENTS = {CET_U: (U, PL3), CET_S: (PL0, PL1, PL2)}
"""Registers of an XSAVES component."""
ZEROS = (0,) * 9

FRESH, HOST, GUEST, EMULATED_WRITE, XRSTORS, RESET, MIGRATED, NESTED, SMM, SUCCESSOR, VMRUN, FAILED, CLEAN = range(13)
"""How a vCPU's values came to be what they are: the last operation that was meant to change some."""
UNTOUCHED, SWITCHED, MOVED, WINDOW, HALTED, CROSSED, TOGGLED, REFUSED, TORN, CUT = range(10)
"""What they survived since then, that was not meant to change any."""

ORIGINS = {
    FRESH: c.LAST_ACCEPTED_VALUE,
    XRSTORS: c.INTERCEPTED_ACTS_ON_LIVE,
    RESET: c.RESET_CLEARS,
    MIGRATED: c.MIGRATION_ROUND_TRIP,
    SMM: c.SSP_THROUGH_SMRAM,
    SUCCESSOR: c.DESTROYED_LEAVES_NOTHING,
}
"""The clause by which an operation gives registers their values."""
SURVIVED = {
    SWITCHED: c.NO_LOST_UPDATE,
    MOVED: c.PCPU_MIGRATION_TRANSPARENT,
    WINDOW: c.SAVE_IS_IDEMPOTENT,
    HALTED: c.HALT_IS_PREEMPTION,
    CROSSED: c.FAST_PATH_INVALIDATED,
    TOGGLED: c.TOGGLE_KEEPS_STATE,
    TORN: c.SAVE_IS_ATOMIC,
    REFUSED: c.REFUSED_ENTRY_CHANGES_NOTHING,
    CUT: c.LAST_ACCEPTED_VALUE,
}
"""The clause by which they keep them."""


class Words(NamedTuple):
    """What vmcs12 or vmcb12 holds for L2."""

    s_cet: int
    ssp: int
    table: int


NOTHING = Words(0, 0, 0)


@dataclass(frozen=True, slots=True)
class L2:
    """What an exit to L1 needs to know."""

    regs: tuple[int, int, int]
    """S_CET, SSP and table that L1 gets back; on VMX only with the exit control set."""
    restores: bool
    """Whether L1 gets them back; otherwise L2's values carry over."""
    wp: bool
    cet: bool
    """L1's CR0.WP and CR4.CET after the exit."""
    intercepts: tuple[int, ...]
    entered: bool
    """By an entry, not by a restore of state."""


@dataclass(frozen=True, slots=True)
class Vcpu:
    """One vCPU as guest and userspace know it."""

    asked: Cpuid
    """The CPUID userspace set."""
    shstk: bool
    ibt: bool
    xss: int
    """The CPUID within KVM's capabilities."""
    regs: tuple[int, ...] = ZEROS
    live: bool = False
    """In KVM_RUN; otherwise in no ioctl at all."""
    ran: bool = False
    wp: bool = False
    cet: bool = False
    origin: int = FRESH
    place: int = 0
    """The register last written, if it was one."""
    over: bool = False
    """What was written or cleared had another value before."""
    since: int = UNTOUCHED
    denied: tuple[int, ...] = ()
    smm: tuple[bool, bool] | None = None
    """CR0.WP and CR4.CET before the SMI, while in SMM."""
    smram: int = 0
    """The SSP slot of SMRAM."""
    l2: L2 | None = None
    area: Words = NOTHING
    """S_CET, SSP and table in the vmcs12 or vmcb12 in memory that L1 used last."""
    host_area: tuple[int, int, int] = (0, 0, 0)
    """The same three of a vmcs12's host area."""
    address: int = 0
    """Which vmcb12 was used last."""
    other: Words | None = None
    """S_CET, SSP and table in the other vmcb12, once that has run."""
    refused: bool = False
    """The last VMRUN failed, so nobody knows whether the processor has the values of that vmcb12."""
    taken: int | None = None
    """Which vmcb12 VMRUN took last; of another, one that failed has taken nothing."""
    dead: bool = False
    """Shut down; only RESET helps."""


@dataclass(frozen=True, slots=True)
class State:
    """A host with KVM loaded on it, and the vCPUs by slot."""

    host: Host
    shstk: bool
    ibt: bool
    xss: int
    """kvm_caps."""
    ready: bool
    """vendor_init succeeded."""
    vcpus: tuple[Vcpu | None, ...]
    ignore_msrs: bool
    exact: bool
    """Interception is prescribed, since the FPU code swaps everything."""
    reloaded: bool = False
    """The module was loaded anew; a trace does that once."""
    ghosts: bool = False
    """A vCPU was destroyed that had values."""


SLOTS = 2
"""vCPUs that may exist at once."""
CPUS = 2
"""Physical CPUs."""


def initial(config: Config, profile: Profile, known: Known = BOTH) -> State:
    """The module loaded on the configuration's host, its vCPUs created; what it knows of is its own choice."""
    host = config.host
    shstk, ibt, xss, _ = capabilities(host, known)
    ready = not host.s_cet >> SH_STK_EN & 1
    empty = (None,) * SLOTS
    bare = State(host, shstk, ibt, xss, ready, empty, config.ignore_msrs, profile.fpu_managed)
    vcpus = tuple(new_vcpu(bare, cpuid) for cpuid in config.vcpus) if ready else ()
    return replace(bare, vcpus=(vcpus + (None,) * SLOTS)[:SLOTS])


def new_vcpu(state: State, cpuid: Cpuid) -> Vcpu:
    """A vCPU in power-up state with that CPUID."""
    return Vcpu(cpuid, cpuid.shstk and state.shstk, cpuid.ibt and state.ibt, cpuid.xss & state.xss)


def vcpu_of(state: State, slot: int) -> Vcpu:
    """The vCPU of a slot that has one."""
    vcpu = state.vcpus[slot]
    assert vcpu is not None
    return vcpu


def with_vcpu(state: State, slot: int, vcpu: Vcpu | None) -> State:
    """The state with another vCPU, or none, in that slot."""
    vcpus = state.vcpus
    new = (*vcpus[:slot], vcpu, *vcpus[slot + 1 :])
    return State(
        state.host,
        state.shstk,
        state.ibt,
        state.xss,
        state.ready,
        new,
        state.ignore_msrs,
        state.exact,
        state.reloaded,
        state.ghosts,
    )


def crossed(state: State, slot: int) -> State:
    """The other vCPU's registers may have been displaced by this one's."""
    other = state.vcpus[1 - slot]
    if other is None or not other.live or other.since == CROSSED or other.origin in (FRESH, HOST, SUCCESSOR):
        return state
    return with_vcpu(state, 1 - slot, replace(other, since=CROSSED))


def written(v: Vcpu, place: int, value: int, origin: int) -> Vcpu:
    """One register has a new value."""
    return replace(
        v,
        regs=put(v.regs, place, value),
        origin=origin,
        place=place,
        over=v.regs[place] != value,
        since=UNTOUCHED,
    )


def put(regs: tuple[int, ...], place: int, value: int) -> tuple[int, ...]:
    """The registers with another value at one place."""
    return (*regs[:place], value, *regs[place + 1 :])
