"""The world of uio_msi, its drivers and its zoo."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from conformance.candidates.builtin.uio_msi.as_posted import AsPosted
from conformance.candidates.builtin.uio_msi.upstream import Upstream
from conformance.candidates.defect import Defect
from conformance.candidates.defects.uio_msi import DEFECTS
from conformance.candidates.load import Candidate, load
from conformance.engines import campaign, explore
from conformance.engines.context import Context
from conformance.environment import eventfd
from conformance.environment import uio_msi as environment
from conformance.environment.irq import Action, IrqCore
from conformance.environment.memory import UserMemory
from conformance.lockstep import Report, run_trace
from conformance.model.step import Fault, Parallel, Step
from conformance.model.uio_msi import Config
from conformance.model.uio_msi.operations import (
    DUP_FD,
    FIRST_FD,
    NEVER_OPENED_FD,
    NOT_EVENTFDS,
    O_PATH_FD,
    PAGE,
    PAGE_END,
    Close,
    CloseFd,
    DeviceReset,
    Flood,
    IrqSet,
    Open,
    OtherInterrupt,
    Probe,
    RaiseVector,
    ReadEventfd,
    Remove,
    SetIntx,
    Write,
)
from conformance.specs.clause import Clause
from conformance.specs.uio_msi import CLAUSES, PORTS_TYPE, PROFILES, Port
from conformance.specs.uio_msi import clauses as c
from conformance.specs.uio_msi import constants as k
from conformance.specs.uio_msi.constants import EAGAIN, EBADF, EBUSY, EINVAL, ENODEV, ENOMEM, ENOSPC, IRQF_SHARED
from conformance.strength import kill
from conformance.subsystem import subsystem
from conformance.trace import Trace, decode, encode
from conformance.verdict import Violation

S = subsystem("uio_msi")
INTX = Config(vectors=0)
SECOND = FIRST_FD + 1
BACKENDS = [eventfd.RealEventfds, eventfd.FastEventfds]


def steps(*ops: Any) -> tuple[Step, ...]:
    """Plain steps."""
    return tuple(op if isinstance(op, Step) else Step(op) for op in ops)


def run(factory: Callable[[Any], Any], *ops: Any, config: Config | None = None, profile: str = "upstream") -> Report:
    """Judge these operations on the default environment."""
    return run_trace(S, Trace("uio_msi", profile, config or Config(), steps(*ops)), factory, record=True)


def blamed(report: Report) -> str:
    """Id of the clause that ended the trace."""
    assert report.failure is not None
    return report.failure.clause.id


def warned(report: Report) -> set[str]:
    """Ids of the SHOULD clauses broken."""
    assert report.failure is None
    return {warning.clause.id for warning in report.warnings}


def walks(count: int, seed: int = 7) -> Iterator[Trace]:
    """Random traces of the correct driver."""
    candidate = load("builtin:upstream", S)
    context = Context(S, candidate, candidate.profile, seed=seed, steps=1)
    walker = campaign.Walker(context, Random(seed))
    walker.sample_pools()
    for _ in range(count):
        yield walker.walk()


# -- eventfds


@pytest.fixture(params=BACKENDS, ids=["real", "fast"])
def eventfds(request: pytest.FixtureRequest) -> Iterator[eventfd.Eventfds]:
    """Two eventfds and the decoy, in both backends."""
    kinds = [
        eventfd.Kind(3, True, True),
        eventfd.Kind(k.EVENTFD_MAX - 1, False, False),
        eventfd.Kind(9, False, True),
    ]
    made: eventfd.Eventfds = request.param(eventfd.World(kinds, DUP_FD, O_PATH_FD, NOT_EVENTFDS))
    yield made
    made.close()


def test_look_up_follows_the_kernel(eventfds: eventfd.Eventfds) -> None:
    """An eventfd by any number; -EINVAL for other files, -EBADF for none and for O_PATH."""
    assert [eventfds.fdget(fd) for fd in (FIRST_FD, SECOND, DUP_FD)] == [0, 1, 0]
    assert [eventfds.fdget(fd) for fd in NOT_EVENTFDS] == [-EINVAL] * 4
    assert [eventfds.fdget(fd) for fd in (O_PATH_FD, NEVER_OPENED_FD, 2**31 - 1)] == [-EBADF] * 3
    assert [eventfds.fdget(fd) for fd in (-1, -2, 0, 512, 2**64)] == [-EBADF] * 5
    assert eventfds.references() == (2, 1, 0)


def test_reference_is_to_the_object(eventfds: eventfd.Eventfds) -> None:
    """Closing the number, and reusing it, changes nothing for who holds a reference."""
    eventfds.fdget(FIRST_FD)

    assert eventfds.close_number(FIRST_FD) == 0
    assert eventfds.close_number(FIRST_FD) == -EBADF
    assert eventfds.fdget(FIRST_FD) == -EBADF
    eventfds.reuse_number(FIRST_FD, 2)
    eventfds.signal(0)

    assert eventfds.fdget(FIRST_FD) == 2
    assert eventfds.counters() == (4, k.EVENTFD_MAX - 1, 9)


def test_signals_saturate(eventfds: eventfd.Eventfds) -> None:
    """The last value is reached and kept, on a blocking eventfd as well."""
    eventfds.fdget(SECOND)
    for _ in range(3):
        eventfds.signal(1)

    assert eventfds.counters()[1] == k.EVENTFD_MAX


def test_reads_take_all_or_one(eventfds: eventfd.Eventfds) -> None:
    """EFD_SEMAPHORE takes 1, otherwise everything; nothing is -EAGAIN, on a blocking eventfd as well."""
    assert [eventfds.read(FIRST_FD) for _ in range(4)] == [1, 1, 1, -EAGAIN]
    assert [eventfds.read(SECOND) for _ in range(2)] == [k.EVENTFD_MAX - 1, -EAGAIN]


def test_pollers_are_woken_once_per_signal(eventfds: eventfd.Eventfds) -> None:
    """Although the counter was above 0 before."""
    eventfds.fdget(FIRST_FD)
    assert not eventfds.woken(0)

    eventfds.signal(0)

    assert eventfds.woken(0)
    assert not eventfds.woken(0)


def test_pipe_under_a_reused_number(eventfds: eventfd.Eventfds) -> None:
    """It is open, and no eventfd."""
    eventfds.reuse_number(FIRST_FD, None)

    assert eventfds.fdget(FIRST_FD) == -EINVAL


def test_nothing_stays_open() -> None:
    """The process has the descriptors it had before, whatever the driver left."""
    before = {path.name for path in Path("/proc/self/fd").iterdir()}

    run(AsPosted, Probe(), Open(), IrqSet(0, FIRST_FD), CloseFd(FIRST_FD), Remove(), profile="as-posted")

    assert {path.name for path in Path("/proc/self/fd").iterdir()} == before


def test_same_traces_same_verdicts_on_both_backends() -> None:
    """Results, views and environment calls of random traces agree step by step."""
    for trace in walks(40):
        real, fast = (
            run_trace(S, trace, Upstream, environment=env, record=True)
            for env in (environment.ENVIRONMENT, environment.FAST)
        )
        assert real.failure is None
        assert fast.failure is None
        assert [(r.result, r.got, r.calls) for r in real.steps] == [(r.result, r.got, r.calls) for r in fast.steps]


# -- memory and irqs


def test_fetch_stops_at_the_end_of_the_range() -> None:
    """And begins nowhere else."""
    memory = UserMemory(((PAGE, PAGE_END),))
    memory.place(PAGE_END - 6, b"abcdefgh")

    assert memory.fetch(PAGE_END - 6, 8) == b"abcdef"
    assert memory.fetch(PAGE_END - 8, 4) == b"\0\0ab"
    assert memory.fetch(PAGE_END, 1) == b""
    assert memory.fetch(PAGE - 1, 8) == b""


def test_lines_are_shared_only_by_consent() -> None:
    """-EBUSY unless both are shared; a shared one needs a dev_id; unknown irqs are -EINVAL."""
    core = IrqCore()
    core.add_line(5)

    assert core.request(6, 0, 0, 1) == -EINVAL
    assert core.request(5, IRQF_SHARED, 0, 0) == -EINVAL
    assert isinstance(core.request(5, IRQF_SHARED, 0, 1), Action)
    assert isinstance(core.request(5, IRQF_SHARED, 0, 2), Action)
    assert core.request(5, 0, 0, 3) == -EBUSY
    assert core.find(5, 2) is core.actions()[1]
    assert core.find(5, 3) is None


# -- the world


@pytest.fixture
def world() -> environment.UioMsi:
    """A function with two vectors, powered up, with a driver that handles every interrupt."""
    env = environment.FAST(Config(), PROFILES["upstream"])
    env.start(lambda _port: Idle())
    env.call("pci_enable_device")
    env.call("pci_set_master")
    return env


class Idle:
    """A driver that does nothing, and handles every interrupt."""

    def __getattr__(self, name: str) -> Callable[..., int]:
        return lambda *_: k.IRQ_HANDLED


def breaks(env: environment.UioMsi, name: str, *args: Any) -> Clause | None:
    """The clause that a call breaks."""
    with pytest.raises(Violation) as caught:
        env.call(name, *args)
    return caught.value.clause


def test_irq_numbers_are_new_at_every_enabling(world: environment.UioMsi) -> None:
    """Never a vector's number, never an earlier one's."""
    numbers: list[int] = []
    for _ in range(3):
        world.call("pci_enable_msix", (0, 1))
        numbers += [world.call("pci_irq_vector", vector) for vector in (0, 1)]
        world.call("pci_disable_msix")

    assert len(set(numbers)) == 6
    assert min(numbers) > k.MAX_MSIX_VECTORS
    assert world.call("pci_irq_vector", 0) == -EINVAL


def test_more_vectors_than_the_table_has(world: environment.UioMsi) -> None:
    """pci_enable_msix says how many there are; the range call takes them."""
    assert world.call("pci_enable_msix", tuple(range(5))) == 2
    assert world.call("pci_enable_msix", (0, 0)) == -EINVAL
    assert world.call("pci_enable_msix_range", tuple(range(5)), 3, 5) == -ENOSPC
    assert world.call("pci_enable_msix_range", tuple(range(5)), 1, 5) == 2


@pytest.mark.parametrize(
    ("call", "args", "result"),
    [
        ("pci_enable_msix", ((0, 1),), 1),
        ("pci_enable_msix_range", ((0, 1), 1, 2), 1),
        ("pci_enable_msix_range", ((0, 1), 2, 2), -ENOSPC),
        ("pci_alloc_irq_vectors", (1, 2), 1),
        ("pci_alloc_irq_vectors", (2, 2), -ENOSPC),
    ],
)
def test_shortage_is_met_by_every_way_of_enabling(
    world: environment.UioMsi, call: str, args: tuple[Any, ...], result: int
) -> None:
    """One planned refusal means the same whichever call the driver makes."""
    world.frame.plan = {("pci_enable_msix", 1): 1}

    assert world.call(call, *args) == result
    assert world.frame.given == {"pci_enable_msix": 1}


def test_vectors_hold_events_until_requested(world: environment.UioMsi) -> None:
    """The handler runs inside request_irq."""
    world.call("pci_enable_msix", (0, 1))
    world.perform(RaiseVector(1))
    assert world.view().pending == (False, True)

    irq = world.call("pci_irq_vector", 1)
    assert world.call("request_irq", irq, 0, 0, 7) == 0

    assert world.view().pending == (False, False)
    assert world.held[c.READY_BEFORE_REQUEST] == 1


def test_second_request_of_a_vector_is_busy(world: environment.UioMsi) -> None:
    """MSI-X vectors are not shared."""
    world.call("pci_enable_msix", (0,))
    irq = world.call("pci_irq_vector", 0)

    assert world.call("request_irq", irq, 0, 0, 7) == 0
    assert world.call("request_irq", irq, 0, 0, 8) == -EBUSY


def test_misuse_names_its_clause(world: environment.UioMsi) -> None:
    """Each wrong call on a world of its own."""
    fresh = [environment.FAST(Config(), PROFILES["upstream"]) for _ in range(24)]
    for env in fresh:
        env.start(lambda _port: Idle())
        env.call("pci_enable_device")
    worlds = iter(fresh)

    def broken(*calls: tuple[Any, ...]) -> Clause | None:
        env = next(worlds)
        for name, *args in calls[:-1]:
            env.call(name, *args)
        name, *args = calls[-1]
        return breaks(env, name, *args)

    enable = ("pci_enable_msix", (0, 1))
    first = environment.FIRST_IRQ
    assert broken(("request_irq", first, 0, 0, 1)) is c.NO_REQUEST_WHILE_DISABLED
    assert broken(enable, ("request_irq", 5, 0, 0, 1)) is c.CURRENT_IRQ_NUMBERS
    assert broken(enable, enable) is c.FIRST_OPEN_ENABLES
    assert broken(enable, ("request_irq", first, 0, 0, 1), ("free_irq", first, 2)) is c.FREE_MATCHES_REQUEST
    assert broken(enable, ("request_irq", first, 0, 0, 1), ("pci_disable_msix",)) is c.DISABLED_AFTER_LAST_FREE
    assert broken(enable, ("pci_disable_device",)) is c.REMOVE_WHILE_OPEN
    assert broken(("pci_disable_device",), ("pci_disable_device",)) is c.NOTHING_RELEASED_TWICE
    assert broken(("pci_release_regions",)) is c.NOTHING_RELEASED_TWICE
    assert broken(("iounmap", 1)) is c.NOTHING_RELEASED_TWICE
    assert broken(("kzalloc", 8), ("kfree", 0x1_0000), ("kfree", 0x1_0000)) is c.NOTHING_RELEASED_TWICE
    assert broken(("kfree", 0x1_0008)) is c.MEMORY_SAFE
    assert broken(("uio_unregister_device",)) is c.NOTHING_RELEASED_TWICE
    assert broken(("eventfd_ctx_put", environment.FIRST_CTX)) is c.ONE_REFERENCE_EACH
    assert broken(("eventfd_signal", environment.FIRST_CTX)) is c.REFERENCE_OUTLIVES_HANDLER
    assert broken(("eventfd_signal", 0)) is c.MEMORY_SAFE
    assert broken(("mutex_lock", 1), ("mutex_lock", 1)) is c.MEMORY_SAFE
    assert broken(("mutex_lock", 0x1_0000)) is c.MEMORY_SAFE
    assert broken(("mutex_unlock", 1)) is c.MEMORY_SAFE
    assert broken(("kzalloc", 8), ("mutex_init", 0x1_0000), ("mutex_lock", 0x1_0000), ("kfree", 0x1_0000)) is (
        c.MEMORY_SAFE
    )
    assert broken(("pci_write_config", k.PCI_COMMAND, 2, 0)) is c.MEMORY_SAFE
    assert broken(("copy_from_user", PAGE, 8)) is c.MEMORY_SAFE
    assert broken(("uio_register_device", "a", "b", -1, False, (("BAR0", 0, 0, 1, 1),) * 6, ())) is c.AT_MOST_FIVE
    assert broken(("spin_lock_irqsave", 1), ("mutex_lock", 2)) is c.MEMORY_SAFE
    assert broken(enable, ("request_irq", first, 0, 0x1_0000, 1)) is c.MEMORY_SAFE


def test_handlers_may_not_sleep() -> None:
    """Nor allocate, nor look an fd up."""
    for call, *args in (("mutex_lock", 1), ("kzalloc", 8), ("eventfd_ctx_fdget", FIRST_FD), ("free_irq", 1, 1)):

        class Sleeps(Upstream):
            """Sleeps in its handler."""

            def handler(self, irq: int, dev_id: int) -> int:
                getattr(self.port, call)(*args)  # noqa: B023  # called within this round
                return super().handler(irq, dev_id)

        assert blamed(run(Sleeps, Probe(), Open(), IrqSet(0, FIRST_FD), RaiseVector(0))) == "UIO-045"


def test_command_register_is_read_back(world: environment.UioMsi) -> None:
    """Config space shows mastering, the disable bit, the status and the capability."""
    cap = world.call("pci_find_capability", k.PCI_CAP_ID_MSIX)

    assert world.call("pci_read_config", k.PCI_COMMAND, 2) & k.PCI_COMMAND_MASTER
    assert world.call("pci_read_config", cap + k.PCI_MSIX_FLAGS, 2) & k.PCI_MSIX_FLAGS_QSIZE == 1
    assert world.call("pci_read_config", cap + k.PCI_MSIX_TABLE, 4) == 1
    assert world.call("pci_read_config", cap + k.PCI_MSIX_PBA, 4) == 0x800 | 1


# -- the correct driver


def test_upstream_walks_silently() -> None:
    """Random walks over all worlds find nothing, not even a warning, on the default environment."""
    for trace in walks(60, seed=11):
        report = run_trace(S, trace, Upstream)
        assert report.failure is None
        assert not report.warnings


LARGE = ("2,2,2", "intx-2,2", "unmerged")
"""Scopes that one driver's test is enough for."""


