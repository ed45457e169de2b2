"""Every clause can fail: for each, a driver that is wrong in just that, and the clause it is cited with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from conformance.candidates.builtin.uio_msi.upstream import STATE_MUTEX, Upstream
from conformance.candidates.defects.uio_msi import DEFECTS
from conformance.candidates.defects.uio_msi.upstream import SetWithoutMsix
from conformance.model.step import Fault, Parallel, Step
from conformance.model.uio_msi import Config
from conformance.model.uio_msi.operations import (
    FIRST_FD,
    NEVER_OPENED_FD,
    PAGE,
    Bar,
    Close,
    CompatIoctl,
    ConfigIntx,
    DeviceReset,
    Flood,
    IrqSet,
    Open,
    OtherInterrupt,
    Probe,
    RaiseMany,
    RaiseVector,
    RawIoctl,
    Remove,
    ReuseFd,
    SetIntx,
    Write,
)
from conformance.specs.uio_msi import CLAUSES
from conformance.specs.uio_msi import constants as k
from conformance.strategies.uio_msi.domains import LAYOUTS
from tests.conformance.uio_msi import test_wrong_drivers as wrong
from tests.conformance.uio_msi.driving import INTX, SECOND, run
from tests.conformance.uio_msi.test_layouts import OwnBarAlone

ZOO = {defect.id: defect.candidate for defect in DEFECTS}
MSIX = Config()
OPENED = (Probe(), Open())
MAPPED = (*OPENED, IrqSet(0, FIRST_FD))
BOTH = (*MAPPED, IrqSet(1, SECOND))
UNSET = IrqSet(0, -1)
FEW = Step(Open(), (Fault("pci_enable_msix", 1),))
BUSY = (Fault("request_irq", -k.EBUSY),)
PORT = Config(vectors=0, bars=(Bar(0xE000, 0x20, io=True),))


def set_answers(when: Callable[[Any, int, int], bool], answer: int) -> type[Upstream]:
    """A driver whose set answers this, having done nothing, when the driver, the vector and the fd are such."""

    class Answers(Upstream):
        def _set(self, vector: int, fd: int) -> int:
            return answer if when(self, vector, fd) else super()._set(vector, fd)

    return Answers


def ioctl_answers(when: Callable[[int, int], bool], answer: int) -> type[Upstream]:
    """A driver whose ioctl answers this when command and pointer are such."""

    class Answers(Upstream):
        def ioctl(self, cmd: int, arg: int) -> int:
            return answer if when(cmd, arg) else super().ioctl(cmd, arg)

    return Answers


def changed(method: str, change: Callable[..., Any]) -> type[Upstream]:
    """A driver with `change(driver, the right method, *arguments)` in place of one of its methods."""

    def call(self: Upstream, *arguments: Any) -> Any:
        return change(self, getattr(super(kind, self), method), *arguments)

    kind = type("Changed", (Upstream,), {method: call})
    return kind


def after(method: str, then: Callable[[Any], Any]) -> type[Upstream]:
    """A driver that does something more after one of its methods."""

    def change(driver: Any, right: Callable[..., Any], *arguments: Any) -> Any:
        result = right(*arguments)
        then(driver)
        return result

    return changed(method, change)


def answering(method: str, answer: Callable[[Any, Any], Any]) -> type[Upstream]:
    """A driver that answers something else than one of its methods does; `answer(driver, right answer)`."""
    return changed(method, lambda driver, right, *arguments: answer(driver, right(*arguments)))


class CopiesUnderMutex(Upstream):
    def ioctl(self, cmd: int, arg: int) -> int:
        self.port.mutex_lock(0x180)
        err = super().ioctl(cmd, arg)
        self.port.mutex_unlock(0x180)
        return err


class FetchesTwice(Upstream):
    def ioctl(self, cmd: int, arg: int) -> int:
        self.port.copy_from_user(arg, 4)
        return super().ioctl(cmd, arg)


class LooksUpFirst(Upstream):
    def _set(self, vector: int, fd: int) -> int:
        found = self.port.eventfd_ctx_fdget(fd) if fd >= 0 else 0
        if found > 0:
            self.port.eventfd_ctx_put(found)
        return super()._set(vector, fd) if found >= 0 else found


class CachesContexts(Upstream):
    cache: dict[int, int]

    def _set(self, vector: int, fd: int) -> int:
        old = self.__dict__.setdefault("seen", {}).get(fd)
        err = super()._set(vector, fd)
        if old and not err and old != self.triggers[vector]:
            self.port.eventfd_ctx_put(self.triggers[vector])
            self.triggers[vector] = old
            self.port.eventfd_ctx_fdget(SECOND)
        elif not err and fd >= 0:
            self.__dict__["seen"][fd] = self.triggers[vector]
        return err


class KeepsOldTrigger(Upstream):
    def _attach_msix(self, vector: int, trigger: int) -> int:
        if self.triggers[vector]:
            self.port.eventfd_ctx_put(trigger)
            return 0
        return super()._attach_msix(vector, trigger)


class HalfPutBack(Upstream):
    """Puts the old eventfd back after a refusal, and not its handler."""

    def _attach_msix(self, vector: int, trigger: int) -> int:
        old = self.triggers[vector]
        if not old:
            return super()._attach_msix(vector, trigger)
        dev_id = self.contexts + 0x10 * vector
        self.port.free_irq(self.irqs[vector], dev_id)
        err = self.port.request_irq(self.irqs[vector], 0, self.names[vector], dev_id)
        self.triggers[vector] = old if err else trigger
        self.port.eventfd_ctx_put(trigger if err else old)
        return err


class LosesAnother(Upstream):
    def _attach_msix(self, vector: int, trigger: int) -> int:
        err = super()._attach_msix(vector, trigger)
        if err and self.triggers[1]:
            self._detach(1)
        return err


class OneForAll(Upstream):
    """Has the handler of the first vector serve the second one as well, whoever waits for that."""

    def _attach_msix(self, vector: int, trigger: int) -> int:
        return super()._attach_msix(vector, trigger) or self.port.request_irq(self.irqs[1], 0, 0, self.contexts)


class MissesHeldEvents(Upstream):
    def _attach_msix(self, vector: int, trigger: int) -> int:
        self.attaching = True
        err = super()._attach_msix(vector, trigger)
        self.attaching = False
        return err

    def handler(self, irq: int, dev_id: int) -> int:
        return k.IRQ_HANDLED if getattr(self, "attaching", False) else super().handler(irq, dev_id)


class DisablesFirst(Upstream):
    def _shut_down(self) -> None:
        self.port.pci_disable_msix()
        super()._shut_down()


class ReleasesInOrder(Upstream):
    """Disables the device before it releases its regions."""

    def remove(self) -> None:
        port, self.port = self.port, _Swapped(self.port)  # type: ignore[assignment]  # a port
        super().remove()
        self.port = port


class _Swapped:
    def __init__(self, port: Any) -> None:
        self._port = port

    def __getattr__(self, name: str) -> Any:
        other = {"pci_release_regions": "pci_disable_device", "pci_disable_device": "pci_release_regions"}
        return getattr(self._port, other.get(name, name))


class KeepsHandler(Upstream):
    """Drops the reference at the last release, and leaves the INTx handler on the line."""

    def _shut_down(self) -> None:
        self.old, self.triggers[0] = self.triggers[0], 0
        self.port.eventfd_ctx_put(self.old)
        super()._shut_down()
        self.port.pci_intx(1)

    def handler(self, irq: int, dev_id: int) -> int:
        self.triggers[0] = self.triggers[0] or self.old
        return super().handler(irq, dev_id)


class NeverUnderstands(Upstream):
    """Does not look whether there is an irq, and answers with a code of the kernel's own."""

    def _set_up(self, irq: int) -> int:
        return super()._set_up(irq or 1)

    def _set(self, vector: int, fd: int) -> int:
        return -k.ENOTSUPP if fd >= 0 else super()._set(vector, fd)


