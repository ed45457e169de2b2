"""IPIs: what hardware does with the tables as they must be, and what the handler adds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

from conformance.model.avic.apic import (
    DFR,
    ICR,
    ICR2,
    LDR,
    SPIV,
    mode_of,
    pend,
    put,
    seen_by_routing,
    with_events,
    with_regs,
    with_run,
)
from conformance.model.avic.logical_ids import logical_index
from conformance.model.avic.looking import lately, settled
from conformance.model.avic.operations import Answers, GuestIpi, GuestSelfIpi, HandleExit, RawIpiExit
from conformance.model.avic.routing import DISABLED, X2APIC, XAPIC, Apic, Message, kvm_named, kvm_route, route
from conformance.model.avic.state import State, Vcpu, is_active, is_running, with_vcpu, with_vcpus
from conformance.model.step import Outcome, Outcomes
from conformance.specs.avic import Profile
from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import (
    ALL,
    BROADCAST,
    FIXED,
    FLAT,
    ICR_ASSERT,
    ICR_BUSY,
    ICR_LEVEL,
    ICR_LOGICAL,
    ICR_SHORTHAND,
    INIT,
    IPI_INVALID_TARGET,
    IPI_INVALID_TYPE,
    LOWEST,
    NMI,
    OTHERS,
    SELF,
    SMI,
    SPIV_ENABLE,
    STARTUP,
    X2_BROADCAST,
    X2_ICR_RESERVED,
)
from conformance.specs.clause import Clause

GP = 1
"""Result of an access that the guest sees fail with #GP."""


def icr_low(op: GuestIpi) -> int:
    """ICR low half that this IPI writes."""
    return (
        op.vector
        | op.mode << 8
        | int(op.logical) << ICR_LOGICAL
        | int(op.asserted) << ICR_ASSERT
        | int(op.level) << ICR_LEVEL
        | op.shorthand << ICR_SHORTHAND
        | op.extra
    )


def icr_high(sender: Vcpu, dest: int) -> int:
    """ICR high half for a destination, in the sender's mode."""
    return dest & 0xFFFFFFFF if mode_of(sender.base) == X2APIC else (dest & 0xFF) << 24


def decoded(state: State, sender: Vcpu, low: int, high: int) -> Message:
    """The message that these ICR halves mean, sent by this vCPU."""
    x2 = mode_of(sender.base) == X2APIC
    position = next(n for n, v in enumerate(_of_vm(state)) if v.id == sender.id)
    return Message(
        dest=high if x2 else high >> 24,
        sender=position,
        logical=low >> ICR_LOGICAL & 1 == 1,
        shorthand=low >> ICR_SHORTHAND & 3,
        mode=low >> 8 & 7,
        vector=low & 0xFF,
        level=low >> ICR_LEVEL & 1 == 1,
        asserted=low >> ICR_ASSERT & 1 == 1,
    )


def _of_vm(state: State) -> list[Vcpu]:
    return [v for v in state.vcpus if v.vm == 0]


def _accepted(state: State, positions: tuple[int, ...], message: Message, level: bool | None) -> State:
    """The state after these vCPUs accepted the message."""
    if not positions:
        return state
    vcpus = list(state.vcpus)
    vm = [n for n, v in enumerate(vcpus) if v.vm == 0]
    for position in positions:
        n = vm[position]
        if mode_of(vcpus[n].base) == DISABLED:
            continue  # what its registers hold is nobody's business until RESET
        if message.mode in (FIXED, LOWEST):
            vcpus[n] = pend(vcpus[n], message.vector, level)
        else:
            v = with_events(vcpus[n], vcpus[n].events | 1 << message.mode)
            vcpus[n] = with_run(v, v.core, False, v.in_guest, v.pending)
    return with_vcpus(state, tuple(vcpus))


def by_software(state: State, message: Message, profile: Profile) -> list[State]:
    """Every way in which software may route the message; in its profile also as KVM's map does."""
    apics = [seen_by_routing(v) for v in _of_vm(state)]
    sets, _, _ = route(apics, message)
    if profile.kvm_routing:
        sets = tuple(dict.fromkeys((*sets, *_by_kvm(apics, message))))
    return [_accepted(state, positions, message, message.level) for positions in sets]