def explored(factory: type[Upstream], profile: str, walked: int = 0) -> Context:
    """What the gate's scopes find, or the smaller ones and some random steps."""
    candidate = Candidate("test", factory, profile, factory.capabilities)
    small = {name: scope for name, scope in S.scopes.items() if not walked or name not in LARGE}
    context = Context(replace(S, scopes=small), candidate, profile, steps=walked)
    explore.run(context)
    campaign.run(context)
    return context


def test_scopes_have_their_pinned_counts() -> None:
    """The correct driver reaches exactly the states that the model has, and breaks nothing."""
    context = explored(Upstream, "upstream")

    assert not context.failures
    assert not context.warnings
    for name, scope in S.scopes.items():
        if scope.in_gate and scope.states is not None and not scope.profiles:
            assert context.notes[f"{name}: states"] == scope.states, name
            assert context.notes[f"{name}: transitions"] == scope.transitions, name


class VfioLike(Upstream):
    """The correct driver with VFIO's choices."""

    profile = "vfio-like"

    def _set(self, vector: int, fd: int) -> int:
        if vector >= self.max_vectors:
            return -EINVAL
        if fd >= 0 and self.triggers[vector]:
            trigger = self.port.eventfd_ctx_fdget(fd)
            if trigger < 0 or self.msix:
                self._detach(vector)
            if trigger < 0:
                return trigger
            self.port.eventfd_ctx_put(trigger)
        return super()._set(vector, fd)

    def _attach_intx(self, trigger: int) -> int:
        old = self.triggers[0]
        if not old:
            return super()._attach_intx(trigger)
        self.triggers[0] = trigger
        self.port.synchronize_irq(self.irq)
        self.port.eventfd_ctx_put(old)
        return 0


