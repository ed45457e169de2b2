"""Values of the fields, and the worlds."""

from __future__ import annotations

from conformance.model.uio_msi import Config
from conformance.model.uio_msi.operations import (
    DUP_FD,
    FIRST_FD,
    NEVER_OPENED_FD,
    NOT_EVENTFDS,
    O_PATH_FD,
    PAGE,
    PAGE_END,
    STANDARD_FDS,
    Bar,
    Eventfd,
)
from conformance.specs.uio_msi.constants import IRQ_NOTCONNECTED, MAX_MSIX_VECTORS, PAGE_SIZE, UIO_MSI_IRQ_SET
from conformance.strategies.domain import Domain

INT_MIN, INT_MAX = -(2**31), 2**31 - 1

VECTOR: Domain[object] = Domain(
    (0, 1),
    (2, 3, 4, 31, 32, 33, 62, 63, 64, 65, 256, 2**16 - 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1),
    bounds=(0, MAX_MSIX_VECTORS - 1),
    usual=0.9,
)
"""Vectors on both sides of every limit, as u32."""
EVENT_VECTOR: Domain[object] = Domain((0, 1), (2, 4, 31, 32, 33, 62, 63), usual=0.95)
"""Vectors that the function may raise."""
HIGH_FDS = (511, 512, 1023, 1024, 2**16 - 1, 2**16)
"""Numbers about the sizes of descriptor tables; none is in use."""

FD: Domain[object] = Domain(
    (FIRST_FD, FIRST_FD + 1, -1),
    (
        FIRST_FD + 2,
        DUP_FD,
        NEVER_OPENED_FD,
        *NOT_EVENTFDS,
        O_PATH_FD,
        *STANDARD_FDS,
        -2,
        INT_MIN,
        INT_MAX,
        *HIGH_FDS,
        FIRST_FD + 2**16,
    ),
    usual=0.8,
)
"""Eventfds, fds that are none, and fds that unmap."""
USER_FD: Domain[object] = Domain((FIRST_FD, FIRST_FD + 1))
"""Numbers of the process's first eventfds: every configuration has two."""
WRITTEN: Domain[object] = Domain((1,), (0, 2, -1, INT_MIN), usual=0.7)
"""Numbers written to the device."""

COMMAND: Domain[object] = Domain(
    (UIO_MSI_IRQ_SET, 0),
    (
        0x8008_4987,  # direction read; also the write direction of alpha, mips, powerpc and sparc
        0xC008_4987,
        0x0000_4987,
        0x4004_4987,
        0x4010_4987,
        0x4008_4986,
        0x4008_4988,
        0x4008_4187,
        0x4009_4987,
        0xFFFF_FFFF,
        UIO_MSI_IRQ_SET | 1 << 32,
        1 << 32,
    ),
    bounds=(0, 2**32 - 1),
    usual=0.5,
)
"""The command, and what differs from it in one of its parts."""

POINTER: Domain[object] = Domain(
    (PAGE, 0),
    (
        PAGE + 1,
        PAGE_END - 8,
        PAGE_END - 7,
        PAGE_END - 4,
        PAGE_END - 1,
        PAGE_END,
        PAGE - 1,
        PAGE + 4,
        1,
        PAGE | 1 << 31,
        PAGE | 1 << 32,
        0x7FFF_FFFF_F000,
        0xFFFF_8000_0000_0000,
        2**64 - 8,
    ),
    bounds=(PAGE - 16, PAGE_END + 16),
    usual=0.5,
)
"""Pointers to the argument: mapped, not mapped, one bit beside, on the edge, unaligned, in the kernel's half."""

COMPAT_POINTER: Domain[object] = Domain(
    POINTER.scope,
    tuple(pointer for pointer in POINTER.edges if isinstance(pointer, int) and pointer < 2**32),
    bounds=POINTER.bounds,
    usual=0.5,
)
"""Those that a 32-bit process can have."""
MEMORY = Bar(0xF000_0000, 0x1000)
_TABLE = Bar(0xF001_0000, 0x1000)
_PORT = Bar(0xE000, 0x20, io=True)
_NONE = Bar()
_ODD = (Eventfd(0x10, semaphore=True), Eventfd(2**64 - 4, nonblock=False), Eventfd())
PLAIN = Config()
INTX = Config(vectors=0)