class TellsOnce(Upstream):
    """Masks whatever comes, and tells the user of it only after a set or a write."""

    told = False

    def handler(self, irq: int, dev_id: int) -> int:
        if self.msix or not self.told:
            self.told = True
            return super().handler(irq, dev_id)
        command = self.port.pci_read_config(k.PCI_COMMAND, 2)
        masked = command & k.PCI_COMMAND_INTX_DISABLE or not self.port.pci_check_and_mask_intx()
        return k.IRQ_NONE if masked else k.IRQ_HANDLED

    def _attach_intx(self, trigger: int) -> int:
        self.told = False
        return super()._attach_intx(trigger)


class SetsLate(SetWithoutMsix):
    """Uses the irq numbers that it remembers, without a word about the message."""

    def _attach_msix(self, vector: int, trigger: int) -> int:
        self.triggers[vector] = trigger
        return self.port.request_irq(self.irqs[vector], 0, self.names[vector], self.contexts + 0x10 * vector)


class BindsAnyway(Upstream):
    def _set_up(self, irq: int) -> int:
        self.max_vectors = 1
        return super()._set_up(irq) and self._allocate_tables()


@dataclass(frozen=True)
class Row:
    """A clause, a driver that breaks it, and the steps in which that shows."""

    clause: str
    driver: Any
    ops: tuple[Any, ...]
    config: Config = MSIX
    cited: str = ""
    """The neighbour that it is cited with, where it is not itself."""