def test_vfio_like_driver_is_not_accused() -> None:
    """In its own profile; the default one minds what it loses."""
    context = explored(VfioLike, "vfio-like", 15_000)

    assert [failure.signature for failure in context.failures] == []
    assert [warning.signature for warning in context.warnings] == []


class LinuxLike(Upstream):
    """Another correct driver: modern calls, swapped eventfds, the mutex taken late, one fetch per field."""

    def _switch_on(self) -> int:
        self.port.pci_set_master()
        self.irqs = [self.irq]
        if self.msix:
            count = self.port.pci_alloc_irq_vectors(1, self.max_vectors)
            if count < 0:
                self.port.pci_clear_master()
                return count
            self.irqs = [self.port.pci_irq_vector(vector) for vector in range(count)]
        return 0

    def ioctl(self, cmd: int, arg: int) -> int:
        if cmd != k.UIO_MSI_IRQ_SET:
            return -k.ENOTTY
        vector, fd = self.port.copy_from_user(arg, 4), self.port.copy_from_user(arg + 4, 4)
        if len(vector) + len(fd) < 8:
            return -k.EFAULT
        number = int.from_bytes(vector, "little")
        self.port.mutex_lock(0x100)
        if not self.bound:
            err = -ENODEV
        elif number >= len(self.irqs):
            err = -k.ERANGE
        else:
            err = self._set(number, struct.unpack("=i", fd)[0])
        self.port.mutex_unlock(0x100)
        return err

    def _attach_msix(self, vector: int, trigger: int) -> int:
        old = self.triggers[vector]
        if not old:
            return super()._attach_msix(vector, trigger)
        self.triggers[vector] = trigger
        self.port.synchronize_irq(self.irqs[vector])
        self.port.eventfd_ctx_put(old)
        return 0


