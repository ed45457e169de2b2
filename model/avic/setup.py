"""The module: what it finds when it is loaded."""

from __future__ import annotations

from conformance.model.avic.operations import Answers, HwSetup, HwUnsetup
from conformance.model.avic.state import Host, State
from conformance.model.step import Outcome
from conformance.specs.avic import Profile
from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import (
    CPUID_AVIC,
    CPUID_X2AVIC,
    CPUID_X2AVIC_EXT,
    MAX_X2AVIC,
    MAX_X2AVIC_EXT,
    MAX_XAVIC,
)
from conformance.specs.clause import Clause


def detected(op: HwSetup, profile: Profile) -> tuple[Host, Clause]:
    """What setup finds, and the clause that decides (AVIC-001 to AVIC-008, AVIC-011)."""
    off = Host()
    has = op.edx >> CPUID_AVIC & 1 == 1
    x2 = op.edx >> CPUID_X2AVIC & 1 == 1
    if not op.npt:
        return off, c.NEEDS_NESTED_PAGING
    if profile.opt_in:
        if not has:
            return off, c.X2AVIC_ALONE_IS_NOTHING if x2 else c.NEEDS_CPUID_BIT
        return (Host(True, False, False, MAX_XAVIC) if op.avic else off), c.OPT_IN_BY_PARAMETER
    if op.snp and not op.hv_inuse_wr:
        return off, c.SNP_HOST_KEEPS_AVIC_OFF
    if not has and not op.force:
        return off, c.X2AVIC_ALONE_IS_NOTHING if x2 else c.NEEDS_CPUID_BIT
    if op.avic == -1 and not (x2 and (op.zen4 or op.family >= 0x1A)):
        return off, c.AUTO_MODE_NEEDS_X2AVIC_AND_ZEN4
    if op.avic == 0:
        return off, c.AUTO_MODE_NEEDS_X2AVIC_AND_ZEN4
    extended = op.ecx >> CPUID_X2AVIC_EXT & 1 == 1
    highest = (MAX_X2AVIC_EXT if extended else MAX_X2AVIC) if x2 else MAX_XAVIC
    old = op.family in (0x17, 0x18)
    found = Host(True, x2, op.ipiv and not old, highest)
    if old:
        return found, c.NO_IPI_VIRTUALIZATION_ON_OLD_FAMILIES
    if not has:
        return found, c.FORCE_BYPASSES_ONLY_CPUID
    if op.avic == -1:
        return found, c.AUTO_MODE_NEEDS_X2AVIC_AND_ZEN4
    return found, c.HIGHEST_APIC_ID if x2 else c.NEEDS_CPUID_BIT


def features(host: Host) -> int:
    """The same as setup returns it."""
    return int(host.avic) | int(host.x2avic) << 1 | int(host.ipiv) << 2 | host.max_id << 16


def hw_setup(state: State, op: HwSetup, _env: Answers, profile: Profile) -> Outcome:
    """Detect AVIC; the result is what was found."""
    host, because = detected(op, profile)
    return Outcome(State(state.config, host), features(host), because=because)


def hw_unsetup(state: State, _op: HwUnsetup, _env: Answers, _profile: Profile) -> Outcome:
    """The module goes and comes back; the result is what was found before."""
    return Outcome(state, features(state.host), because=c.OFF_MEANS_UNTOUCHED)
