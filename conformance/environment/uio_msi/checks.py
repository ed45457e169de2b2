"""What neither result nor view of a step shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from conformance.environment.uio_msi.log import LOG_BURST
from conformance.environment.uio_msi.operations import FLOOD
from conformance.model.uio_msi.ioctls import is_readable
from conformance.model.uio_msi.operations import (
    Bar,
    Close,
    CompatIoctl,
    CompatIrqSet,
    Config,
    Flood,
    FloodOpens,
    FloodWrites,
    IrqSet,
    Open,
    Probe,
    RawIoctl,
    Remove,
    SetIntx,
    Write,
)
from conformance.specs.uio_msi import clauses as c
from conformance.specs.uio_msi import constants as k
from conformance.specs.uio_msi.constants import PAGE_SIZE
from conformance.subsystem import Check, Record

if TYPE_CHECKING:
    from conformance.environment.uio_msi.world import UioMsi


def _world(record: Record) -> UioMsi:
    world: UioMsi = record.env  # type: ignore[assignment]  # the only environment of this subsystem
    return world


def _exports_bars(record: Record) -> bool | str:
    """mem[] and port[] follow the BARs (UIO-069); BARs with the MSI-X table may be left out, or split around it."""
    if record.result:
        return False
    world = _world(record)
    wrong = _wrong_ports(world) or _wrong_maps(world)
    return wrong or True


def _shown(entry: Any) -> str:
    """An entry of mem[] or port[] as the report shows the call that registered it: addresses and sizes in hex."""
    parts = (hex(part) if isinstance(part, int) and part >= PAGE_SIZE else repr(part) for part in entry)
    return f"({', '.join(parts)})"


def _all_shown(entries: Sequence[Any]) -> str:
    return f"[{', '.join(map(_shown, entries))}]"


def _wrong_ports(world: UioMsi) -> str:
    ports = [(i, bar) for i, bar in enumerate(world.config.bars) if bar.start and bar.size and bar.io]
    wanted = [(f"BAR{i}", bar.start, bar.size, k.UIO_PORT_X86) for i, bar in ports][: k.MAX_UIO_PORT_REGIONS]
    got = [tuple(port) for port in world.uio.port_regions]
    return "" if got == wanted else f"port[] is {_all_shown(got)}, expected {_all_shown(wanted)}"


def _wrong_maps(world: UioMsi) -> str:
    guarded = _guarded(world)
    rest = [tuple(entry) for entry in world.uio.mem]
    expected = [(i, bar) for i, bar in enumerate(world.config.bars) if bar.start and bar.size and not bar.io]
    for i, bar in expected:
        if len(world.uio.mem) - len(rest) >= k.MAX_UIO_MAPS:
            break
        mine = [entry for entry in rest if entry[0] == f"BAR{i}"]
        if rest[: len(mine)] != mine:
            return f"mem[] is {_all_shown(world.uio.mem)}: BAR{i} is not in its place"
        rest = rest[len(mine) :]
        if any(not _lies_within(entry, bar) for entry in mine):
            return f"mem[] has {_all_shown(mine)} for BAR{i} at {bar.start:#x}, {bar.size:#x} bytes"
        if i not in guarded and (len(mine) != 1 or not _is_whole(mine[0], bar)):
            return f"mem[] has {_all_shown(mine)} for BAR{i} at {bar.start:#x}, {bar.size:#x} bytes"
    return f"mem[] has {_all_shown(rest)} for no BAR" if rest else ""


def _guarded(world: UioMsi) -> set[int]:
    """BARs that need not be exported whole: those of the MSI-X table and the pending bits, and those in their pages."""
    config = world.config
    if not config.vectors:
        return set()
    guarded = {config.table_bar, config.pba_bar}
    for _, _, _, low, high in _private(config):
        for i, bar in enumerate(config.bars):
            first, _, length = _pages(bar)
            if bar.size and first < high and low < first + length:
                guarded.add(i)
    return guarded


def _private(config: Config) -> Iterator[tuple[str, int, int, int, int]]:
    """Table and pending bits where the device has the BAR: name, BAR, address, and their pages from and to."""
    for name, bar, offset, size in (
        ("MSI-X table", config.table_bar, config.table_offset, config.vectors * k.PCI_MSIX_ENTRY_SIZE),
        ("pending bits", config.pba_bar, config.pba_offset, (config.vectors + 63) // 64 * 8),
    ):
        if bar < len(config.bars):
            start = config.bars[bar].start + offset
            yield name, bar, start, start & -PAGE_SIZE, start + size + PAGE_SIZE - 1 & -PAGE_SIZE


def _is_whole(entry: Any, bar: Bar) -> bool:
    """As the resource says, or widened to whole pages with an offset (UIO-071)."""
    _, addr, offs, size, kind = entry
    if kind != k.UIO_MEM_PHYS:
        return False
    if (addr, offs, size) == (bar.start, 0, bar.size):
        return True
    return bool((addr, offs, size) == _pages(bar))


def _pages(bar: Bar) -> tuple[int, int, int]:
    first = bar.start & -PAGE_SIZE
    end = bar.start + bar.size + PAGE_SIZE - 1 & -PAGE_SIZE
    return first, bar.start - first, end - first


def _lies_within(entry: Any, bar: Bar) -> bool:
    _, addr, _, size, kind = entry
    first, _, length = _pages(bar)
    return bool(kind == k.UIO_MEM_PHYS and size > 0 and first <= addr and addr + size <= first + length)


def _hides_table(record: Record) -> bool | str:
    """No exported page of their BARs holds MSI-X table or pending bits (UIO-085)."""
    world = _world(record)
    if record.result or not _is_private(world):
        return False
    return _overlap(world, [entry for entry in world.uio.mem if entry[0] not in _others(world.config)]) or True


def _hides_pages(record: Record) -> bool | str:
    """Nor does any of other BARs (UIO-096)."""
    world = _world(record)
    if record.result or not _is_private(world):
        return False
    others = _others(world.config)
    wrong = _overlap(world, [entry for entry in world.uio.mem if entry[0] in others])
    return wrong or any(f"BAR{bar}" in others for bar in _guarded(world))


def _others(config: Config) -> set[str]:
    """Names of the BARs that hold neither."""
    return {f"BAR{i}" for i in range(len(config.bars))} - {f"BAR{bar}" for _, bar, *_ in _private(config)}


def _is_private(world: UioMsi) -> bool:
    """Whether who writes the MSI-X table makes the device write anywhere."""
    return bool(world.config.vectors) and not world.config.remapping and world.profile.security != "posted"


def _overlap(world: UioMsi, entries: Sequence[Any]) -> str:
    for name, _, start, first, end in _private(world.config):
        for entry in entries:
            if entry[1] < end and first < entry[1] + entry[3]:
                return f"mem[] exports {_shown(entry)}, which overlaps the {name} at {start:#x}"
    return ""


def _maps_small_bars(record: Record) -> bool | str:
    """Unaligned BARs, and those smaller than a page, are widened to pages (UIO-071)."""
    world = _world(record)
    if record.result:
        return False
    small = False
    for entry in world.uio.mem:
        bar = world.config.bars[int(entry[0].removeprefix("BAR"))]
        if bar.start % PAGE_SIZE or bar.size % PAGE_SIZE:
            small = True
            if entry[1] % PAGE_SIZE or entry[3] % PAGE_SIZE:
                return f"mem[] has {_shown(entry)}, which the core refuses to map"
    return small


def _released_in_order(record: Record) -> bool | str:
    """What was acquired last goes first (UIO-063)."""
    world = _world(record)
    return world.device.disorder or type(record.op) is Remove or record.result != 0


def _leaves_intx_as_found(record: Record) -> bool | str:
    world = _world(record)
    if world.config.vectors and record.before.msix is not False:
        return False
    now, found = world.intx.disable_bit, world.intx.found_disable_bit
    return now == found or f"the disable bit is {now} after remove and was {found} at probe"


def _failed_probe_keeps_intx(record: Record) -> bool | str:
    """A failed probe leaves the disable bit as it was (UIO-061); the kernel itself moves it for MSI-X."""
    world = _world(record)
    if record.result == 0 or (world.config.vectors and not world.config.msix_broken):
        return False
    now, found = world.intx.disable_bit, world.intx.found_disable_bit
    return now == found or f"the disable bit is {now} after a failed probe and was {found} before"


_ENABLING = frozenset({"pci_enable_msix", "pci_enable_msix_range", "pci_alloc_irq_vectors"})
_DISABLING = frozenset({"pci_disable_msix", "pci_free_irq_vectors"})


def _enables_once(record: Record) -> bool | str:
    """The first open enables MSI-X once and leaves it so; later ones do neither (UIO-047)."""
    before = record.before
    if record.result or record.given or before.life != "bound" or not record.after.msix:
        return False
    touched = [name for name, _, result in record.calls if _enabled(name, result) or name in _DISABLING]
    if len(touched) == (0 if before.opens else 1):
        return True
    which = "a further" if before.opens else "the first"
    return f"{which} open called {', '.join(touched) or 'nothing that enables MSI-X'}"


def _enabled(name: str, result: int) -> bool:
    return name in _ENABLING and (result == 0 if name == "pci_enable_msix" else result > 0)


_HARMLESS = frozenset(
    {
        *("mutex_init", "mutex_lock", "mutex_unlock", "spin_lock_irqsave", "spin_unlock_irqrestore"),
        *("dev_err", "dev_warn", "dev_info", "dev_err_ratelimited", "capable", "pci_get_drvdata"),
    }
)
"""Calls that change nothing and look at nothing of the caller's."""