def test_another_correct_driver_is_not_accused() -> None:
    """Fewer vectors when there are fewer, swapping instead of freeing, fields fetched one by one."""
    context = explored(LinuxLike, "upstream", 15_000)

    assert [failure.signature for failure in context.failures] == []
    assert [warning.signature for warning in context.warnings] == []


class UnregistersFirst(Upstream):
    """A correct driver for the 6.x core alone, which keeps callbacks out once the device is unregistered."""

    capabilities = frozenset(Upstream.capabilities - {"core-4.1"})

    def remove(self) -> None:
        port = self.port
        port.uio_unregister_device()
        if self.open_count:
            self._shut_down()
        if not self.msix:
            self._set_intx_mask(self.was_masked)
        self._free_tables()
        port.pci_release_regions()
        port.pci_disable_device()
        port.kfree(self.device)
        self._forget()


def test_driver_that_relies_on_the_new_core_is_not_accused() -> None:
    """Removal needs no exclusion of its own there."""
    context = explored(UnregistersFirst, "upstream", 15_000)

    assert [failure.signature for failure in context.failures] == []
    assert [warning.signature for warning in context.warnings] == []


class NamesAtSet(Upstream):
    """A correct driver that allocates a vector's name when it is mapped, under a spinlock-guarded table."""

    def _attach_msix(self, vector: int, trigger: int) -> int:
        name = self.port.kasprintf(f"vector {vector}")
        if not name:
            self.port.eventfd_ctx_put(trigger)
            return -ENOMEM
        old, self.names[vector] = self.names[vector], name
        err = super()._attach_msix(vector, trigger)
        if not err or not self.triggers[vector]:
            self.port.kfree(old)
            return err
        # The old action was installed again with the new name.
        self.port.kfree(old)
        return err

    def handler(self, irq: int, dev_id: int) -> int:
        self.port.spin_lock_irqsave(0x80)
        handled = super().handler(irq, dev_id)
        self.port.spin_unlock_irqrestore(0x80)
        return handled


def test_driver_that_allocates_late_is_not_accused() -> None:
    """A set that meets no memory fails and keeps the old mapping; handlers may hold a spinlock."""
    context = explored(NamesAtSet, "upstream", 15_000)

    assert [failure.signature for failure in context.failures] == []
    assert [warning.signature for warning in context.warnings] == []


class IntxByFlag(Upstream):
    """A correct driver with VFIO's masked flag under a spinlock, which puts the old eventfd back when it must."""

    masked = False

    def _set_masked(self, masked: bool) -> None:
        self.port.spin_lock_irqsave(0x80)
        self.masked = masked
        self.port.pci_intx(0 if masked else 1)
        self.port.spin_unlock_irqrestore(0x80)

    def _attach_intx(self, trigger: int) -> int:
        port, old = self.port, self.triggers[0]
        if old:
            port.free_irq(self.irq, self.contexts)
        self.triggers[0] = trigger
        self._set_masked(False)
        err = port.request_irq(self.irq, IRQF_SHARED, self.names[0], self.contexts)
        if not err:
            if old:
                port.eventfd_ctx_put(old)
            return 0
        port.eventfd_ctx_put(trigger)
        self.triggers[0] = old
        if old and port.request_irq(self.irq, IRQF_SHARED, self.names[0], self.contexts):
            self.triggers[0] = 0
            port.eventfd_ctx_put(old)
        return err

    def _detach(self, vector: int) -> None:
        if not self.msix:
            self._set_masked(True)
        super()._detach(vector)

    def irqcontrol(self, on: int) -> int:
        self.port.mutex_lock(0x100)
        err = -ENODEV
        if self.bound and self.open_count:
            if not self.msix:
                self._set_masked(not on)
            err = 0
        self.port.mutex_unlock(0x100)
        return err

    def handler(self, irq: int, dev_id: int) -> int:
        if self.msix:
            return super().handler(irq, dev_id)
        self.port.spin_lock_irqsave(0x80)
        mine = not self.masked and self.port.pci_check_and_mask_intx()
        if mine:
            self.masked = True
        self.port.spin_unlock_irqrestore(0x80)
        if not mine:
            return k.IRQ_NONE
        self.port.eventfd_signal(self.triggers[0])
        return k.IRQ_HANDLED


def test_driver_with_a_masked_flag_is_not_accused() -> None:
    """Whether INTx is masked it remembers itself; a refused set may unmask on the way."""
    context = explored(IntxByFlag, "upstream", 15_000)

    assert [failure.signature for failure in context.failures] == []
    assert [warning.signature for warning in context.warnings] == []


def test_traces_survive_their_files() -> None:
    """What is written is what is read, for random traces of every world."""
    for trace in walks(40, seed=3):
        assert decode(encode(trace), {"uio_msi": S.config}, {"uio_msi": S.operations}) == trace


class MsixOnly(Upstream):
    """A correct driver that can do no more than it must."""

    capabilities = frozenset()

    def _set_up(self, irq: int) -> int:
        return super()._set_up(irq) if self.port.pci_msix_vec_count() > 0 else -ENODEV


def test_driver_without_capabilities_is_judged_by_the_rest() -> None:
    """Every clause that applies to it is exercised, and none is broken."""
    context = explored(MsixOnly, "upstream", 15_000)
    applicable = {c for c in CLAUSES if c.applies("upstream", frozenset()) and not c.untestable}

    assert [failure.signature for failure in context.failures] == []
    assert applicable <= context.tally.clauses.keys()