CONFIGS = (
    PLAIN,
    INTX,
    Config(eventfds=_ODD),
    Config(vectors=1, bars=(_TABLE,), table_bar=0, pba_bar=0),
    Config(vectors=3, bars=(_TABLE, MEMORY, _PORT), table_bar=0, pba_bar=0, eventfds=(Eventfd(1), Eventfd(2**32))),
    Config(vectors=0, eventfds=_ODD, left_masked=True, bars=(_PORT,)),
    Config(core_41=True),
    Config(vectors=0, core_41=True),
    Config(vectors=64),
    Config(
        vectors=65,
        bars=(Bar(0xF000_0000, 0x4000), _NONE, Bar(0xF100_0000, 0x200), Bar(0xF200_0800, 0x1000), _PORT),
        table_bar=0,
        table_offset=0x2000,
        pba_bar=0,
        pba_offset=0x3000,
    ),
    Config(
        vectors=128,
        bars=tuple(Bar(0xF000_0000 + i * 0x10_0000, 0x1000) for i in range(6)),
        table_bar=5,
        pba_bar=4,
        pba_offset=0,
    ),
    Config(
        vectors=2048,
        bars=(MEMORY, Bar(0x4_0000_0000, 16 << 30), _NONE, Bar(0xF010_0000, 0x8000), Bar(0xF020_0000, 0x1000)),
        table_bar=3,
        pba_bar=4,
        pba_offset=0,
        virtfn=True,
    ),
    Config(
        vectors=0,
        bars=(*(Bar(0xF000_0000 + i * 0x10_0000, 0x1000) for i in range(5)), _PORT),
    ),
    Config(vectors=0, bars=(_PORT, Bar(0, 0x1000), Bar(0xF000_0000, 0), Bar(0xF000_0100, 0x80))),
    Config(vectors=0, bars=()),
    Config(vectors=2, remapping=True, bars=(_TABLE,), table_bar=0, pba_bar=0),
    Config(vectors=0, intx=False),
    Config(bridge=True),
    Config(cardbus=True),
    Config(msix_broken=True),
    Config(msix_broken=True, intx=False),
    Config(vectors=0, bars=tuple(Bar(0xE000 + i * 0x100, 0x20, io=True) for i in range(6))),
    Config(vectors=0, bars=tuple(Bar(0xF000_0000 + i * 0x10_0000, 0x1000) for i in range(6))),
    Config(
        vectors=2048,
        bars=(Bar(0xE000_0000, 0x40_0000), _PORT),
        table_bar=0,
        table_offset=0x30_0000,
        pba_bar=0,
        pba_offset=0x2_1F80,
    ),
    Config(vectors=0, irq=0),
    Config(vectors=0, irq=IRQ_NOTCONNECTED),
    Config(intx=False),
    Config(irq=0),
    Config(irq=IRQ_NOTCONNECTED),
)
"""Plainest first; the odd ones are for probe."""


def _layouts(vectors: int) -> dict[str, Config]:
    """Table and pending bits in two BARs, or in one, the table first or last, from the start or the end of a page."""
    table, pba = 16 * vectors, (vectors + 63) // 64 * 8
    end = table + PAGE_SIZE - 1 & -PAGE_SIZE
    one, two = (Bar(0xF000_0000, 0x2_0000),), (Bar(0xF000_0000, 0x2_0000), Bar(0xF010_0000, 0x4000))
    return {
        "apart": Config(vectors=vectors, bars=two, table_bar=0, table_offset=0x1000, pba_bar=1, pba_offset=0x2000),
        "after": Config(vectors=vectors, bars=one, table_bar=0, pba_bar=0, pba_offset=end),
        "before": Config(
            vectors=vectors,
            bars=one,
            table_bar=0,
            table_offset=(0x1FF8 + pba + PAGE_SIZE - 1 & -PAGE_SIZE) + 0xFF0,
            pba_bar=0,
            pba_offset=0x1FF8,
        ),
    }


LAYOUTS = {
    f"{vectors}-{name}": config for vectors in (1, 64, 65, 256, 257, 2048) for name, config in _layouts(vectors).items()
} | {
    "2-beside": Config(
        bars=(Bar(0xF000_0000, 0x800), Bar(0xF000_0800, 0x400), Bar(0xF000_0C00, 0x400), Bar(0xF000_1000, 0x1000)),
        table_bar=1,
        pba_bar=1,
        pba_offset=0x200,
    )
}
"""Where the MSI-X table and the pending bits can lie, by the sizes at which they need a page or a word more; and with
other BARs in their page."""
ZERO = (Eventfd(), Eventfd(), Eventfd())
