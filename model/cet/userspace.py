"""What userspace reads and writes: batches of MSRs, registers by id, XSAVE images, migration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from conformance.model.cet.access import host_read, host_write, lacking
from conformance.model.cet.operations import (
    Answers,
    GetMsrs,
    GetOneReg,
    GetRegList,
    GetXsave,
    Migrate,
    SetMsrs,
    SetOneReg,
    SetXsave,
)
from conformance.model.cet.state import (
    COMPONENTS,
    FRESH,
    HOST,
    MIGRATED,
    PLACE,
    UNTOUCHED,
    State,
    Vcpu,
    new_vcpu,
    vcpu_of,
    with_vcpu,
)
from conformance.model.cet.values import one_reg_msr
from conformance.model.freedom import End, Freedom, Part
from conformance.model.step import Outcome, Outcomes
from conformance.specs.cet import Profile
from conformance.specs.cet import clauses as c
from conformance.specs.cet.constants import (
    E2BIG,
    EFAULT,
    EINVAL,
    INTERNAL_GUEST_SSP,
    MAX_MSR_ENTRIES,
    ONE_REG_GUEST_SSP,
)
from conformance.specs.clause import Clause


def get_msrs(state: State, op: GetMsrs, env: Answers, _profile: Profile) -> Outcome:
    """KVM_GET_MSRS.

    Returns:
        (n, values)    the entries before the first that failed, all if none did
        (-E2BIG, ())   256 entries or more
        (-EFAULT, ())  a bad user pointer
    """
    if env.copy_from_user:
        return Outcome(state, (-EFAULT, ()), because=c.BATCH_STOPS_AT_FAILURE)
    if len(op.indices) >= MAX_MSR_ENTRIES:
        return Outcome(state, (-E2BIG, ()), because=c.BATCH_LIMIT)
    if env.copy_to_user:
        return Outcome(state, (-EFAULT, ()), because=c.BATCH_STOPS_AT_FAILURE)
    v = vcpu_of(state, op.vcpu)
    values: list[int] = []
    because = c.BATCH_STOPS_AT_FAILURE
    for msr in op.indices:
        succeeded, value, clause = host_read(state, v, msr)
        if not values or PLACE.get(msr) == v.place:
            because = clause if len(op.indices) == 1 or clause not in _ODD else c.LAST_ACCEPTED_VALUE
        if not succeeded:
            parts = (clause, because if values else clause)
            return Outcome(state, (len(values), tuple(values)), because=clause, also=_STOPPED, parts=parts)
        values.append(value)
    if len(op.indices) == MAX_MSR_ENTRIES - 1:
        because = c.BATCH_LIMIT
    return Outcome(state, (len(values), tuple(values)), because=because, also=_HOST_READ)


_ODD = (c.SSP_ALIGNED, c.TABLE_UNALIGNED)
"""Cited where one register alone is read: of several it may be another whose value is wrong."""
_STOPPED = (c.BATCH_STOPS_AT_FAILURE, c.FAILED_READ_GIVES_ZERO)
_HOST_READ = (c.HOST_READS_GUEST_VALUE,)


def set_msrs(state: State, op: SetMsrs, env: Answers, profile: Profile) -> Outcomes:
    """KVM_SET_MSRS.

    Returns:
        n        entries stored, up to the first that was refused, or that could not be read
        -E2BIG   256 entries or more, none stored
        -EFAULT  an entry could not be read; those before it may be stored, itself is not
    """
    if env.copy_from_user:
        return _unreadable(state, op, profile)
    if len(op.entries) >= MAX_MSR_ENTRIES:
        return Outcome(state, -E2BIG, because=c.BATCH_LIMIT)
    stopped: list[Outcome] = []
    v = vcpu_of(state, op.vcpu)
    because, tolerated = c.BATCH_STOPS_AT_FAILURE, False
    for n, (msr, value) in enumerate(op.entries):
        new, clause, bad_base = host_write(state, v, msr, value, profile.base_aligned)
        because = clause if n == 0 else c.BATCH_STOPS_AT_FAILURE
        if new is None or bad_base:
            breaches = (c.CET_BASE_CANONICAL,) if tolerated else ()
            stopped.append(_stored(state, op.vcpu, v, n, because, breaches))
        if new is None:
            return tuple(stopped)
        v, tolerated = new, tolerated or bad_base
    if len(op.entries) == MAX_MSR_ENTRIES - 1:
        because = c.BATCH_LIMIT
    breaches = (c.CET_BASE_CANONICAL,) if tolerated else ()
    done = _stored(state, op.vcpu, v, len(op.entries), because, breaches)
    return (*stopped, done) if stopped else done


def _unreadable(state: State, op: SetMsrs, profile: Profile) -> Freedom:
    """A fault somewhere in the batch: who reads it entry by entry has stored those before, up to the first refused."""

    def store(entry: tuple[int, int]) -> Callable[[State], State]:
        """The change that storing one entry makes."""

        def stored(before: State) -> State:
            """The state with it; as before where it is refused."""
            new = host_write(before, vcpu_of(before, op.vcpu), *entry, profile.base_aligned)[0]
            return before if new is None else with_vcpu(before, op.vcpu, new)

        return stored

    readable = op.entries[:-1] if len(op.entries) <= MAX_MSR_ENTRIES else ()
    parts: list[Part] = []
    ends = [End(-EFAULT, because=c.BATCH_STOPS_AT_FAILURE)]
    v = vcpu_of(state, op.vcpu)
    for n, entry in enumerate(readable):
        new = host_write(state, v, *entry, profile.base_aligned)[0]
        if new is None:
            break
        v = new
        parts.append(Part(str(n), store(entry), after=(parts[-1].name,) if parts else ()))
    for n, part in enumerate(parts):
        until = (parts[n + 1].name,) if n + 1 < len(parts) else ()
        ends.append(End(n + 1, because=c.BATCH_STOPS_AT_FAILURE, after=(part.name,), before=until))
    return Freedom(state, tuple(parts), tuple(ends))


def _stored(state: State, slot: int, v: Vcpu, n: int, because: Clause, breaches: tuple[Clause, ...]) -> Outcome:
    return Outcome(with_vcpu(state, slot, v), n, because=because, also=_HOST_WRITE, breaches=breaches)


_HOST_WRITE = (c.HOST_VALUES_CHECKED,)


def set_one_reg(state: State, op: SetOneReg, env: Answers, profile: Profile) -> Outcomes:
    """KVM_SET_ONE_REG.

    Returns:
        0        stored
        -EINVAL  a bad id, a register the vCPU lacks, or a value refused
        -EFAULT  the request or the value cannot be read; the value of a bad id is not looked for (a check says so)
    """
    v, msr = vcpu_of(state, op.vcpu), one_reg_msr(op.reg)
    fault = Outcome(state, -EFAULT, because=c.ONE_REG_ID)
    if msr is None or (msr == INTERNAL_GUEST_SSP and not v.shstk):
        bad = replace(fault, result=-EINVAL)
        return (bad, fault) if env.copy_from_user else bad
    if env.copy_from_user:
        return fault
    new, clause, bad_base = host_write(state, v, msr, op.value, profile.base_aligned)
    if bad_base or clause is c.HOST_WRITE_REACHES_GUEST or lacking(state, v, msr) is not None:
        clause = c.GUEST_SSP_REGISTER if msr == INTERNAL_GUEST_SSP else c.ONE_REG_IS_HOST_ACCESS
    refused = Outcome(state, -EINVAL, because=clause)
    if new is None:
        return refused
    stored = Outcome(with_vcpu(state, op.vcpu, new), 0, because=clause)
    return (refused, replace(stored, breaches=(c.CET_BASE_CANONICAL,))) if bad_base else stored


def get_one_reg(state: State, op: GetOneReg, env: Answers, _profile: Profile) -> Outcome:
    """KVM_GET_ONE_REG.

    Returns:
        (0, value)    the register
        (-EINVAL, 0)  a bad id, or a register the vCPU lacks
        (-EFAULT, 0)  the request cannot be read, or a good id's value not be written
    """
    if env.copy_from_user:
        return Outcome(state, (-EFAULT, 0), because=c.ONE_REG_ID)
    v, msr = vcpu_of(state, op.vcpu), one_reg_msr(op.reg)
    if msr is None or (msr == INTERNAL_GUEST_SSP and not v.shstk):
        return Outcome(state, (-EINVAL, 0), because=c.ONE_REG_ID)
    succeeded, value, clause = host_read(state, v, msr)
    if not succeeded:
        return Outcome(state, (-EINVAL, 0), because=c.ONE_REG_IS_HOST_ACCESS)
    if env.copy_to_user:
        return Outcome(state, (-EFAULT, 0), because=c.ONE_REG_ID)
    if clause is c.LAST_ACCEPTED_VALUE and v.origin in (FRESH, HOST):
        clause = c.GUEST_SSP_REGISTER if msr == INTERNAL_GUEST_SSP else c.ONE_REG_IS_HOST_ACCESS
    also = (c.GUEST_SSP_REGISTER,) if msr == INTERNAL_GUEST_SSP else (c.ONE_REG_IS_HOST_ACCESS,)
    return Outcome(state, (0, value), because=clause, also=also)


def get_reg_list(state: State, op: GetRegList, env: Answers, _profile: Profile) -> Outcome:
    """KVM_GET_REG_LIST: (result, count, ids); a bad user pointer leaves count and ids open."""
    if env.copy_from_user or env.copy_to_user:
        return Outcome(state, (-EFAULT, 0, ()), because=c.REG_LIST)
    ids = (ONE_REG_GUEST_SSP,) if vcpu_of(state, op.vcpu).shstk else ()
    if op.n < len(ids):
        return Outcome(state, (-E2BIG, len(ids), ()), because=c.REG_LIST)
    return Outcome(state, (0, len(ids), ids), because=c.REG_LIST)


def xsave(state: State, op: GetXsave | SetXsave, _env: Answers, _profile: Profile) -> Outcomes:
    """KVM_GET_XSAVE holds no CET component; KVM_SET_XSAVE of one is refused or ignored."""
    if isinstance(op, GetXsave):
        return Outcome(state, False, because=c.XSAVE_IMAGE_IS_USERS)
    taken = Outcome(state, 0, because=c.XSAVE_IMAGE_IS_USERS)
    if op.component not in COMPONENTS:
        return taken
    return (replace(taken, result=-EINVAL), taken)


def migrate(state: State, op: Migrate, _env: Answers, _profile: Profile) -> Outcome:
    """A fresh vCPU with everything that was saved and restored; True if every call succeeded."""
    v = vcpu_of(state, op.vcpu)
    fresh = new_vcpu(state, v.asked)
    new = replace(
        fresh,
        regs=v.regs,
        wp=v.wp,
        cet=v.cet,
        origin=MIGRATED,
        since=UNTOUCHED,
        area=v.area,
        host_area=v.host_area,
        address=v.address,
        other=v.other,
        smram=v.smram,
    )
    return Outcome(with_vcpu(state, op.vcpu, new), True, because=c.MIGRATION_ROUND_TRIP)