# -- wrong drivers


@pytest.mark.parametrize("defect", [d for d in DEFECTS if d.candidate is not None], ids=lambda d: d.id)
def test_defect_is_killed_by_its_clause(defect: Defect) -> None:
    """Found, blamed on a clause the defect names, in no more steps than the facts give."""
    found = kill(S, defect, load(f"builtin:{defect.id}", S))

    assert found.failure is not None
    assert found.is_expected
    assert defect.steps is None or found.steps <= defect.steps


def test_zoo_is_complete() -> None:
    """Every defect of the posted driver and of its relatives has a driver or a reason."""
    ids = {defect.id for defect in DEFECTS}

    assert {f"UIO-D{n:02}" for n in range(1, 40)} | {f"UIO-U{n:02}" for n in range(1, 19)} <= ids
    assert all(bool(defect.why_not) != (defect.candidate is not None) for defect in DEFECTS)


ENABLE_FAILS = Step(Open(), (Fault("pci_enable_msix", -ENOMEM),))
NO_MEMORY = Step(Probe(), (Fault("kcalloc", -ENOMEM),))


@pytest.mark.parametrize(
    ("clause", "config", "ops"),
    [
        ("UIO-048", Config(), (Probe(), ENABLE_FAILS, Open())),
        ("UIO-049", Config(), (Probe(), Step(Open(), (Fault("pci_enable_msix", 1),)))),
        ("UIO-078", INTX, (Probe(),)),
        ("UIO-060", INTX, (NO_MEMORY,)),
        ("UIO-062", Config(), (Step(Probe(), (Fault("ioremap", -ENOMEM, 2),)),)),
        ("UIO-075", Config(), (Probe(), Open(), IrqSet(0, FIRST_FD), Remove())),
    ],
)
def test_posted_driver_fails(clause: str, config: Config, ops: tuple[Any, ...]) -> None:
    """The shortest traces of its defects, judged by what it meant to do."""
    assert blamed(run(AsPosted, *ops, config=config, profile="as-posted")) == clause


def test_posted_driver_works_where_nothing_is_refused() -> None:
    """Mapping, replacing, delivery and the last release are right in MSI-X mode."""
    ops = (Probe(), Open(), IrqSet(0, FIRST_FD), RaiseVector(0), IrqSet(0, SECOND), RaiseVector(0))
    report = run(AsPosted, *ops, ReadEventfd(SECOND), IrqSet(0, -1), Close(), Remove(), profile="as-posted")

    assert warned(report) == {"UIO-057"}


def test_posted_driver_floods_the_log() -> None:
    """UIO-087."""
    assert "UIO-087" in warned(run(AsPosted, Probe(), Open(), Flood(), profile="as-posted"))


def caught(factory: type[Upstream], *names: str) -> set[str]:
    """Ids of the clauses that a driver breaks in these scopes, SHOULD ones included."""
    candidate = Candidate("test", factory, "upstream", factory.capabilities)
    context = Context(replace(S, scopes={name: S.scopes[name] for name in names}), candidate, "upstream")
    explore.run(context)
    return {found.clause.id for found in (*context.failures, *context.warnings)}


class HeldEventToOld(Upstream):
    """The old eventfd stays until the new handler is there, so the event that was held is signalled to it."""

    def _attach_msix(self, vector: int, trigger: int) -> int:
        port, irq, old = self.port, self.irqs[vector], self.triggers[vector]
        if not old:
            return super()._attach_msix(vector, trigger)
        dev_id = self.contexts + 0x10 * vector
        port.free_irq(irq, dev_id)
        port.pci_write_msi_msg(irq)
        err = port.request_irq(irq, 0, self.names[vector], dev_id)
        self.triggers[vector] = 0 if err else trigger
        if err:
            port.eventfd_ctx_put(trigger)
        port.eventfd_ctx_put(old)
        return err


class DropsABit(Upstream):
    """Looks at the command without the upper bit of its size."""

    def ioctl(self, cmd: int, arg: int) -> int:
        return super().ioctl(cmd & ~(1 << 29), arg)


class CompatTakesAll(Upstream):
    """The 32-bit entry knows one command and so does not look at it."""

    def compat_ioctl(self, cmd: int, arg: int) -> int:
        return self.ioctl(k.UIO_MSI_IRQ_SET, arg)


class TrustsLateNames(Upstream):
    """Looks at the result of the first five allocations of names."""

    def _allocate_tables(self) -> int:
        self.contexts = self.port.kcalloc(self.max_vectors, 0x10)
        if not self.contexts:
            return -ENOMEM
        self.triggers = [0] * self.max_vectors
        self.names = [self.port.kasprintf(f"vector {vector}") for vector in range(self.max_vectors)]
        if all(self.names[:5]):
            return 0
        self._free_tables()
        return -ENOMEM


class TrustsTheSixthMap(Upstream):
    """Maps every BAR and looks at the result of the first five."""

    def _allocate_tables(self) -> int:
        maps = [self.port.ioremap(start, size) for _, _, start, size in self._bars()]
        if all(maps[:5]):
            return super()._allocate_tables()
        for token in filter(None, maps):
            self.port.iounmap(token)
        return -ENOMEM


class AnswersOne(Upstream):
    """A vector above the third answers 1."""

    def _set(self, vector: int, fd: int) -> int:
        return super()._set(vector, fd) or int(vector > 3)


class ThirtyTwoBits(Upstream):
    """Remembers what is mapped in a mask that has too few bits."""

    mask = 0

    def _set(self, vector: int, fd: int) -> int:
        err = super()._set(vector, fd)
        if vector < self.max_vectors:
            bit = 1 << vector % 32
            self.mask = self.mask | bit if self.triggers[vector] else self.mask & ~bit
        return err

    def _detach(self, vector: int) -> None:
        if self.open_count or self.mask >> vector % 32 & 1:
            super()._detach(vector)


class DropsTheSixtyFourth(Upstream):
    """Loses an event now and then."""

    events = 0

    def handler(self, irq: int, dev_id: int) -> int:
        self.events = (self.events + 1) % 64
        return super().handler(irq, dev_id) if self.events else k.IRQ_HANDLED


