"""Loading the module, what it tells userspace, and the vCPUs that come and go."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.cet.access import advertised, lacking
from conformance.model.cet.capabilities import KINDS, Known, capabilities
from conformance.model.cet.operations import (
    Answers,
    Cpuid,
    Create,
    Destroy,
    Host,
    MsrIndexList,
    NestedCapabilities,
    SetCpuid,
    SetFilter,
    SupportedXss,
    VendorInit,
)
from conformance.model.cet.state import (
    COMPONENTS,
    CUT,
    FRESH,
    PLACE,
    SUCCESSOR,
    ZEROS,
    State,
    Vcpu,
    new_vcpu,
    vcpu_of,
    with_vcpu,
)
from conformance.model.step import Outcome, Outcomes
from conformance.specs.cet import Profile
from conformance.specs.cet import clauses as c
from conformance.specs.cet.constants import CET_S, CET_U, EINVAL, EIO, ENOMEM, SH_STK_EN


def _given(state: State, q: Cpuid) -> tuple[bool, bool, bool, bool, int]:
    """What a guest gets of a CPUID."""
    host = state.host
    return q.shstk and state.shstk, q.ibt and state.ibt, q.lm and host.lm, q.xsaves and host.xsaves, q.xss & state.xss


def vendor_init(state: State, op: VendorInit, _env: Answers, _profile: Profile) -> Outcomes:
    """Load the module: (result, SHSTK, IBT). What was never offered where it could be need not be here."""
    host = op.host
    if host.s_cet >> SH_STK_EN & 1:
        new = replace(state, host=host, shstk=False, ibt=False, xss=0, ready=False, reloaded=True)
        return Outcome(new, (-EIO, False, False), because=c.HOST_SHADOW_STACK_REFUSED)
    owed = (state.shstk, state.ibt) if state.ready else (False, False)
    ways: dict[tuple[int, bool, bool], Outcome] = {}
    for known in KINDS:
        if known[0] >= owed[0] and known[1] >= owed[1]:
            way = _loaded(state, host, known)
            ways.setdefault(way.result, way)
    return tuple(ways.values())


def _loaded(state: State, host: Host, known: Known) -> Outcome:
    """The module loaded on a host."""
    shstk, ibt, xss, because = capabilities(host, known)
    new = replace(state, host=host, shstk=shstk, ibt=ibt, xss=xss, ready=True, reloaded=True)
    parts = c.HOST_SHADOW_STACK_REFUSED, because, c.NO_IBT_ON_SVM if host.vendor == "amd" else because
    return Outcome(new, (0, shstk, ibt), because=because, also=(c.HOST_SHADOW_STACK_REFUSED,), parts=parts)


def supported_xss(state: State, _op: SupportedXss, _env: Answers, _profile: Profile) -> Outcome:
    """The CET bits of `kvm_caps.supported_xss`."""
    because = c.XSS_AND_FEATURES_TOGETHER if state.host.xsaves else c.XSS_WITHIN_HARDWARE
    return Outcome(state, state.xss, because=because)


def msr_index_list(state: State, _op: MsrIndexList, _env: Answers, _profile: Profile) -> Outcome:
    """KVM_GET_MSR_INDEX_LIST."""
    return Outcome(state, advertised(state), because=c.ADVERTISED_LIST)


def nested_capabilities(state: State, _op: NestedCapabilities, _env: Answers, _profile: Profile) -> Outcome:
    """Whether nested VMX offers the load-CET controls."""
    offered = state.host.vendor == "intel" and (state.shstk or state.ibt)
    return Outcome(state, offered, because=c.NESTED_CAPS_LAST)


def create(state: State, op: Create, env: Answers, _profile: Profile) -> Outcome:
    """Create a vCPU. 0, or -ENOMEM without an fpstate, with no vCPU created."""
    if env.alloc_guest_fpstate:
        return Outcome(state, -ENOMEM, because=c.ANSWERS)
    new = replace(new_vcpu(state, op.cpuid), origin=SUCCESSOR if state.ghosts else FRESH)
    return Outcome(with_vcpu(state, op.vcpu, new), 0, because=c.DESTROYED_LEAVES_NOTHING)


def destroy(state: State, op: Destroy, _env: Answers, _profile: Profile) -> Outcome:
    """Destroy a vCPU; whether it had values is remembered."""
    ghosts = state.ghosts or any(vcpu_of(state, op.vcpu).regs)
    return Outcome(replace(with_vcpu(state, op.vcpu, None), ghosts=ghosts), None, because=c.DESTROYED_LEAVES_NOTHING)


def set_cpuid(state: State, op: SetCpuid, _env: Answers, _profile: Profile) -> Outcomes:
    """KVM_SET_CPUID2.

    Returns:
        0        done
        -EINVAL  another CPUID after the first run; 0 if it differs only in what KVM does not give anyway
    """
    v, cpuid = vcpu_of(state, op.vcpu), op.cpuid
    if v.ran and cpuid != v.asked:
        refused = Outcome(state, -EINVAL, because=c.FILTER_INTERCEPTS)
        same = _given(state, cpuid) == _given(state, v.asked)
        return (refused, replace(refused, result=0)) if same else refused
    if cpuid == v.asked:
        return Outcome(state, 0, because=c.FILTER_INTERCEPTS)
    new = new_vcpu(state, cpuid)
    if v.regs == ZEROS:
        new = replace(new, denied=v.denied, wp=v.wp, area=v.area, host_area=v.host_area, smram=v.smram)
        return Outcome(with_vcpu(state, op.vcpu, new), 0, because=c.FILTER_INTERCEPTS)
    kept = replace(v, asked=cpuid, shstk=new.shstk, ibt=new.ibt, xss=new.xss, since=CUT)
    return tuple(
        Outcome(with_vcpu(state, op.vcpu, replace(kept, regs=regs)), 0, because=c.FILTER_INTERCEPTS)
        for regs in _left(state, kept)
    )


def _left(state: State, v: Vcpu) -> tuple[tuple[int, ...], ...]:
    """What registers may hold: those that the vCPU lacks are out of sight but for XSAVES, and may have been cleared."""
    absent = {place for msr, place in PLACE.items() if lacking(state, v, msr) is not None}
    ways = [v.regs]
    for component in (CET_U, CET_S):
        gone = absent.intersection(COMPONENTS[component])
        ways += [tuple(0 if at in gone else value for at, value in enumerate(regs)) for regs in ways]
    return tuple(dict.fromkeys(ways))


def set_filter(state: State, op: SetFilter, _env: Answers, _profile: Profile) -> Outcome:
    """KVM_X86_SET_MSR_FILTER."""
    new = replace(vcpu_of(state, op.vcpu), denied=op.denied)
    return Outcome(with_vcpu(state, op.vcpu, new), None, because=c.FILTER_INTERCEPTS)
