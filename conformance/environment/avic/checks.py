"""Clauses that neither a result nor the view shows: predicates over the calls of one step."""

from __future__ import annotations

from collections.abc import Callable

from conformance.environment.avic.world import Avic
from conformance.model.avic import operations as s
from conformance.model.avic.apic import DFR, ISR, LDR, TMR, has_bit, highest, mode_of
from conformance.model.avic.logical_ids import logical_index
from conformance.model.avic.routing import X2APIC, XAPIC
from conformance.model.avic.state import Vcpu, find, is_active
from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import (
    ADDRESS_BITS,
    APIC_DFR,
    APIC_IRR,
    APIC_LDR,
    APIC_RRR,
    APIC_TMR,
    BROADCAST,
    ENTRY_RUNNING,
    LOGICAL_VALID,
    TRAP_WRITES,
)
from conformance.subsystem import Check, Record


def _world(record: Record) -> Avic:
    env = record.env
    assert isinstance(env, Avic)
    return env


def _count(record: Record, name: str) -> int:
    return sum(call[0] == name for call in record.calls)


def eoi_broadcast_once(record: Record) -> bool | str:
    """A level EOI is broadcast once, an edge EOI not at all."""
    vcpu = find(record.before, record.op.id)
    vector = -1 if vcpu is None else highest(vcpu.regs, ISR)
    wanted = int(vcpu is not None and vector >= 0 and has_bit(vcpu.regs, TMR, vector))
    sent = [call[1][1] for call in record.calls if call[0] == "ioapic_eoi"]
    if sent == [vector] * wanted:
        return bool(wanted)
    if _is_cleared(record) and len(sent) <= 1:
        return False  # whose EOI is broadcast then, AVIC-115 says
    return f"EOI of vector {vector:#x}: broadcast {[hex(v) for v in sent]}, expected {wanted} broadcast"


def _is_cleared(record: Record) -> bool:
    """Whether hardware has cleared the in-service bit by the time of the exit."""
    vcpu = find(record.before, record.op.id)
    return record.before.config.eoi_cleared and vcpu is not None and is_active(record.before, vcpu)


def eoi_by_vector(record: Record) -> bool | str:
    """Where hardware cleared the bit, the vector's own EOI is broadcast all the same."""
    vcpu = find(record.before, record.op.id)
    vector = -1 if vcpu is None else highest(vcpu.regs, ISR)
    if vcpu is None or not _is_cleared(record) or vector < 0 or not has_bit(vcpu.regs, TMR, vector):
        return False
    sent = [call[1][1] for call in record.calls if call[0] == "ioapic_eoi"]
    return True if sent == [vector] else f"EOI of vector {vector:#x}: broadcast {[hex(v) for v in sent]}"


def emulated_once(record: Record) -> bool | str:
    """A fault-class access is emulated once, a trapped one never."""
    vcpu = find(record.before, record.op.id)
    if vcpu is None or not is_active(record.before, vcpu) or mode_of(vcpu.base) == X2APIC:
        return False
    op = record.op
    write = isinstance(op, s.GuestWrite)
    if write:
        faulting = op.offset not in (*TRAP_WRITES, 0x80)
    else:
        faulting = op.offset in (0x90, 0x390) or op.offset >= 0x400
    done = _count(record, "emulate_instruction")
    if done == int(faulting):
        return True
    return f"emulated {done} times, expected {int(faulting)}"


def remote_read_ignored(record: Record) -> bool | str:
    """A write of the remote read register is not applied, so nobody is told that it cannot be."""
    if record.op.offset != APIC_RRR:
        return False
    texts = [call[1][0] for call in record.calls if call[0] == "warn"]
    return f"warned {texts[0]!r}" if texts else True


def own_mistake_reported(record: Record) -> bool | str:
    """An invalid backing page pointer in the table is the driver's mistake, so somebody must hear of it."""
    if record.op.info2 >> 32 != 3:
        return False
    return True if _count(record, "warn") else "exit id 3 is not reported"


def never_emulated(record: Record) -> bool | str:
    """What hardware has completed, RIP included, is not emulated as well."""
    vcpu = find(record.before, record.op.id)
    if vcpu is None or not is_active(record.before, vcpu):
        return False
    if mode_of(vcpu.base) == X2APIC and not record.before.host.x2avic:
        return False
    return "the instruction is emulated once more" if _count(record, "emulate_instruction") else True