class ReadyTooLate(Upstream):
    """Allocates what a set needs once the device is registered."""

    scratch = 0

    def probe(self, irq: int, hdr_type: int, is_virtfn: bool) -> int:
        err = super().probe(irq, hdr_type, is_virtfn)
        if not err:
            self.scratch = self.port.kzalloc(8)
        return err

    def _set(self, vector: int, fd: int) -> int:
        if not self.scratch:
            raise RuntimeError("NULL dereference")
        return super()._set(vector, fd)


class EnablesTwice(Upstream):
    """Enables, has second thoughts, and enables again."""

    def _switch_on(self) -> int:
        err = super()._switch_on()
        if err or not self.msix:
            return err
        self.port.pci_disable_msix()
        return super()._switch_on()


class SixPorts(Upstream):
    """Has room for as many port regions as there are BARs."""

    def _ports(self, bars: list[tuple[int, int, int, int]]) -> PORTS_TYPE:
        return tuple(
            (f"BAR{bar}", start, size, k.UIO_PORT_X86) for bar, flags, start, size in bars if flags & k.IORESOURCE_IO
        )


class FetchesFirst(Upstream):
    """Fetches the argument, and only then looks at the command."""

    def ioctl(self, cmd: int, arg: int) -> int:
        if cmd != k.UIO_MSI_IRQ_SET:
            self.port.copy_from_user(arg, 8)
        return super().ioctl(cmd, arg)


class LocksTwice(Upstream):
    """Its handler takes a spinlock that it holds."""

    def handler(self, irq: int, dev_id: int) -> int:
        for _ in range(2):
            self.port.spin_lock_irqsave(0x200)
        handled = super().handler(irq, dev_id)
        for _ in range(2):
            self.port.spin_unlock_irqrestore(0x200)
        return handled


class UnlocksAnother(Upstream):
    """Takes one spinlock and gives another one back."""

    def _detach(self, vector: int) -> None:
        self.port.spin_lock_irqsave(0x300)
        self.port.spin_unlock_irqrestore(0x308)
        super()._detach(vector)


class KeepsTheSpinlock(Upstream):
    """Its handler returns with a spinlock held."""

    def handler(self, irq: int, dev_id: int) -> int:
        self.port.spin_lock_irqsave(0x200)
        return super().handler(irq, dev_id)


class ControlsNothing(Upstream):
    """Its irqcontrol follows a trigger that need not be there."""

    def irqcontrol(self, on: int) -> int:
        if not self.triggers[0]:
            raise RuntimeError("NULL dereference")
        return super().irqcontrol(on)


class UnmasksForOneOnly(Upstream):
    """Takes every number but 1 for a request to mask."""

    def irqcontrol(self, on: int) -> int:
        return super().irqcontrol(int(on == 1))


class Registers:
    """The port, with another irq for the UIO core."""

    def __init__(self, port: Port, irq: int) -> None:
        self.port = port
        self.irq = irq

    def __getattr__(self, name: str) -> Any:
        return getattr(self.port, name)

    def uio_register_device(self, name: str, version: str, _irq: int, *rest: Any) -> int:
        """Register with that irq."""
        return self.port.uio_register_device(name, version, self.irq, *rest)


class HasNoIrq(Upstream):
    """Tells the core that there is no interrupt, so that nobody can write."""

    def __init__(self, port: Port) -> None:
        super().__init__(Registers(port, k.UIO_IRQ_NONE))


class CoreTakesTheIrq(Upstream):
    """Has the core request the line, without a handler for it to call."""

    def __init__(self, port: Port) -> None:
        super().__init__(Registers(port, environment.PDEV_IRQ))


class MasksAtProbe(Upstream):
    """Masks INTx at probe, and leaves it so when a later step fails."""

    def _set_up(self, irq: int) -> int:
        err = super()._set_up(irq)
        if not self.msix:
            self.port.pci_intx(0)
        return err


class SmallTable(Upstream):
    """Takes fds above 1023 for a mistake of its own kind."""

    def _set(self, vector: int, fd: int) -> int:
        return -EINVAL if vector < self.max_vectors and 1024 <= fd < 2**17 else super()._set(vector, fd)


class ComplainsOfFds(Upstream):
    """Prints a line for each fd that is none."""

    def _set(self, vector: int, fd: int) -> int:
        err = super()._set(vector, fd)
        if err == -EBADF:
            self.port.dev_err("bad fd")
        return err


class KeepsMastering(Upstream):
    """Leaves bus mastering on when MSI-X cannot be enabled."""

    def _switch_on(self) -> int:
        err = super()._switch_on()
        if err:
            self.port.pci_set_master()
        return err


class TakesZeroForNone(Upstream):
    """Unmaps for fd 0 as well, which is the standard input of most processes and may be an eventfd."""

    def _set(self, vector: int, fd: int) -> int:
        return super()._set(vector, fd or -1)


class ComplainsOfCommands(Upstream):
    """Prints a line for each command that it does not know."""

    def ioctl(self, cmd: int, arg: int) -> int:
        err = super().ioctl(cmd, arg)
        if err == -k.ENOTTY:
            self.port.dev_err("unknown command")
        return err


class ComplainsOfRefusals(Upstream):
    """Prints a line when request_irq fails."""

    def _attach_msix(self, vector: int, trigger: int) -> int:
        err = super()._attach_msix(vector, trigger)
        if err:
            self.port.dev_warn("request_irq failed")
        return err


class HandlesByCapability(Upstream):
    """Takes every interrupt of a function with the MSI-X capability for a message, also after falling back."""

    def handler(self, irq: int, dev_id: int) -> int:
        if self.port.pci_msix_vec_count() < 0:
            return super().handler(irq, dev_id)
        self.port.eventfd_signal(self.triggers[0])
        return k.IRQ_HANDLED


class RemembersTheFirstMask(Upstream):
    """Restores what the first probe found, whatever a later one finds."""

    first: int | None = None

    def _set_intx_mask(self, masked: bool) -> None:
        if self.first is None:
            self.first = masked
        super()._set_intx_mask(bool(self.first))


class CountsBrokenOpens(Upstream):
    """Counts an open before it enables, and forgets to take one kind of failure back."""

    def open(self) -> int:
        err = super().open()
        if err == -k.EIO:
            self.open_count += 1
        return err


class SharesItsNotes(Upstream):
    """Keeps the vector that interrupted in one place for all handlers."""

    vector = 0

    def handler(self, irq: int, dev_id: int) -> int:
        if not self.msix:
            return super().handler(irq, dev_id)
        self.vector = (dev_id - self.contexts) // 0x10
        self.port.uio_event_notify()
        self.port.eventfd_signal(self.triggers[self.vector])
        return k.IRQ_HANDLED


