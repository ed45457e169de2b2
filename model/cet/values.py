"""Values and bit fields: what a register takes, and what the bits of an id or a number mean."""

from __future__ import annotations

from conformance.model.cet.operations import Host
from conformance.specs.cet import clauses as c
from conformance.specs.cet.constants import CET_S, CET_U, INTERNAL_GUEST_SSP, XSAVE_BASE_SIZE
from conformance.specs.clause import Clause


def field_of(value: int, low: int, high: int) -> int:
    """Bits `high` to `low` of a 64-bit value."""
    return value >> low & (1 << (high - low + 1)) - 1


def is_canonical(value: int, width: int) -> bool:
    """Whether bits 63 down to `width` - 1 of a 64-bit address are all equal."""
    return value >> (width - 1) in (0, (1 << (65 - width)) - 1)


def is_uniform_above(value: int, width: int) -> bool:
    """Whether bits 63 down to `width` are all equal: one bit less than canonical."""
    return value >> width in (0, (1 << (64 - width)) - 1)


def control_refusal(value: int, shstk: bool, ibt: bool, base_aligned: bool) -> Clause | None:
    """The clause by which a value of U_CET or S_CET is refused whatever its base; None if none does."""
    if field_of(value, 6, 9):
        return c.CET_RESERVED_BITS
    if not shstk and field_of(value, 0, 1):
        return c.CET_SHSTK_BITS_NEED_SHSTK
    if not ibt and (field_of(value, 2, 5) or field_of(value, 10, 63)):
        return c.CET_IBT_BITS_NEED_IBT
    if field_of(value, 10, 11) == 3:
        return c.CET_SUPPRESS_OR_TRACKER
    if base_aligned and field_of(value, 12, 13):
        return c.CET_BASE_ALIGNED
    return None


def base_of(value: int) -> int:
    """The legacy bitmap's address in U_CET or S_CET."""
    return value >> 12 << 12


def hardware_takes(host: Host, value: int) -> bool:
    """Whether the processor itself accepts a value of U_CET or S_CET: the host's features decide."""
    return control_refusal(value, host.shstk, host.ibt, False) is None and is_canonical(base_of(value), host.width)


def pointer_refusal(value: int, width: int) -> Clause | None:
    """The clause by which a shadow-stack pointer is refused; None if none does."""
    if field_of(value, 0, 1):
        return c.SSP_ALIGNED
    if not is_canonical(value, width):
        return c.SSP_CANONICAL
    return None


def one_reg_msr(reg: int) -> int | None:
    """The MSR a register id stands for, GUEST_SSP's internal number included; None for a bad id."""
    index, kind, reserved = field_of(reg, 0, 31), field_of(reg, 32, 39), field_of(reg, 40, 51)
    if field_of(reg, 56, 63) != 0x20 or reserved or field_of(reg, 52, 55) != 3:
        return None
    if kind == 3:
        return INTERNAL_GUEST_SSP if index == 0 else None
    return index if kind == 2 else None


def xsaves_size(xss: int) -> int:
    """Bytes of a compacted image with XCR0 = 3 and these bits of XSS."""
    return XSAVE_BASE_SIZE + 16 * (xss >> CET_U & 1) + 24 * (xss >> CET_S & 1)