def _bits(cmd: int) -> bool:
    return cmd != k.UIO_MSI_IRQ_SET and cmd & 0xFFFF == k.UIO_MSI_IRQ_SET & 0xFFFF


ROWS = (
    Row("UIO-001", ioctl_answers(lambda cmd, arg: cmd == 0, 0), (*OPENED, RawIoctl(0))),
    Row("UIO-002", ioctl_answers(lambda cmd, arg: cmd == 0 == arg, -k.EFAULT), (*OPENED, RawIoctl(0, 0))),
    Row("UIO-003", ioctl_answers(lambda cmd, arg: _bits(cmd), 0), (*OPENED, RawIoctl(0x8008_4987))),
    Row("UIO-004", ioctl_answers(lambda cmd, arg: arg == 0, 0), (*OPENED, RawIoctl(pointer=0))),
    Row("UIO-005", FetchesTwice, (*OPENED, UNSET)),
    Row("UIO-006", ioctl_answers(lambda cmd, arg: bool(arg % 8), -k.EINVAL), (*OPENED, RawIoctl(pointer=PAGE + 1))),
    Row("UIO-007", answering("compat_ioctl", lambda d, err: err or 1), (*OPENED, CompatIoctl())),
    Row("UIO-008", CopiesUnderMutex, (*OPENED, UNSET)),
    Row("UIO-009", set_answers(lambda d, vector, fd: vector == 9, 0), (*OPENED, IrqSet(9, FIRST_FD))),
    Row("UIO-010", LooksUpFirst, (*OPENED, IrqSet(9, FIRST_FD))),
    Row("UIO-011", LooksUpFirst, (*OPENED, IrqSet(9, NEVER_OPENED_FD))),
    Row("UIO-012", set_answers(lambda d, vector, fd: fd == -1, -k.EINVAL), (*MAPPED, UNSET)),
    Row("UIO-013", set_answers(lambda d, vector, fd: fd == -1, -k.EINVAL), (*OPENED, UNSET)),
    Row("UIO-014", set_answers(lambda d, vector, fd: fd == -2, -k.EBADF), (*MAPPED, IrqSet(0, -2))),
    Row(
        "UIO-015", set_answers(lambda d, v, fd: fd == NEVER_OPENED_FD, -k.EINVAL), (*OPENED, IrqSet(0, NEVER_OPENED_FD))
    ),
    Row("UIO-016", answering("_set", lambda d, err: err or 1), MAPPED),
    Row("UIO-017", after("_attach_msix", lambda d: d.port.eventfd_ctx_fdget(FIRST_FD)), MAPPED),
    Row("UIO-018", CachesContexts, (*MAPPED, ReuseFd(FIRST_FD), IrqSet(1, FIRST_FD))),
    Row("UIO-019", KeepsOldTrigger, (*MAPPED, IrqSet(0, SECOND))),
    Row("UIO-020", ZOO["UIO-D19"], (*MAPPED, IrqSet(0, NEVER_OPENED_FD))),
    Row("UIO-021", HalfPutBack, (*MAPPED, Step(IrqSet(0, SECOND), BUSY), RaiseVector(0)), cited="UIO-033"),
    Row("UIO-022", answering("_attach_msix", lambda d, err: err and -k.EIO), (*OPENED, Step(IrqSet(), BUSY))),
    Row("UIO-023", LosesAnother, (*BOTH, Step(IrqSet(0, SECOND), BUSY))),
    Row(
        "UIO-024", set_answers(lambda d, v, fd: v < 2 and d.triggers[v] != 0, -k.EBUSY), (*MAPPED, IrqSet(0, FIRST_FD))
    ),
    Row("UIO-025", set_answers(lambda d, v, fd: v == 1 and any(d.triggers), -k.EBUSY), (*MAPPED, IrqSet(1, FIRST_FD))),
    Row("UIO-026", ZOO["UIO-D08"], (*MAPPED, UNSET), INTX),
    Row("UIO-027", ZOO["UIO-U14"], (*MAPPED, Parallel(Step(SetIntx()), Step(IrqSet(0, SECOND)), (4,))), INTX),
    Row("UIO-028", ZOO["UIO-D09"], (*OPENED, SetIntx(), IrqSet(0, FIRST_FD)), INTX),
    Row("UIO-029", ZOO["UIO-D04"], (*MAPPED, Close(), Open(), IrqSet(0, FIRST_FD))),
    Row("UIO-030", SetsLate, (*OPENED, Parallel(Step(Remove()), Step(IrqSet(1, SECOND)), (6,)))),
    Row("UIO-032", ZOO["UIO-D35"], (*OPENED, DeviceReset(), IrqSet(0, FIRST_FD))),
    Row(
        "UIO-033", changed("handler", lambda d, right, irq, dev_id: right(irq, dev_id ^ 0x10)), (*BOTH, RaiseVector(0))
    ),
    Row("UIO-034", answering("handler", lambda d, handled: k.IRQ_NONE), (*MAPPED, RaiseVector(0))),
    Row("UIO-035", wrong.DropsTheSixtyFourth, (*MAPPED, RaiseMany(0, 300))),
    Row(
        "UIO-039",
        changed("_detach", lambda d, right, v: (d.port.eventfd_signal(d.triggers[v]), right(v))),
        (*MAPPED, UNSET),
    ),
    Row("UIO-040", KeepsHandler, (*MAPPED, Close(), SetIntx()), INTX, cited="UIO-027"),
    Row("UIO-041", OneForAll, (*MAPPED, RaiseVector(1))),
    Row("UIO-042", MissesHeldEvents, (*OPENED, RaiseVector(0), IrqSet(0, FIRST_FD))),
    Row("UIO-043", wrong.HeldEventToOld, (*MAPPED, Step(IrqSet(0, SECOND), during=((8, Step(RaiseVector(0))),)))),
    Row("UIO-044", after("_attach_msix", lambda d: d.port.eventfd_ctx_put(d.triggers[0])), MAPPED, cited="UIO-017"),
    Row("UIO-045", after("handler", lambda d: d.port.mutex_lock(STATE_MUTEX)), (*MAPPED, RaiseVector(0))),
    Row("UIO-047", wrong.EnablesTwice, OPENED),
    Row("UIO-048", ZOO["UIO-D01"], (Probe(), Step(Open(), (Fault("pci_enable_msix", -k.ENOMEM),)), Open())),
    Row("UIO-049", ZOO["UIO-D02"], (Probe(), FEW)),
    Row("UIO-050", answering("open", lambda d, err: err and -k.EBUSY), (Probe(), FEW)),
    Row(
        "UIO-051",
        answering("open", lambda d, e: e and -k.EIO),
        (Probe(), Step(Open(), (Fault("pci_enable_msix", -k.ENOMEM),))),
    ),
    Row("UIO-052", changed("release", lambda d, right: (d._shut_down(), 0)[1]), (*MAPPED, Open(), Close())),
    Row("UIO-053", changed("_shut_down", lambda d, right: d.port.pci_clear_master()), (*OPENED, Close())),
    Row("UIO-054", DisablesFirst, (*MAPPED, Close())),
    Row("UIO-055", answering("release", lambda d, err: 1), (*OPENED, Close())),
    Row("UIO-056", after("release", lambda d: setattr(d, "_switch_on", lambda: -k.EBUSY)), (*OPENED, Close(), Open())),
    Row("UIO-057", ZOO["UIO-U12"], (*OPENED, Close())),
    Row("UIO-058", ZOO["UIO-U04"], OPENED),
    Row("UIO-059", changed("probe", lambda d, right, *a: 0), (Probe(),)),
    Row("UIO-060", answering("probe", lambda d, err: err and -k.EIO), (Step(Probe(), (Fault("kcalloc", -k.ENOMEM),)),)),
    Row("UIO-061", ZOO["UIO-U17"], (Step(Probe(), (Fault("kasprintf", -k.ENOMEM, 2),)),)),
    Row("UIO-062", ZOO["UIO-D13"], (Step(Probe(), (Fault("ioremap", -k.ENOMEM, 2),)),)),
    Row("UIO-063", ReleasesInOrder, (Probe(), Remove())),
    Row("UIO-064", wrong.ReadySoon, tuple(Step(Probe(), during=((p, Step(Open())),)) for p in (49,))),
    Row("UIO-065", set_answers(lambda d, v, fd: v == 64, 0), (*OPENED, IrqSet(64, FIRST_FD)), Config(vectors=65)),
    Row("UIO-066", BindsAnyway, (Probe(),), Config(vectors=0, intx=False)),
    Row("UIO-067", changed("probe", lambda d, right, *a: -k.ENODEV), (Probe(),), INTX),
    Row("UIO-068", ZOO["UIO-D25"], OPENED, Config(msix_broken=True)),
    Row("UIO-069", answering("_maps", lambda d, maps: tuple(reversed(maps))), (Probe(),), INTX),
    Row("UIO-070", wrong.SixPorts, (Probe(),), Config(vectors=0, bars=(Bar(0xE000, 0x20, io=True),) * 6)),
    Row("UIO-071", ZOO["UIO-D28"], (Probe(),), Config(vectors=0, bars=(Bar(0xF000_0100, 0x80),))),
    Row("UIO-072", ZOO["UIO-U05"], (Probe(),), PORT),
    Row("UIO-073", ZOO["UIO-D34"], (Probe(),), Config(bridge=True)),
    Row("UIO-074", changed("remove", lambda d, right: d.port.uio_unregister_device()), (Probe(), Remove())),
    Row("UIO-075", ZOO["UIO-D15"], (*MAPPED, Remove())),
    Row("UIO-076", ZOO["UIO-U02"], (*OPENED, Remove(), Close()), Config(core_41=True)),
    Row("UIO-077", after("remove", lambda d: setattr(d, "probe", lambda *a: -k.EBUSY)), (Probe(), Remove(), Probe())),
    Row("UIO-078", ZOO["UIO-D07"], (*OPENED, Close()), INTX),
    Row("UIO-079", ZOO["UIO-D06"], MAPPED, INTX),
    Row("UIO-080", answering("handler", lambda d, handled: k.IRQ_HANDLED), (*MAPPED, OtherInterrupt()), INTX),
    Row("UIO-081", answering("handler", lambda d, handled: k.IRQ_NONE), (*MAPPED, SetIntx()), INTX),
    Row("UIO-082", ZOO["UIO-D11"], (*MAPPED, SetIntx(), OtherInterrupt()), INTX),
    Row("UIO-083", wrong.UnmasksForOneOnly, (*MAPPED, SetIntx(), Write(2)), INTX),
    Row("UIO-084", changed("_set_intx_mask", lambda d, right, masked: None), (*OPENED, Close(), Remove()), INTX),
    Row("UIO-085", ZOO["UIO-D18"], (Probe(),)),
    Row("UIO-087", ZOO["UIO-D32"], (*OPENED, Flood())),
    Row("UIO-089", ZOO["UIO-D38"], (Probe(), Open(rawio=False))),
    Row("UIO-090", NeverUnderstands, MAPPED, Config(vectors=0, irq=0)),
    Row("UIO-091", ZOO["UIO-L02"], (*OPENED, SetIntx()), INTX),
    Row("UIO-092", ZOO["UIO-L04"], (*OPENED, Close(), SetIntx()), INTX),
    Row("UIO-093", ZOO["UIO-L06"], (*MAPPED, Write(0)), INTX),
    Row("UIO-094", ZOO["UIO-L07"], MAPPED, Config(vectors=0, irq=0)),
    Row("UIO-095", TellsOnce, (*MAPPED, SetIntx(), ConfigIntx(False)), INTX),
    Row("UIO-096", OwnBarAlone, (Probe(),), LAYOUTS["2-beside"]),
)


def test_no_tested_clause_is_left_out() -> None:
    """The table is as long as the catalogue, but for what no driver can break."""
    assert [row.clause for row in ROWS] == [clause.id for clause in CLAUSES if not clause.untestable]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.clause)
def test_a_clause_can_fail(row: Row) -> None:
    """The driver that is wrong in this is cited with it, where the right one is not."""
    cited = row.cited or row.clause
    report = run(row.driver, *row.ops, config=row.config)
    found = [*report.warnings, *([report.failure] if report.failure else [])]

    assert cited in {failure.clause.id for failure in found}
    right = run(Upstream, *row.ops, config=row.config)
    assert not right.failure
    assert not right.warnings
