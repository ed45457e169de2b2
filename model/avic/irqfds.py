"""Interrupts from eventfds: KVM_IRQFD and the routing table, as KVM has them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from conformance.model.avic import operations as s
from conformance.model.avic.operations import Answers
from conformance.model.avic.state import State
from conformance.model.matchers import ANYTHING
from conformance.model.step import Outcome, Outcomes
from conformance.specs.avic import Profile
from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import EAGAIN, EBADF, EBUSY, EINVAL
from conformance.specs.clause import Clause

EVENTFDS, NO_EVENTFD, NOT_OPEN = 3, 3, 4
MAX_GSI = 4096
"""KVM_MAX_IRQ_ROUTES of recent builds; what a VM has, KVM_CAP_IRQ_ROUTING says."""
LEAST_ROUTES = 1024
"""The smallest that a build has had: every gsi below can be routed."""
MOST_ROUTES = 2**31
"""No build has as many, since the capability is told as an int: from here on no gsi can be routed."""
MOST = 2**32
"""What one write adds at most here; overflow is the eventfd's own business."""

Done = tuple[int, tuple[int, ...]]
"""The result of an act, and the vectors that it delivered."""


@dataclass(frozen=True, slots=True)
class Vm:
    """What KVM remembers of eventfds."""

    routes: tuple[tuple[int, int], ...] = ()
    assigned: tuple[tuple[int, int], ...] = ()
    """(eventfd, gsi)."""
    counters: tuple[int, ...] = (0,) * EVENTFDS
    other_tables: tuple[tuple[tuple[int, int], ...], ...] = ()
    """Those that were replaced or refused: what they would deliver must not be delivered."""
    spared: frozenset[int] = frozenset()
    """Eventfds that were to be taken from a gsi that does not have them."""
    limit: int = MAX_GSI
    """The first gsi that cannot be routed."""

    def counting(self, fd: int, value: int) -> Vm:
        """With another counter."""
        return replace(self, counters=(*self.counters[:fd], value, *self.counters[fd + 1 :]))

    def fire(self, gsi: int) -> tuple[int, ...]:
        """The vectors that a gsi delivers."""
        return tuple(vector for at, vector in self.routes if at == gsi)


def is_script(op: s.Irqfds) -> bool:
    """Whether all of it can be asked: eventfds are written and read, numbers are numbers."""
    return all(_is_act(act) for act in op.acts)


def _is_act(act: s.Act) -> bool:
    match act.what:
        case "route":
            return all(0 <= gsi < MOST and 16 <= vector < 256 for gsi, vector in act.table)
        case "assign" | "deassign":
            return 0 <= act.fd <= NOT_OPEN and 0 <= act.n < MOST
        case "write":
            return 0 <= act.fd < EVENTFDS and 0 < act.n < MOST
        case "read":
            return 0 <= act.fd < EVENTFDS
    return False


def irqfds(state: State, op: s.Irqfds, _env: Answers, profile: Profile) -> Outcomes:
    """Do all of it. Only KVM's own profile says how; how many gsis can be routed is the build's choice.

    Returns:
        for each act its result (0, a negative errno, what was read) and the vectors that it delivered
    """
    if not profile.kvm_routing:
        return Outcome(state, ANYTHING, because=c.ENTRY_POINTS_RETURN)
    if not op.acts:
        return Outcome(state, (), because=c.ENTRY_POINTS_RETURN)
    ways = [_script(state, op, limit) for limit in _limits(op)]
    return tuple({outcome.result: outcome for outcome in reversed(ways)}.values())[::-1]


def _limits(op: s.Irqfds) -> list[int]:
    """The first gsi that cannot be routed: each choice that this script tells from the others, the usual one first."""
    asked = {gsi for act in op.acts if act.what == "route" for gsi, _ in act.table}
    between = sorted(gsi for gsi in asked if LEAST_ROUTES <= gsi < MOST_ROUTES)
    return [MAX_GSI, *between, MOST_ROUTES]


def _script(state: State, op: s.Irqfds, limit: int) -> Outcome:
    """What all of it comes to where gsis of `limit` and above cannot be routed."""
    vm, done, met = Vm(limit=limit), [], []
    for act in op.acts:
        vm, result, clause = _act(vm, act)
        done.append(result)
        met.append(clause)
    return Outcome(state, tuple(done), because=met[-1], also=tuple(dict.fromkeys(met[:-1])), parts=tuple(met))


def _act(vm: Vm, act: s.Act) -> tuple[Vm, Done, Clause]:
    match act.what:
        case "route":
            gsis = [gsi for gsi, _ in act.table]
            if len(set(gsis)) < len(gsis) or any(gsi >= vm.limit for gsi in gsis):
                refused = replace(vm, other_tables=(*vm.other_tables, act.table))
                return refused, (-EINVAL, ()), c.ROUTING_REPLACED_WHOLE
            before = (*vm.other_tables, vm.routes) if vm.routes else vm.other_tables
            return replace(vm, routes=act.table, other_tables=before), (0, ()), c.ROUTING_REPLACED_WHOLE
        case "assign":
            return _assign(vm, act.fd, act.n)
        case "deassign":
            if act.fd >= NO_EVENTFD:
                return vm, (_bad(act.fd), ()), c.IRQFD_ONCE
            if (act.fd, act.n) not in vm.assigned:
                return replace(vm, spared=vm.spared | {act.fd}), (0, ()), c.IRQFD_DEASSIGNED
            kept = tuple(pair for pair in vm.assigned if pair != (act.fd, act.n))
            return replace(vm, assigned=kept, spared=vm.spared - {act.fd}), (0, ()), c.IRQFD_DEASSIGNED
        case "write":
            gsi = dict(vm.assigned).get(act.fd)
            if gsi is None:
                return vm.counting(act.fd, vm.counters[act.fd] + act.n), (0, ()), c.IRQFD_DEASSIGNED
            return vm.counting(act.fd, 0), (0, vm.fire(gsi)), _because_delivered(vm, act.fd, gsi)
    counter = vm.counters[act.fd]
    if act.fd not in dict(vm.assigned):
        because = c.IRQFD_DEASSIGNED
    else:
        because = c.IRQFD_FIRES_WHEN_PENDING if counter else c.IRQFD_DELIVERS
    return vm.counting(act.fd, 0), (counter or -EAGAIN, ()), because


def _because_delivered(vm: Vm, fd: int, gsi: int) -> Clause:
    """What a write that delivers otherwise has most likely broken."""
    if fd in vm.spared:
        return c.IRQFD_DEASSIGNED
    if any(replace(vm, routes=table).fire(gsi) != vm.fire(gsi) for table in vm.other_tables):
        return c.ROUTING_REPLACED_WHOLE
    return c.IRQFD_DELIVERS


def _assign(vm: Vm, fd: int, gsi: int) -> tuple[Vm, Done, Clause]:
    if fd >= NO_EVENTFD:
        return vm, (_bad(fd), ()), c.IRQFD_ONCE
    if fd in dict(vm.assigned):
        return vm, (-EBUSY, ()), c.IRQFD_ONCE
    new = replace(vm, assigned=(*vm.assigned, (fd, gsi)))
    if vm.counters[fd]:
        return new, (0, vm.fire(gsi)), c.IRQFD_FIRES_WHEN_PENDING
    return new, (0, ()), c.IRQFD_ONCE


def _bad(fd: int) -> int:
    return -EINVAL if fd == NO_EVENTFD else -EBADF