def _ignores_unknown_commands(record: Record) -> bool | str:
    """An unknown command is refused before anything is fetched, looked up or changed (UIO-001)."""
    if _command(record) == k.UIO_MSI_IRQ_SET or record.before.life != "bound":
        return False
    made = {call[0] for call in record.calls} - _HARMLESS
    return f"it called {', '.join(sorted(made))}" if made else True


def _command(record: Record) -> int:
    return int(record.op.cmd & k.COMMAND_MASK)


def _if_it_is_one(check: Check) -> Check:
    """A check of UIO_MSI_IRQ_SET, for ioctls that may be something else or have no argument."""

    def holds(record: Record) -> bool | str:
        if _command(record) != k.UIO_MSI_IRQ_SET or not is_readable(record.op.pointer):
            return False
        return check.holds(record)

    return Check(check.clause, holds)


def _dma_follows_opens(record: Record) -> bool | str:
    """Bus mastering is on exactly while the device is open (UIO-057)."""
    world = _world(record)
    if record.before.life != "bound":
        return False
    if world.device.master == (record.after.opens > 0):
        return True
    return f"bus mastering is {'on' if world.device.master else 'off'} with {record.after.opens} handles open"


def _does_not_reset(record: Record) -> bool | str:
    if record.before.life != "bound":
        return False
    return "the function was reset" if any(call[0] == "pci_reset_function" for call in record.calls) else True


