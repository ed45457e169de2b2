"""The generic code of KVM around the candidate: ioctls, VM entries and exits, reset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.environment.cet.registers import XSTATE
from conformance.specs.cet import clauses as c
from conformance.specs.cet.constants import MSRS, READ

if TYPE_CHECKING:
    from conformance.environment.cet.threads import Thread
    from conformance.environment.cet.world import Cet


def begin_ioctl(world: Cet, slot: int, cpu: int) -> Thread:
    """vcpu_load: register the notifier, then the candidate's hook."""
    threads = world.threads
    thread = threads.of_slot(slot)
    threads.switch_to(thread, cpu)
    threads.look_around(thread)
    world.atomic += 1
    thread.loaded = True
    world.enter(world.driver.vcpu_load, thread.number, cpu)
    world.atomic -= 1
    threads.window()
    return thread


def end_ioctl(world: Cet, thread: Thread, *, ran: bool = False) -> None:
    """vcpu_put and the way back to userspace, where somebody else could look."""
    fpu, onlookers = world.fpu, world.onlookers
    world.threads.window()
    world.atomic += 1
    world.enter(world.driver.vcpu_put, thread.number)
    thread.loaded = False
    world.atomic -= 1
    fpu.require_put(thread.number)
    world.processors.out_of_hands(thread.cpu)
    if not ran:
        onlookers.after_ioctl(thread)
    fpu.back_to_user(thread)
    onlookers.in_user_mode(thread.cpu)


def vm_entry(world: Cet, slot: int) -> Thread:
    """Bring the guest into hardware, and look at what it could read there."""
    threads, values = world.threads, world.values
    thread = threads.of_slot(slot)
    if not thread.on or world.frame.actor is not thread:
        threads.switch_to(thread, thread.cpu)
    number = thread.number
    world.atomic += 1
    world.enter(world.driver.enter_guest, number)
    world.fpu.before_entry(thread)
    regs = world.processors.files[thread.cpu]
    structure = world.structure
    level = structure.level(number)
    thread.l2 = level > 0
    bits = world.intercepts.at_entry(number, level)
    known = values.parts[number]
    for place in XSTATE:
        if regs[place] not in known and not bits >> 2 * place & READ:
            values.check(number, regs[place], f"enters with {hex(MSRS[place])} =")
    world.hold(c.NO_LEAK_BETWEEN_VCPUS)
    structure.enter(thread)
    if world.platform.host.sev_es:
        world.vmsa.enter(thread)
    return thread


def vm_exit(world: Cet, thread: Thread) -> None:
    """Save the guest's three registers, load the host's, let the candidate see the exit."""
    world.structure.leave(thread)
    if world.platform.host.sev_es:
        world.vmsa.leave(thread)
    world.processors.after_exit(thread.cpu)
    world.enter(world.driver.exit_guest, thread.number)
    world.atomic -= 1


def guest_exits(world: Cet, slot: int) -> Thread:
    """The guest runs up to an exit."""
    thread = vm_entry(world, slot)
    vm_exit(world, thread)
    return thread


def guest_runs(world: Cet, slot: int) -> None:
    """Enter the guest for a moment: it is looked at, and does nothing that matters here."""
    world.threads.window()
    guest_exits(world, slot)


def reset(world: Cet, thread: Thread, init: bool) -> None:
    """The candidate's part, then that of the guest, which starts over."""
    world.enter(world.driver.vcpu_reset, thread.number, init)
    if not init:
        world.vmsa.reset(thread.number)
        thread.l2 = False
    world.crs.boot(thread.number)