def own_entries_only(record: Record) -> bool | str:
    """An LDR or DFR write touches only the entries of the vCPU's old and new logical id."""
    before, after = record.before, record.after
    old, new = find(before, record.op.id), find(after, record.op.id)
    if record.op.offset not in (APIC_LDR, APIC_DFR) or old is None or new is None:
        return False
    same = before.vms[0].inhibits == after.vms[0].inhibits == 0
    if not same or mode_of(old.base) != XAPIC:
        return False
    env = _world(record)
    own = {logical_index(v.regs[LDR] >> 24, v.regs[DFR]) for v in (old, new)}
    own.add(logical_index(new.regs[LDR] >> 24, old.regs[DFR]))
    then = {e >> 32: e & 0xFFFFFFFF for e in env.tables.before}
    now = {e >> 32: e & 0xFFFFFFFF for e in env.tables.logical_entries()}
    if not now:
        return True  # emptied as a whole, to be filled when it is asked
    for index in then.keys() | now.keys():
        if index not in own and then.get(index, 0) != now.get(index, 0):
            return f"logical entry {index} changed from {then.get(index, 0):#x} to {now.get(index, 0):#x}"
    return True


def invalidated_first(record: Record) -> bool | str:
    """The entry of the old logical id is cleared before the new one is valid."""
    page = _world(record).tables.logical_table(0)
    quiet = record.before.vms[0].inhibits == record.after.vms[0].inhibits == 0
    if record.op.offset not in (APIC_LDR, APIC_DFR) or page is None or not quiet:
        return False  # with the inhibits, others change their entries too
    stores = [call[1][2] for call in record.calls if call[0] == "write32" and call[1][0] & ADDRESS_BITS == page.address]
    valid = [n for n, value in enumerate(stores) if value >> LOGICAL_VALID & 1]
    cleared = [n for n, value in enumerate(stores) if not value >> LOGICAL_VALID & 1]
    if not valid or not cleared:
        return False
    return "the new logical entry is valid before the old one is cleared" if valid[0] < cleared[-1] else True


def irtes_told_in_order(record: Record) -> bool | str:
    """IRTEs hear that the vCPU stops before its entry says so, and that it runs after (AVIC-094)."""
    if not _world(record).host.found.ipiv:
        return False  # entries never say that somebody runs
    told = [(n, call[1][1] >= 0) for n, call in enumerate(record.calls) if call[0] == "iommu_update_ga"]
    stores = [(n, call[1][2] >> ENTRY_RUNNING & 1) for n, call in enumerate(record.calls) if call[0] == "write64"]
    if len({runs for _, runs in told}) != 1:
        return False
    stored = [n for n, runs in stores if runs == told[0][1]]
    if len(stored) != 1:
        return False
    if told[0][1]:
        return True if stored[0] < told[0][0] else "the IRTEs are told before IsRunning is set"
    return True if told[-1][0] < stored[0] else "IsRunning is cleared before the IRTEs are told"


def old_entry_gone(record: Record) -> bool | str:
    """After a DFR change the entry of the old model is not this vCPU's any more."""
    old, new = find(record.before, record.op.id), find(record.after, record.op.id)
    if record.op.offset != APIC_DFR or old is None or new is None or old.regs[DFR] == new.regs[DFR]:
        return False
    if not is_active(record.before, old) or not is_active(record.after, new) or mode_of(old.base) != XAPIC:
        return False
    index = logical_index(old.regs[LDR] >> 24, old.regs[DFR])
    if index < 0 or index == logical_index(new.regs[LDR] >> 24, new.regs[DFR]):
        return False
    page = _world(record).tables.logical_table(0)
    entry = 0 if page is None else page.words[index]
    if entry >> LOGICAL_VALID & 1 and entry & 0xFF == old.id:
        return f"entry {index} of the old DFR is still {entry:#x}"
    return True