def _keeps_codes_inside(record: Record) -> bool | str:
    return f"returned {record.result}" if -record.result in k.KERNEL_INTERNAL else True


def _copies_outside_mutex(record: Record) -> bool | str:
    world = _world(record)
    if world.process.copied_under_mutex is None:
        return False
    return "copy_from_user while the mutex is held" if world.process.copied_under_mutex else True


_TOUCHING = frozenset(
    {"eventfd_ctx_fdget", "eventfd_ctx_put", "eventfd_signal", "request_irq", "free_irq", "synchronize_irq"}
)


def _touches_nothing_out_of_range(record: Record) -> bool | str:
    """No look-up and no irq call for a vector that is not there (UIO-010)."""
    if record.op.vector < record.before.limit or record.before.life != "bound":
        return False
    touched = {call[0] for call in record.calls} & _TOUCHING
    return f"it called {', '.join(sorted(touched))}" if touched else True


def _detaches_nothing(record: Record) -> bool | str:
    """No effect for fd -1 on an unmapped vector (UIO-013); to wait for handlers is none."""
    op, before = record.op, record.before
    if op.fd >= 0 or op.vector >= before.limit or before.life != "bound" or before.wired[op.vector] is not None:
        return False
    touched = {call[0] for call in record.calls} & (_TOUCHING - {"synchronize_irq"})
    return f"it called {', '.join(sorted(touched))}" if touched else True


