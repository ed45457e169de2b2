"""L2: entries and what they check, exits, and what L1 reads of its vmcs12."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.cet.operations import Answers, Area, NestedEnter, NestedExit, SetNestedState, Vmread
from conformance.model.cet.state import (
    CLEAN,
    FAILED,
    L2,
    NESTED,
    NOTHING,
    REFUSED,
    SSP,
    TABLE,
    UNTOUCHED,
    VMRUN,
    S,
    State,
    Vcpu,
    Words,
    put,
    vcpu_of,
    with_vcpu,
)
from conformance.model.cet.values import control_refusal, is_canonical, is_uniform_above
from conformance.model.step import Outcome, Outcomes
from conformance.specs.cet import Profile
from conformance.specs.cet import clauses as c
from conformance.specs.cet.constants import (
    ENTERED,
    GUEST_S_CET,
    HOST_FIELDS,
    HOST_S_CET,
    INVALID_GUEST_STATE,
    VMCS12_FIELDS,
    VMEXIT_INVALID,
    VMFAIL_HOST_STATE,
)
from conformance.specs.clause import Clause


def entry_refusal(state: State, v: Vcpu, area: Area, base_aligned: bool) -> tuple[int, Clause] | None:
    """How and why an entry to L2 fails; None if it does not."""
    if state.host.vendor == "amd":
        bad = control_refusal(area.s_cet, v.shstk, v.ibt, base_aligned) or (area.cet and not area.wp)
        return (VMEXIT_INVALID, c.VMRUN_CHECKS) if bad else None
    width = state.host.width
    if area.host_cet and not area.host_wp:
        return VMFAIL_HOST_STATE, c.NESTED_CR_PAIR
    if area.load_host and not _host_area_valid(v, area, width, base_aligned):
        return VMFAIL_HOST_STATE, c.NESTED_HOST_AREA
    if area.cet and not area.wp:
        return INVALID_GUEST_STATE, c.NESTED_CR_PAIR
    if area.load and not _guest_area_valid(v, area, width, base_aligned):
        return INVALID_GUEST_STATE, c.NESTED_GUEST_AREA
    return None


def _host_area_valid(v: Vcpu, area: Area, width: int, base_aligned: bool) -> bool:
    if control_refusal(area.host_s_cet, v.shstk, v.ibt, base_aligned) or area.host_ssp % 4:
        return False
    if not is_canonical(area.host_table, width):
        return False
    if area.host_64:
        return is_canonical(area.host_s_cet, width) and is_canonical(area.host_ssp, width)
    return not area.host_s_cet >> 32 and not area.host_ssp >> 32


def _guest_area_valid(v: Vcpu, area: Area, width: int, base_aligned: bool) -> bool:
    return (
        control_refusal(area.s_cet, v.shstk, v.ibt, base_aligned) is None
        and area.ssp % 4 == 0
        and is_uniform_above(area.ssp, width)
        and is_canonical(area.table, width)
    )


def nested_enter(state: State, op: NestedEnter | SetNestedState, _env: Answers, profile: Profile) -> Outcome:
    """L1 enters L2, or userspace restores a vCPU that is in it.

    Returns one of `ENTERED`, `VMFAIL_HOST_STATE`, `INVALID_GUEST_STATE`, `VMEXIT_INVALID`.
    """
    v, area = vcpu_of(state, op.vcpu), op.area
    amd = state.host.vendor == "amd"
    entering = isinstance(op, NestedEnter)
    words = Words(area.s_cet, area.ssp, area.table)
    if area.address != v.address:
        v = replace(v, area=v.other or NOTHING, other=None if v.refused else v.area, address=area.address)
    written = replace(v, area=words)
    if not amd:
        written = replace(written, host_area=(area.host_s_cet, area.host_ssp, area.host_table))
    refusal = entry_refusal(state, v, area, profile.base_aligned)
    if refusal is not None:
        return _failed(state, op.vcpu, replace(written, refused=True), area, refusal)
    regs = v.regs
    if entering and (amd or area.load):
        regs = _switched(v, words)
    back = (v.regs[S], v.regs[SSP], v.regs[TABLE]) if amd else (area.host_s_cet, area.host_ssp, area.host_table)
    l2 = L2(
        regs=back,
        restores=amd or area.load_host,
        wp=v.wp if amd else area.host_wp,
        cet=v.cet if amd else area.host_cet,
        intercepts=area.intercepts,
        entered=entering,
    )
    cet, wp = (area.cet, area.wp) if entering else (v.cet, v.wp)
    origin = (CLEAN if area.clean else VMRUN) if amd else NESTED
    taken = area.address if amd else None
    new = replace(written, regs=regs, wp=wp, cet=cet, l2=l2, refused=False, taken=taken, origin=origin, since=UNTOUCHED)
    because = _accepted(v, area, amd)
    return Outcome(with_vcpu(state, op.vcpu, new), ENTERED, because, effect=_EFFECT[amd], also=_ENTRY[amd])


def _failed(state: State, slot: int, v: Vcpu, area: Area, refusal: tuple[int, Clause]) -> Outcome:
    """An entry that does not reach L2: on the guest area it ends as an exit does, else L1 goes on with what it had."""
    result, because = refusal
    if result != INVALID_GUEST_STATE:
        new = replace(v, since=REFUSED)
        return Outcome(with_vcpu(state, slot, new), result, because=because, effect=c.REFUSED_ENTRY_CHANGES_NOTHING)
    regs = _switched(v, (area.host_s_cet, area.host_ssp, area.host_table)) if area.load_host else v.regs
    new = replace(v, regs=regs, wp=area.host_wp, cet=area.host_cet, origin=FAILED, since=UNTOUCHED)
    return Outcome(with_vcpu(state, slot, new), result, because=because, effect=c.FAILED_ENTRY_IS_AN_EXIT)


def _accepted(v: Vcpu, area: Area, amd: bool) -> Clause:
    """The clause that an entry refused for no reason breaks: that of the values that are out of the ordinary."""
    if amd:
        return c.VMRUN_CHECKS if area.s_cet >> 6 or (area.cet and not v.wp) else c.VMRUN_SWITCHES
    if area.load_host and (area.host_s_cet >> 6 or area.host_ssp % 8 or (area.host_ssp | area.host_table) >> 47):
        return c.NESTED_HOST_AREA
    if area.load and (area.s_cet >> 6 or area.ssp % 8 or (area.ssp | area.table) >> 47):
        return c.NESTED_GUEST_AREA
    return c.NESTED_CR_PAIR if area.cet and not v.wp else c.L2_STARTS


_EFFECT = {True: c.VMRUN_SWITCHES, False: c.L2_STARTS}
_ENTRY = {
    True: (c.VMRUN_CHECKS, c.VMRUN_SWITCHES),
    False: (c.NESTED_HOST_AREA, c.NESTED_GUEST_AREA, c.L2_STARTS),
}


def _switched(v: Vcpu, words: tuple[int, int, int]) -> tuple[int, ...]:
    """S_CET, SSP and table as far as the vCPU has them."""
    regs = v.regs
    if v.shstk or v.ibt:
        regs = put(regs, S, words[0])
    if v.shstk:
        regs = put(put(regs, SSP, words[1]), TABLE, words[2])
    return regs


def stored_by_exit(v: Vcpu) -> Words:
    """S_CET, SSP and table in the guest area after an exit from L2, as far as the vCPU has them."""
    return Words(
        v.regs[S] if v.shstk or v.ibt else v.area[0],
        v.regs[SSP] if v.shstk else v.area[1],
        v.regs[TABLE] if v.shstk else v.area[2],
    )


def nested_exit(state: State, op: NestedExit, _env: Answers, _profile: Profile) -> Outcome:
    """L2's values go to the guest area; L1 gets the host area's, its own, or L2's."""
    v = vcpu_of(state, op.vcpu)
    l2 = v.l2
    assert l2 is not None
    stored = stored_by_exit(v)
    regs = _switched(v, l2.regs) if l2.restores else v.regs
    amd = state.host.vendor == "amd"
    origin = VMRUN if amd else NESTED
    new = replace(v, regs=regs, area=stored, wp=l2.wp, cet=l2.cet, l2=None, origin=origin, since=UNTOUCHED)
    because = c.VMRUN_SWITCHES if amd else c.L2_STORED
    return Outcome(with_vcpu(state, op.vcpu, new), None, because=because)


def vmread(state: State, op: Vmread, _env: Answers, _profile: Profile) -> Outcomes:
    """L1 reads a CET field of vmcs12, of either area.

    The guest area exists with the VM-entry control, the host area with the VM-exit control (SDM volume 3, appendix B).
    Linux has both areas with both controls, and doesn't ask which feature the guest has.
    """
    v = vcpu_of(state, op.vcpu)
    failed = Outcome(state, (1, 0), because=c.VMCS12_FIELDS_ABSENT)
    value = Outcome(state, (0, (*v.area, *v.host_area)[VMCS12_FIELDS.index(op.field)]), because=c.VMCS12_FIELDS_ABSENT)
    controls = state.host.load_cet_entry, state.host.load_cet_exit
    if not controls[op.field in HOST_FIELDS]:
        return failed
    has_feature = v.shstk or (v.ibt and op.field in (GUEST_S_CET, HOST_S_CET))
    return value if has_feature and all(controls) else (value, failed)
