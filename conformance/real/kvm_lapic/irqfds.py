"""Eventfds that raise interrupts, with the kernel's own eventfds."""

from __future__ import annotations

import errno
import os
import time
from contextlib import ExitStack

from conformance.model.avic.irqfds import MAX_GSI
from conformance.model.avic.operations import Act
from conformance.real.kvm_lapic.machine import APIC_IRR, APIC_SPIV, Vm, vectors
from conformance.specs.avic.constants import APIC_BASE

PATIENCE = 2.0
"""Seconds in which what was pending must have been delivered."""
Done = tuple[int, tuple[int, ...]]


class Eventfds:
    """A VM with one vCPU, three eventfds, and one descriptor that is none; nothing is pending between two acts."""

    def __init__(self) -> None:
        self.given = ExitStack()
        self.vm = Vm()
        self.given.callback(self.vm.close)
        self.vcpu = self.vm.create_vcpu(0)
        self.vcpu.set_registers({APIC_SPIV: 0x1FF})
        self.image = self.vcpu.get_lapic()
        self.fds = [os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(3)]
        self.fds.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        self.fds.append(os.dup(self.fds[3]))
        os.close(self.fds[4])
        for fd in self.fds[:4]:
            self.given.callback(os.close, fd)
        self.gsi_of: dict[int, int] = {}
        """Where each eventfd was assigned, so that it can be looked at when all is over."""
        self.routed: set[int] = set()
        self.waiting: set[int] = set()
        """Eventfds whose counter is not 0."""

    def close(self) -> None:
        """Give everything back."""
        self.given.close()

    def act(self, act: Act) -> Done:
        """Do one thing."""
        try:
            return getattr(self, act.what)(act)  # type: ignore[no-any-return]  # the methods below
        except OSError as error:
            return -(error.errno or errno.EIO), ()

    def route(self, act: Act) -> Done:
        """KVM_SET_GSI_ROUTING."""
        self.vm.set_routing([(gsi, APIC_BASE, vector) for gsi, vector in act.table])
        self.routed = {gsi for gsi, _ in act.table}
        return 0, ()

    def assign(self, act: Act) -> Done:
        """KVM_IRQFD. What was pending is delivered a little later, by a worker of the kernel."""
        self.vm.irqfd(self.fds[act.fd], act.n)
        self.gsi_of[act.fd] = act.n
        if act.fd not in self.waiting or act.n not in self.routed:
            return 0, self.delivered()
        until = time.monotonic() + PATIENCE
        while not (found := self.delivered()) and time.monotonic() < until:
            time.sleep(0.0005)
        return 0, found

    def deassign(self, act: Act) -> Done:
        """KVM_IRQFD with the flag."""
        self.vm.irqfd(self.fds[act.fd], act.n, deassign=True)
        if self.gsi_of.get(act.fd) == act.n:
            del self.gsi_of[act.fd]
        return 0, self.delivered()

    def write(self, act: Act) -> Done:
        """eventfd_write; a worker of the kernel that may still be at it is awaited by assigning the eventfd anew."""
        fd, gsi = self.fds[act.fd], self.gsi_of.get(act.fd)
        os.eventfd_write(fd, act.n)
        if gsi is None:
            self.waiting.add(act.fd)
        else:
            self.waiting.discard(act.fd)
            if gsi not in self.routed:
                self.vm.irqfd(fd, gsi, deassign=True)
                self.vm.irqfd(fd, gsi)
        return 0, self.delivered()

    def read(self, act: Act) -> Done:
        """eventfd_read."""
        self.waiting.discard(act.fd)
        return os.eventfd_read(self.fds[act.fd]), self.delivered()

    def delivered(self) -> tuple[int, ...]:
        """The vectors in IRR, which is empty then."""
        found = vectors(self.vcpu.get_lapic(), APIC_IRR)
        if found:
            self.vcpu.set_lapic(self.image)
        return found


def is_settled(acts: tuple[Act, ...]) -> bool:
    """Whether no act leaves work for a worker that nothing waits for: a pending eventfd assigned where no route is.

    Such work is done with the route that is there when the worker comes to it.
    """
    routed: set[int] = set()
    assigned: dict[int, int] = {}
    waiting: set[int] = set()
    for act in acts:
        match act.what:
            case "route" if len({gsi for gsi, _ in act.table}) == len(act.table):
                if all(gsi < MAX_GSI for gsi, _ in act.table):
                    routed = {gsi for gsi, _ in act.table}
            case "assign" if act.fd < 3 and act.fd not in assigned:
                if act.fd in waiting and act.n not in routed:
                    return False
                assigned[act.fd] = act.n
            case "deassign" if assigned.get(act.fd) == act.n:
                del assigned[act.fd]
            case "write":
                (waiting.discard if act.fd in assigned else waiting.add)(act.fd)
            case "read":
                waiting.discard(act.fd)
    return True