def _line_is_quiet(record: Record) -> bool | str:
    """After the last release nobody is there for the line, unless the driver keeps a handler (UIO-092)."""
    before = record.before
    if before.user_unmasks or before.opens or before.life != "bound" or before.past != "used" or not record.op.level:
        return False
    if before.msix:
        return False
    return "the function drives the line, and no handler is there" if _world(record).intx.is_unserved() else True


def _limits_its_log(record: Record) -> bool | str:
    world = _world(record)
    printed = world.log.printed
    return f"{printed} lines for {FLOOD} identical calls" if printed > LOG_BURST else True


_ON_SET = (
    Check(c.COPY_OUTSIDE_MUTEX, _copies_outside_mutex),
    Check(c.NO_SUCH_VECTOR_TOUCHES_NOTHING, _touches_nothing_out_of_range),
    Check(c.DETACHING_TWICE_IS_FINE, _detaches_nothing),
    Check(c.NO_INTERNAL_CODES, _keeps_codes_inside),
)
_ON_IOCTL = (Check(c.UNKNOWN_COMMAND, _ignores_unknown_commands), *map(_if_it_is_one, _ON_SET))

_ON_FLOOD = (Check(c.LOG_LIMITED, _limits_its_log),)

CHECKS: Mapping[type, tuple[Check, ...]] = {
    Probe: (
        Check(c.BARS_EXPORTED, _exports_bars),
        Check(c.NO_MSIX_TABLE_MAPPED, _hides_table),
        Check(c.PAGES_OF_MSIX_TABLE, _hides_pages),
        Check(c.SMALL_BARS_MAPPABLE, _maps_small_bars),
        Check(c.REVERSE_ORDER, _released_in_order),
        Check(c.FAILED_PROBE_LEAVES_NOTHING, _failed_probe_keeps_intx),
    ),
    Remove: (
        Check(c.REVERSE_ORDER, _released_in_order),
        Check(c.INTX_LEFT_AS_FOUND, _leaves_intx_as_found),
    ),
    Open: (
        Check(c.FIRST_OPEN_ENABLES, _enables_once),
        Check(c.NO_IMPLICIT_RESET, _does_not_reset),
        Check(c.NO_INTERNAL_CODES, _keeps_codes_inside),
        Check(c.NO_DMA_WHILE_CLOSED, _dma_follows_opens),
    ),
    Close: (
        Check(c.NO_IMPLICIT_RESET, _does_not_reset),
        Check(c.NO_INTERNAL_CODES, _keeps_codes_inside),
        Check(c.NO_DMA_WHILE_CLOSED, _dma_follows_opens),
    ),
    IrqSet: _ON_SET,
    CompatIrqSet: _ON_SET,
    RawIoctl: _ON_IOCTL,
    CompatIoctl: _ON_IOCTL,
    Write: (Check(c.NO_INTERNAL_CODES, _keeps_codes_inside),),
    SetIntx: (Check(c.LINE_QUIET_WHEN_CLOSED, _line_is_quiet),),
    Flood: _ON_FLOOD,
    FloodOpens: _ON_FLOOD,
    FloodWrites: _ON_FLOOD,
}