def _by_kvm(apics: Sequence[Apic], message: Message) -> Iterator[tuple[int, ...]]:
    """Who accepts by KVM's map, with or without 32-bit ids and the broadcast quirk, which are the VMM's choice.

    Only of these modes KVM looks at the trigger, and it takes vectors below 16 as any other.
    """
    is_deassert = message.level and not message.asserted
    if is_deassert and message.mode in (FIXED, LOWEST, INIT):
        return
    for wide, no_quirk in product((False, True), repeat=2):
        meant = replace(message, wide=wide, no_quirk=no_quirk)
        if message.mode in (FIXED, LOWEST):
            yield kvm_route(apics, meant)[0]
        elif message.mode in (SMI, NMI, INIT, STARTUP):
            yield tuple(kvm_named(apics, meant)[0])


def hardware_targets(state: State, sender: Vcpu, message: Message) -> list[tuple[int, ...]]:
    """Positions whose IRR hardware sets, walking tables as they must be; empty where it gives up.

    Two software-disabled vCPUs may claim one logical entry; then either may own it. So may one whose
    own entry is out of date.
    """
    vcpus = _of_vm(state)
    x2 = mode_of(sender.base) == X2APIC
    if message.mode != FIXED or message.level or message.vector < 16 or not is_active(state, sender):
        return []
    if x2 and not state.host.x2avic:
        return []
    if message.shorthand == SELF:
        return [(message.sender,)]
    limit = state.host.max_id if x2 else BROADCAST - 1
    everybody = [n for n, v in enumerate(vcpus) if v.id <= limit]
    if message.shorthand == OTHERS:
        return [tuple(n for n in everybody if n != message.sender)]
    if message.shorthand == ALL or message.dest == (X2_BROADCAST if x2 else BROADCAST):
        return [tuple(everybody)]
    owners: list[list[int]]
    if not message.logical:
        owners = [[n for n in everybody if vcpus[n].id == message.dest]]
    elif x2:
        first = message.dest >> 16 << 4
        owners = [[n for n in everybody if vcpus[n].id == first + b] for b in range(16) if message.dest >> b & 1]
    else:
        stale = [n for n in everybody if vcpus[n].id in state.stale]
        owners = [_owners(vcpus, i) + stale for i in _indices(message.dest, sender.regs[DFR])]
    return [tuple(dict.fromkeys(choice)) for choice in product(*owners)]


def _indices(dest: int, dfr: int) -> list[int]:
    """Logical-table indices that a destination names under the sender's DFR."""
    if dfr | 0x0FFFFFFF == FLAT:
        return [b for b in range(8) if dest >> b & 1]
    return [4 * (dest >> 4) + b for b in range(4) if dest >> b & 1]


def _owners(vcpus: list[Vcpu], index: int) -> list[int]:
    return [
        n
        for n, v in enumerate(vcpus)
        if mode_of(v.base) == XAPIC and v.id < BROADCAST and logical_index(v.regs[LDR] >> 24, v.regs[DFR]) == index
    ]


def by_hardware(state: State, sender: Vcpu, message: Message) -> list[tuple[tuple[int, ...], State]]:
    """Every way in which hardware may deliver the message without help: who is hit, and the state after."""
    config = state.config
    vcpus = _of_vm(state)
    results = []
    for positions in hardware_targets(state, sender, message):
        hit = positions
        if config.checks_spiv:
            hit = tuple(n for n in positions if vcpus[n].regs[SPIV] >> SPIV_ENABLE & 1)
        results.append((hit, _accepted(state, hit, message, False if config.clears_tmr else None)))
    return results


def _effect(state: State, sender: Vcpu, message: Message, after: State) -> Clause:
    """The clause to cite when something else than routing's IRR bits is seen."""
    if not is_active(state, sender):
        return c.HARDWARE_AND_HANDLER_MATCH_ROUTING
    if message.mode != FIXED or message.level:
        return c.UNACCELERATED_IPI_SENT_ONCE
    if message.vector < 16:
        return c.OTHER_IPI_EXITS_RESUME
    hit = [v for v, old in zip(after.vcpus, state.vcpus, strict=True) if v.regs != old.regs]
    if not hardware_targets(state, sender, message):
        return c.PARTLY_INVALID_IPI_SENT
    sleepers = sum(v.asleep for v in hit)
    if sleepers > 1 or (sleepers and len(hit) > 1):
        return c.ALL_TARGETS_WOKEN
    if any(not is_running(state, v) for v in hit):
        return c.SENDERS_MODE_DECODES if message.logical else c.NOT_RUNNING_TARGETS_WOKEN_ONLY
    return c.HARDWARE_AND_HANDLER_MATCH_ROUTING