def entries_complete(record: Record) -> bool | str:
    """The vCPU owns the entry of the logical id it was given, unless another vCPU claims the same."""
    after = record.after
    vm, own = after.vms[0], find(after, record.op.id)
    if vm is None or own is None or vm.inhibits or own.core < 0 or own.asleep or not is_active(after, own):
        return False
    if isinstance(record.op, s.GuestWrite) and record.op.offset not in (APIC_LDR, APIC_DFR):
        return False
    claims = [v.id for v in after.vcpus if v.vm == 0 and _index(v) == _index(own)]
    if _index(own) < 0 or own.id >= BROADCAST or len(claims) > 1:  # an entry has eight bits for the id
        return False
    page = _world(record).tables.logical_table(0)
    entry = 0 if page is None else page.words[_index(own)]
    if entry >> LOGICAL_VALID & 1 and entry & 0xFF == own.id:
        return True
    return f"vCPU {own.id} has logical index {_index(own)}, where the entry is {entry:#x}"


def _index(v: Vcpu) -> int:
    if mode_of(v.base) != XAPIC:
        return -1
    return logical_index(v.regs[LDR] >> 24, v.regs[DFR])


def host_id_kept(record: Record) -> bool | str:
    """After put or block the entry still names the core that ran the vCPU last."""
    old = find(record.before, record.op.id)
    env = _world(record)
    if old is None or not is_active(record.before, old) or not record.before.host.ipiv or old.asleep:
        return False
    cpu = env.vcpus.named(record.op.id)
    page = env.memory.pages.get(cpu.vmcb.get(0xF8) & 0x000F_FFFF_FFFF_F000) if cpu.vmcb else None
    if page is None or not 0 <= old.core <= 0xFFF or 8 * old.id >= 4 * len(page.words):
        return False
    entry = page.read64(8 * old.id)
    if entry & 0xFFF == old.core:
        return True
    return f"entry {old.id} is {entry:#018x} after core {old.core:#x}"


def irr_before_mode(record: Record) -> bool | str:
    """IRR is set before the target's mode is read."""
    names = [
        n
        for n, call in enumerate(record.calls)
        if call[0] in ("or32", "write32", "write64") and APIC_IRR <= call[1][1] < APIC_IRR + 0x80
    ]
    modes = [n for n, call in enumerate(record.calls) if call[0] in ("vcpu_mode", "wake", "kick", "wrmsr")]
    if names and modes and modes[0] < names[0]:
        return f"{record.calls[modes[0]][0]} comes before the IRR bit is set"
    return bool(names)


def tmr_before_irr(record: Record) -> bool | str:
    """TMR is settled before IRR is set."""
    irr = tmr = -1
    for n, call in enumerate(record.calls):
        if call[0] in ("or32", "and32"):
            if APIC_IRR <= call[1][1] < APIC_IRR + 0x80 and irr < 0:
                irr = n
            elif APIC_TMR <= call[1][1] < APIC_TMR + 0x80:
                tmr = n
    if irr < 0 or tmr < 0:
        return False
    return "TMR changes after IRR is set" if tmr > irr else True


def galog_wakes_its_vcpu(record: Record) -> bool | str:
    """A logged interrupt wakes its vCPU and nobody else; IRR is not written by the driver."""
    irte = next((i for i in record.before.irtes if i.irq == record.op.irq), None)
    vcpu = None if irte is None else find(record.before, irte.id)
    env = _world(record)
    if vcpu is None or not env.iommu.was_posted:
        return False
    woken = {call[1][0] for call in record.calls if call[0] in ("wake", "kick")}
    own = env.vcpus.named(vcpu.id).handle
    if woken - {own}:
        return f"woke {_vcpus(env, woken)}, the tag is that of {_vcpus(env, {own})}"
    if any(call[0] in ("or32", "write32") and 0x200 <= call[1][1] < 0x280 for call in record.calls):
        return "the driver changed IRR"
    return bool(woken)


def nobody_woken(record: Record) -> bool | str:
    """An unknown tag wakes nobody."""
    woken = {call[1][0] for call in record.calls if call[0] in ("wake", "kick")}
    return f"woke {_vcpus(_world(record), woken)}, though nobody has the tag" if woken else True


def _vcpus(env: Avic, handles: set[int]) -> str:
    """vCPUs by VM and id, which a reader knows, where the driver's calls have handles."""
    known = env.vcpus.cpus
    return " and ".join(f"vCPU {known[h].id} of VM {known[h].vm}" if h in known else f"{h}" for h in sorted(handles))