class ReadySoon(Upstream):
    """Says that it is bound once the device is registered, so that an open that follows at once fails."""

    def __init__(self, port: Port) -> None:
        super().__init__(port)
        self.is_probed = False

    def probe(self, irq: int, hdr_type: int, is_virtfn: bool) -> int:
        self.is_probed = False
        err = super().probe(irq, hdr_type, is_virtfn)
        self.is_probed = not err
        return err

    def open(self) -> int:
        return super().open() if self.is_probed else -ENODEV


class CompatWithoutMutex(Upstream):
    """Takes the mutex for 64-bit callers only."""

    def compat_ioctl(self, cmd: int, arg: int) -> int:
        if cmd != k.UIO_MSI_IRQ_SET:
            return -k.ENOTTY
        data = self.port.copy_from_user(arg, 8)
        if len(data) < 8:
            return -k.EFAULT
        return self._set(*struct.unpack("=Ii", data)) if self.bound else -ENODEV


WRONG: tuple[tuple[type[Upstream], str, str], ...] = (
    (HeldEventToOld, "UIO-043", "inside"),
    (DropsABit, "UIO-003", "inputs"),
    (CompatTakesAll, "UIO-007", "inputs"),
    (TrustsLateNames, "UIO-060", "probes-64"),
    (TrustsTheSixthMap, "UIO-060", "probes-six-bars"),
    (AnswersOne, "UIO-016", "vectors"),
    (ThirtyTwoBits, "UIO-054", "vectors-far"),
    (DropsTheSixtyFourth, "UIO-035", "many"),
    (ReadyTooLate, "UIO-064", "open-inside-probe"),
    (EnablesTwice, "UIO-047", "1,1,1"),
    (SixPorts, "UIO-070", "world-20"),
    (FetchesFirst, "UIO-001", "inputs"),
    (LocksTwice, "UIO-078", "many"),
    (UnlocksAnother, "UIO-078", "1,1,1"),
    (KeepsTheSpinlock, "UIO-078", "many"),
    (ControlsNothing, "UIO-078", "inputs"),
    (UnmasksForOneOnly, "UIO-083", "intx-writes"),
    (HasNoIrq, "UIO-083", "intx-writes"),
    (CoreTakesTheIrq, "UIO-078", "intx-writes"),
    (MasksAtProbe, "UIO-061", "intx-probes"),
    (SmallTable, "UIO-015", "inputs"),
    (ComplainsOfFds, "UIO-087", "flood"),
    (KeepsMastering, "UIO-057", "probes"),
    (TakesZeroForNone, "UIO-015", "inputs"),
    (ComplainsOfCommands, "UIO-087", "flood"),
    (ComplainsOfRefusals, "UIO-087", "flood"),
    (HandlesByCapability, "UIO-081", "intx-fallback"),
    (RemembersTheFirstMask, "UIO-084", "intx-bindings"),
    (CountsBrokenOpens, "UIO-048", "probes"),
    (ReadySoon, "UIO-064", "open-inside-probe"),
)
"""(driver, clause it breaks, scope that shows it)."""


@pytest.mark.parametrize(("factory", "clause", "scope"), WRONG, ids=lambda value: getattr(value, "__name__", None))
def test_wrong_driver_is_caught(factory: type[Upstream], clause: str, scope: str) -> None:
    """By the scope that is about it, and under the clause's own name."""
    assert clause in caught(factory, scope)


def test_handlers_of_two_vectors_at_once() -> None:
    """What one of them notes down the other must not overwrite."""
    both = (Probe(), Open(), IrqSet(0, FIRST_FD), IrqSet(1, SECOND))
    race = Parallel(Step(RaiseVector(0)), Step(RaiseVector(1)), (0,))

    assert run(Upstream, *both, race).failure is None
    assert blamed(run(SharesItsNotes, *both, race)) == "UIO-033"


def test_compat_calls_exclude_others_too() -> None:
    """UIO-007: found among the races."""
    race = S.races["compat-set"]
    found = {
        blamed(report)
        for k in range(30)
        if (report := run(CompatWithoutMutex, *race.steps, Parallel(race.left, race.right, (k,)))).failure
    }

    assert found & {"UIO-026", "UIO-007", "UIO-017"}


class TriesAgain(Upstream):
    """A correct driver that is content with one vector when it cannot have all."""

    def _switch_on(self) -> int:
        err = super()._switch_on()
        if not err or not self.msix or self.port.pci_enable_msix((0,)):
            return err
        self.port.pci_set_master()
        self.irqs = [self.port.pci_irq_vector(0)]
        return 0

    def _set(self, vector: int, fd: int) -> int:
        return super()._set(vector, fd) if vector < len(self.irqs) else -k.ERANGE


@pytest.mark.parametrize("refusal", [-ENOMEM, -ENOSPC, 1, 3])
def test_a_further_attempt_may_enable_fewer(refusal: int) -> None:
    """UIO-050, UIO-051: nothing is forwarded where in the end nothing failed."""
    refused = Step(Open(), (Fault("pci_enable_msix", refusal),))
    ops = (Probe(), refused, IrqSet(0, FIRST_FD), RaiseVector(0), IrqSet(1, FIRST_FD), Close(), Open())

    report = run(TriesAgain, *ops, config=Config(vectors=4))

    assert report.failure is None
    assert warned(report) == set()


def test_shortage_by_another_name() -> None:
    """UIO-050 is a SHOULD, and what VFIO answers is as good as -ENOSPC."""

    class SaysBusy(Upstream):
        """Answers -EBUSY when there are too few vectors."""

        def open(self) -> int:
            err = super().open()
            return -EBUSY if err == -ENOSPC else err

    short = Step(Open(), (Fault("pci_enable_msix", 1),))

    assert warned(run(SaysBusy, Probe(), short)) == {"UIO-050"}


def test_unprivileged_open_may_be_denied_by_another_errno() -> None:
    """UIO-089 names none."""

    class DeniesAccess(Upstream):
        """Answers -EACCES."""

        def open(self) -> int:
            err = super().open()
            return -k.EACCES if err == -k.EPERM else err

    report = run(DeniesAccess, Probe(), Open(rawio=False), Open())

    assert report.failure is None
    assert warned(report) == set()


def test_open_that_is_refused_during_probe_is_no_fault_of_the_driver() -> None:
    """UIO-064 asks that what an open needs is there, not that it succeeds."""
    for point in range(60):
        for inner in (Open(rawio=False), Step(Open(), (Fault("pci_enable_msix", -ENOMEM),))):
            (step,) = steps(inner)
            assert run(Upstream, Step(Probe(), during=((point, step),))).failure is None