def _also(state: State, sender: Vcpu) -> tuple[Clause, ...]:
    also: tuple[Clause, ...] = (c.ACCEPTANCE_SETS_IRR_AND_TMR,)
    if mode_of(sender.base) == X2APIC:
        also += (c.X2_ICR_STORED_IN_HALVES,)
    if any(v.asleep for v in state.vcpus):
        also += (c.NO_LOST_WAKE_UP,)
    return also


def guest_ipi(state: State, op: GuestIpi, _env: Answers, profile: Profile) -> Outcomes:
    """Send an IPI: hardware as far as it goes, then the handler.

    Where hardware does the work it does not know of software-disabled targets, nor of targets
    whose DFR is not the sender's, and TMR is its own business; where it gives up, software routes
    as layer R says. Both are allowed, as long as one of them explains everything.

    Returns:
        0  sent
        1  #GP: reserved bits in an x2APIC's ICR (AVIC-105); nothing changed

    Source: APM 15.29.6.1; avic_incomplete_ipi_interception.
    """
    sender = next(v for v in state.vcpus if v.id == op.id and v.vm == 0)
    x2 = mode_of(sender.base) == X2APIC
    low, high = icr_low(op), icr_high(sender, op.dest)
    if x2 and low & X2_ICR_RESERVED:
        return Outcome(state, GP, because=c.X2_GUEST_WRITE_FAULTS, effect=c.X2_GUEST_WRITE_FAULTS)
    busy = low >> ICR_BUSY & 1
    low &= ~(1 << ICR_BUSY)
    message = decoded(state, sender, low, high)
    written = with_regs(sender, put(put(sender.regs, ICR, low), ICR2, high))
    base = with_vcpu(state, written)
    if op.defer and not x2:
        return _deferred(base, written, message, low)
    outcomes = _sent(base, written, message, profile)
    if op.defer:  # an x2APIC's ICR may be intercepted all the same, and then nothing is left to a handler
        return (*_deferred(base, written, message, low), *outcomes)
    if busy and x2:
        outcomes += (Outcome(state, GP, because=c.X2_GUEST_WRITE_FAULTS),)
    return outcomes if len(outcomes) > 1 else outcomes[0]


def _sent(base: State, sender: Vcpu, message: Message, profile: Profile) -> tuple[Outcome, ...]:
    """Each way in which it may reach its targets."""
    hardware = [after for _, after in by_hardware(base, sender, message)]
    ways = dict.fromkeys([*hardware, *by_software(base, message, profile)])
    also = _also(base, sender)
    effects = {after: _effect(base, sender, message, after) for after in ways}
    return tuple(
        Outcome(done, 0, because=c.HARDWARE_AND_HANDLER_MATCH_ROUTING, effect=effects[after], also=also)
        for after in ways
        for done in lately(after)
    )


def _deferred(base: State, sender: Vcpu, message: Message, low: int) -> tuple[Outcome, ...]:
    """Hardware's half alone: what it did, and what it left to the handler."""
    outcomes = []
    vcpus = _of_vm(base)
    for hit, after in by_hardware(base, sender, message):
        exits = message.shorthand != SELF and any(not is_running(base, vcpus[n]) for n in hit)
        pending: tuple[int, ...] = (1,) if exits else ()
        outcomes.append((after, pending))
    if not outcomes or (message.logical and mode_of(sender.base) == XAPIC):
        outcomes.append((base, (0, low, message.dest) if is_active(base, sender) else ()))
    results = []
    for after, pending in outcomes:
        ways = [settled(after, frozenset())]
        if pending:  # whether a sender among the targets takes the vector before its own exit is not said
            ways = [_left(after, sender, pending), _left(ways[0], sender, pending)]
        for state in dict.fromkeys(ways):
            done = settled(state, frozenset())
            results.append(Outcome(done, 0, because=c.HARDWARE_AND_HANDLER_MATCH_ROUTING))
    return tuple(results)


def _left(state: State, sender: Vcpu, pending: tuple[int, ...]) -> State:
    """The state with the sender outside the guest and its exit pending."""
    v = next(v for v in state.vcpus if v.id == sender.id and v.vm == 0)
    return with_vcpu(state, with_run(v, v.core, False, False, pending))


