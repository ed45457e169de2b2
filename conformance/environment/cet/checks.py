"""What neither result nor view shows: predicates over one step."""

from __future__ import annotations

from conformance.model.cet import operations as m
from conformance.model.cet.state import Vcpu
from conformance.model.cet.values import one_reg_msr
from conformance.specs.cet import clauses as c
from conformance.specs.cet.constants import EFAULT, INTERNAL_GUEST_SSP, ONE_REG_SIZE, POINTER_MSRS, S_CET, U_CET
from conformance.subsystem import Check, Record


def _managed_by_xstate(v: Vcpu, msr: int | None) -> bool:
    """Whether the FPU code keeps this MSR for this vCPU."""
    if msr == U_CET:
        return v.shstk or v.ibt
    return msr in POINTER_MSRS and v.shstk


def _count(record: Record, name: str) -> int:
    return sum(call == name for call, _, _ in record.calls)


def _fpu_for_batch(record: Record) -> bool | str:
    """The FPU is loaded iff an XSTATE-managed MSR is accessed, at most once."""
    if not record.profile.fpu_managed or record.given:
        return False
    op, v = record.op, record.before.vcpus[record.op.vcpu]
    failing: tuple[int | None, ...] = ()
    if isinstance(op, m.SetMsrs | m.GetMsrs):
        listed = [msr for msr, _ in op.entries] if isinstance(op, m.SetMsrs) else list(op.indices)
        count = record.result if isinstance(op, m.SetMsrs) else record.result[0]
        accessed: tuple[int | None, ...] = tuple(listed[: max(count, 0)])
        if 0 <= count < len(listed):
            failing = (listed[count],)
    else:
        msr = one_reg_msr(op.reg)
        result = record.result if isinstance(op, m.SetOneReg) else record.result[0]
        accessed, failing = ((msr,), ()) if result == 0 else ((), (msr,))
    needed = any(_managed_by_xstate(v, msr) for msr in accessed)
    allowed = needed or any(_managed_by_xstate(v, msr) for msr in failing)
    loads = _count(record, "load_guest_fpu")
    if needed and loads != 1:
        return f"an XSTATE-managed MSR was accessed with {loads} loads of the guest FPU"
    if loads > 1 or (loads and not allowed):
        return f"the guest FPU was loaded {loads} times, no XSTATE-managed MSR was accessed"
    return True


def _host_s_cet_untouched(record: Record) -> bool | str:
    """S_CET is accessed, and the host's own is not written on the way."""
    op = record.op
    msrs = [msr for msr, _ in op.entries] if isinstance(op, m.SetMsrs) else [op.msr]
    if S_CET not in msrs or not record.profile.fpu_managed:
        return False
    written = any(call in ("wrmsr", "wrmsr_safe") and args[0] == S_CET for call, args, _ in record.calls)
    return "the host's S_CET was written" if written else True


def _quiet_exit(record: Record) -> bool | str:
    """No shadow-stack MSR is touched between one exit and the next."""
    traffic = record.env.traffic  # type: ignore[attr-defined]  # this subsystem's environment
    return f"{traffic} accesses to shadow-stack MSRs" if traffic else True


def _value_after_id(record: Record) -> bool | str:
    """A register id is judged before the value it comes with is looked for: only the request itself may fault first."""
    op, v = record.op, record.before.vcpus[record.op.vcpu]
    msr = one_reg_msr(op.reg)
    if msr is not None and (msr != INTERNAL_GUEST_SSP or v.shstk):
        return False
    result = record.result if isinstance(op, m.SetOneReg) else record.result[0]
    followed = result == -EFAULT and any(
        call in ("copy_from_user", "copy_to_user") and args[0] != ONE_REG_SIZE and answer
        for call, args, answer in record.calls
    )
    return "the value of a bad register id was looked for, and the fault reported" if followed else True


_ID = Check(c.ONE_REG_ID, _value_after_id)
_BATCH = Check(c.FPU_LOADED_FOR_BATCH, _fpu_for_batch)

CHECKS: dict[type, tuple[Check, ...]] = {
    m.SetMsrs: (_BATCH, Check(c.S_CET_NOT_XSTATE, _host_s_cet_untouched)),
    m.GetMsrs: (_BATCH,),
    m.SetOneReg: (_BATCH, _ID),
    m.GetOneReg: (_BATCH, _ID),
    m.Wrmsr: (Check(c.S_CET_NOT_XSTATE, _host_s_cet_untouched),),
    m.Exit: (Check(c.NO_SWAP_ON_KERNEL_EXITS, _quiet_exit),),
}