def test_message_that_nobody_saw_written_may_be_missing() -> None:
    """UIO-032 stays a SHOULD when a set after a reset was undone beside another thread."""
    factory = load("builtin:UIO-D35", S).factory
    race = Parallel(Step(IrqSet(0, FIRST_FD)), Step(IrqSet(0, -1)))

    report = run(factory, Probe(), Open(), DeviceReset(), race, IrqSet(0, FIRST_FD))

    assert warned(report) == {"UIO-032"}


def test_locks_may_lie_anywhere_in_a_large_allocation() -> None:
    """Not in its first page only."""

    class LocksFarOut(Upstream):
        """Keeps a spinlock behind two pages of data."""

        def _allocate_tables(self) -> int:
            self.block = self.port.kcalloc(64, 128)
            return super()._allocate_tables()

        def _free_tables(self) -> None:
            super()._free_tables()
            self.port.kfree(self.block)

        def handler(self, irq: int, dev_id: int) -> int:
            self.port.spin_lock_irqsave(self.block + 0x1800)
            handled = super().handler(irq, dev_id)
            self.port.spin_unlock_irqrestore(self.block + 0x1800)
            return handled

    assert run(LocksFarOut, Probe(), Open(), IrqSet(0, FIRST_FD), RaiseVector(0), Close(), Remove()).failure is None


class StoresUnlocked(Upstream):
    """Its handler reads the eventfd under a spinlock, and whoever swaps it does without."""

    def _attach_intx(self, trigger: int) -> int:
        old = self.triggers[0]
        if not old:
            return super()._attach_intx(trigger)
        self.triggers[0] = trigger
        self.port.eventfd_ctx_put(old)
        self.port.pci_intx(1)
        return 0

    def handler(self, irq: int, dev_id: int) -> int:
        self.port.spin_lock_irqsave(0x80)
        handled = super().handler(irq, dev_id)
        self.port.spin_unlock_irqrestore(0x80)
        return handled


def test_spinlock_of_a_handler_keeps_nobody_else_out() -> None:
    """UIO-027: another CPU goes on while the handler holds it."""
    race = S.races["replace-intx"]
    found = {
        blamed(report)
        for k in range(12)
        for n in range(1, 10)
        if (
            report := run(StoresUnlocked, *race.steps, Parallel(race.right, race.left, (k, k + n)), config=INTX)
        ).failure
    }

    assert "UIO-027" in found


def test_falling_back_needs_intx() -> None:
    """Without it, there is no mode left in which an open could succeed (UIO-066, UIO-068)."""

    class FallsBackToNothing(Upstream):
        """Falls back where MSI-X fails, whether INTx can be masked or not."""

        def _set_up(self, irq: int) -> int:
            err = super()._set_up(irq)
            if not err or self.msix:
                return err
            self.max_vectors = 1
            return self._allocate_tables()

    broken = Config(msix_broken=True, intx=False)

    assert blamed(run(FallsBackToNothing, Probe(), Open(), config=broken)) == "UIO-068"


def test_driver_that_does_nothing_fails() -> None:
    """At once: probe says 0 and nothing is registered."""

    class Nothing:
        """Returns 0 from everything."""

        def __init__(self, port: Port) -> None:
            pass

        def __getattr__(self, name: str) -> Callable[..., int]:
            return lambda *_: 0

    assert blamed(run(Nothing, Probe())) == "UIO-059"


# -- what single clauses need


def test_fetching_twice_is_a_breach() -> None:
    """UIO-005."""

    class Twice(Upstream):
        """Fetches the argument once for the range check and again for use."""

        def ioctl(self, cmd: int, arg: int) -> int:
            if cmd == k.UIO_MSI_IRQ_SET:
                self.port.copy_from_user(arg, 4)
            return super().ioctl(cmd, arg)

    assert blamed(run(Twice, Probe(), Open(), IrqSet(0, FIRST_FD))) == "UIO-005"


def test_event_while_replacing_is_delivered_once() -> None:
    """UIO-043 is counted when an event meets the gap between the old handler and the new one."""
    mapped = (Probe(), Open(), IrqSet(0, FIRST_FD))
    counted = 0
    for point in range(16):
        report = run(Upstream, *mapped, Step(IrqSet(0, SECOND), during=((point, Step(RaiseVector(0))),)))
        assert report.failure is None
        counted += report.tally.clauses.get(c.EVENT_WHILE_REPLACING, 0)

    assert counted > 0


def test_free_irq_waits_for_a_running_handler() -> None:
    """Detaching beside a handler that is about to signal."""
    race = Parallel(Step(RaiseVector(0)), Step(IrqSet(0, -1)), (0,))

    report = run(Upstream, Probe(), Open(), IrqSet(0, FIRST_FD), race)

    assert report.failure is None


def test_removal_waits_for_an_ioctl_with_the_new_core_only() -> None:
    """With the old one the driver itself must survive a set that comes too late."""
    race = Parallel(Step(IrqSet(0, FIRST_FD)), Step(Remove()), (1,))

    for core_41 in (False, True):
        assert run(Upstream, Probe(), Open(), race, config=Config(core_41=core_41)).failure is None


def test_write_that_meets_removal_after_falling_back() -> None:
    """The driver answers -ENODEV, as the core does after removal, also where MSI-X could not be used."""
    race = Parallel(Step(Write()), Step(Remove()), (0,))

    report = run(Upstream, Probe(), Open(), IrqSet(0, FIRST_FD), race, config=Config(msix_broken=True, core_41=True))

    assert report.failure is None


def test_shared_line_of_intx() -> None:
    """Another device's interrupts leave ours alone before, while and after it is asserted."""
    ops = (Probe(), Open(), IrqSet(0, FIRST_FD), OtherInterrupt(), SetIntx(True), OtherInterrupt())
    report = run(Upstream, *ops, SetIntx(False), OtherInterrupt(), Close(), Remove(), config=INTX)

    assert report.failure is None
    assert warned(report) == set()


def test_flood_returns_the_result_that_differs() -> None:
    """A driver that tires of refusing is not excused by a thousand results being summed up."""

    class Tires(Upstream):
        """Accepts the hundredth bad set."""

        sets = 0

        def _set(self, vector: int, fd: int) -> int:
            self.sets += 1
            return 5 if self.sets == 100 else super()._set(vector, fd)

    assert blamed(run(Tires, Probe(), Open(), Flood())) == "UIO-009"