def returned_to_host(record: Record) -> bool | str:
    """An interrupt that is routed nowhere, or cannot be posted, is in host mode."""
    vcpu = find(record.before, record.op.id)
    routed = any(i.irq == record.op.irq for i in record.after.irtes)
    if vcpu is not None and (vcpu.core < 0 or vcpu.asleep or (routed and is_active(record.after, vcpu))):
        return False  # it may not know yet that AVIC is inactive, if it is
    irte = _world(record).iommu.irtes.get(record.op.irq)
    return f"irq {record.op.irq} is still posted" if irte is not None and irte.posted else True


def logged_while_blocking(record: Record) -> bool | str:
    """GALogIntr is set while the vCPU blocks, and clear once it runs."""
    vcpu = find(record.after, record.op.id)
    world = _world(record)
    irtes = world.iommu.irtes
    if vcpu is None or not is_active(record.after, vcpu):
        return False
    cpu = world.vcpus.named(vcpu.id)
    if (cpu.last_core if vcpu.core < 0 else vcpu.core) > 0xFFF:
        return (
            False  # of a core whose id does not fit nothing can be told, neither that it is taken nor that it is left
        )
    asleep = vcpu.asleep or cpu.unblocked  # whoever wakes without a core says so with the next
    mine = [i.irq for i in record.after.irtes if i.irq in irtes and irtes[i.irq].posted and i.id == vcpu.id]
    for irq in mine:
        if bool(irtes[irq].log) != asleep:
            return f"irq {irq}: GALogIntr is {irtes[irq].log}, asleep {asleep}"
    return bool(mine)


def _checks(*pairs: tuple[object, Callable[[Record], bool | str]]) -> tuple[Check, ...]:
    return tuple(Check(clause, holds) for clause, holds in pairs)  # type: ignore[arg-type]  # pairs of Clause


_IPI = (c.UNACCELERATED_IPI_SENT_ONCE, never_emulated)
_FOLLOWS = ((c.IRTE_FOLLOWS_VCPU, logged_while_blocking), (c.IRTE_FOLLOWS_VCPU, irtes_told_in_order))

CHECKS: dict[type, tuple[Check, ...]] = {
    s.GuestEoi: _checks(
        (c.LEVEL_EOI_BROADCAST_ONCE, eoi_broadcast_once),
        (c.EOI_ENDED_BY_VECTOR, eoi_by_vector),
        (c.TRAPS_AND_FAULTS_TOLD_APART, never_emulated),
    ),
    s.GuestWrite: _checks(
        (c.TRAPS_AND_FAULTS_TOLD_APART, emulated_once),
        (c.REMOTE_READ_IGNORED, remote_read_ignored),
        (c.LDR_WRITE_MOVES_OWN_ENTRY, own_entries_only),
        (c.OLD_LOGICAL_ENTRY_FIRST, invalidated_first),
        (c.DFR_CHANGE_INVALIDATES_OLD_ENTRY, old_entry_gone),
        (c.LOGICAL_ENTRIES_COMPLETE, entries_complete),
    ),
    s.GuestRead: _checks((c.TRAPS_AND_FAULTS_TOLD_APART, emulated_once)),
    s.GuestIpi: _checks(_IPI),
    s.GuestSelfIpi: _checks(_IPI),
    s.HandleExit: _checks(_IPI),
    s.RawIpiExit: _checks(_IPI, (c.OTHER_IPI_EXITS_RESUME, own_mistake_reported)),
    s.Put: _checks((c.HOST_ID_KEPT_AFTER_PUT, host_id_kept), *_FOLLOWS),
    s.Block: _checks((c.HOST_ID_KEPT_AFTER_PUT, host_id_kept), *_FOLLOWS),
    s.Unblock: _checks(*_FOLLOWS),
    s.Load: _checks(*_FOLLOWS),
    s.VmRun: _checks((c.LOGICAL_ENTRIES_COMPLETE, entries_complete)),
    s.SetLapic: _checks((c.LOGICAL_ENTRIES_COMPLETE, entries_complete)),
    s.Deliver: _checks((c.DELIVERY_SETS_IRR_FIRST, irr_before_mode), (c.TMR_BEFORE_IRR, tmr_before_irr)),
    s.UpdateIrte: _checks((c.OLD_VCPU_FORGETS_IRTE, returned_to_host), (c.IRTE_FOLLOWS_VCPU, logged_while_blocking)),
    s.IommuPost: _checks((c.GALOG_WAKES_EXACTLY_ONE, galog_wakes_its_vcpu)),
    s.GaLogNotify: _checks((c.TAG_ROUND_TRIP, nobody_woken)),
}