def handle_exit(state: State, op: HandleExit, _env: Answers, profile: Profile) -> Outcomes:
    """The deferred exit is handled, and the guest resumes.

    Hardware had set the IRR bits of targets that were not running (exit id 1), so the handler only
    wakes them: what they took meanwhile does not come back (AVIC-070). An IPI that hardware gave up
    is sent now, to whom it names now.
    """
    sender = next(v for v in state.vcpus if v.id == op.id and v.vm == 0)
    resumed = with_vcpu(state, with_run(sender, sender.core, False, True))
    if sender.pending[0] == 1:
        return Outcome(
            settled(resumed),
            0,
            because=c.NOT_RUNNING_TARGETS_WOKEN_ONLY,
            effect=c.NOT_RUNNING_TARGETS_WOKEN_ONLY,
            also=(c.NO_LOST_WAKE_UP,),
        )
    _, low, dest = sender.pending
    message = decoded(state, sender, low, icr_high(sender, dest))
    effect = c.PARTLY_INVALID_IPI_SENT
    if message.mode != FIXED or message.level:
        effect = c.UNACCELERATED_IPI_SENT_ONCE
    elif message.vector < 16:
        effect = c.OTHER_IPI_EXITS_RESUME
    ways = [after for accepted in by_software(resumed, message, profile) for after in lately(accepted)]
    return tuple(Outcome(s, 0, because=effect, effect=effect) for s in ways)


def guest_self_ipi(state: State, op: GuestSelfIpi, _env: Answers, profile: Profile) -> Outcomes:
    """SELF_IPI of an x2APIC: a fixed edge interrupt to itself; bits 63:8 must be 0."""
    sender = next(v for v in state.vcpus if v.id == op.id and v.vm == 0)
    if op.value >> 8:
        return Outcome(state, GP, because=c.X2_GUEST_WRITE_FAULTS)
    position = next(n for n, v in enumerate(_of_vm(state)) if v.id == op.id)
    message = Message(dest=0, sender=position, shorthand=SELF, vector=op.value)
    hardware = [after for _, after in by_hardware(state, sender, message)]
    ways = dict.fromkeys([*by_software(state, message, profile), *hardware])
    ends = dict.fromkeys(done for after in ways for done in lately(after))
    return tuple(Outcome(done, 0, because=c.HARDWARE_AND_HANDLER_MATCH_ROUTING) for done in ends)


_NOT_BUSY = 0xFFFFFFFF & ~(1 << ICR_BUSY)


def _as_written(state: State, sender: Vcpu, low: int, high: int, profile: Profile) -> Iterator[State]:
    """What this ICR sends; the one in the page may be left alone or be made to agree with it."""
    message = decoded(state, sender, low, high)
    kept = high if mode_of(sender.base) == X2APIC else high & 0xFF000000
    rewritten = with_vcpu(state, with_regs(sender, put(put(sender.regs, ICR, low), ICR2, kept)))
    for base in (state, rewritten):
        yield from by_software(base, message, profile)


def raw_ipi_exit(state: State, op: RawIpiExit, _env: Answers, profile: Profile) -> Outcomes:
    """An exit with any content resumes the guest; ids 0 and 2 send what EXITINFO1 says (AVIC-075).

    Where that has the busy bit, what the ICR in the page says is as good.
    """
    identifier = op.info2 >> 32 & 0xFFFFFFFF
    if identifier not in (IPI_INVALID_TYPE, IPI_INVALID_TARGET):
        because = c.OTHER_IPI_EXITS_RESUME if identifier > 2 else c.NOT_RUNNING_TARGETS_WOKEN_ONLY
        return Outcome(settled(state), 1, because=because, effect=because, also=(c.ANY_EXITINFO_TOLERATED,))
    sender = next(v for v in state.vcpus if v.id == op.id and v.vm == 0)
    written = [(op.info1 & _NOT_BUSY, op.info1 >> 32)]
    if op.info1 >> ICR_BUSY & 1:  # the write is still under way, so it may be looked up in the page
        written.append((sender.regs[ICR] & _NOT_BUSY, sender.regs[ICR2]))
    because = c.UNACCELERATED_IPI_SENT_ONCE if identifier == IPI_INVALID_TYPE else c.PARTLY_INVALID_IPI_SENT
    accepted = dict.fromkeys(s for low, high in written for s in _as_written(state, sender, low, high, profile))
    ways = dict.fromkeys(done for s in accepted for done in lately(s))
    also = (c.ANY_EXITINFO_TOLERATED,)
    return tuple(Outcome(done, 1, because=because, effect=because, also=also) for done in ways)
