"""Properties of cet's masks and bit fields for CrossHair: asserts before the call are preconditions."""

from __future__ import annotations

from conformance.model.cet.values import (
    base_of,
    control_refusal,
    is_canonical,
    is_uniform_above,
    one_reg_msr,
    pointer_refusal,
    xsaves_size,
)
from conformance.specs.cet import clauses as c
from conformance.specs.cet.constants import ONE_REG_GUEST_SSP, ONE_REG_MSR


def _is_qword(value: int) -> bool:
    return 0 <= value < 1 << 64


def canonical_values_are_sign_extended(value: int) -> None:
    """CET-011: bits 63:47 are all equal exactly when sign extension from bit 47 gives the value."""
    assert _is_qword(value)

    low = value % (1 << 48)
    extended = low if low < 1 << 47 else low + (1 << 64) - (1 << 48)

    assert is_canonical(value, 48) == (extended == value)


def canonical_at_48_is_canonical_at_57(value: int) -> None:
    """A wider address space takes all that a narrower one takes."""
    assert _is_qword(value)
    assert is_canonical(value, 48)

    assert is_canonical(value, 57)


def canonical_values_are_uniform_above(value: int) -> None:
    """CET-083 demands one bit less than canonicality."""
    assert _is_qword(value)
    assert is_canonical(value, 48)

    assert is_uniform_above(value, 48)


def pointers_are_accepted_at_multiples_of_four(value: int) -> None:
    """CET-010: bit 2 may be set, bits 1:0 may not."""
    assert 0 <= value < 1 << 47

    assert (pointer_refusal(value, 48) is None) == (value % 4 == 0)


def reserved_bits_are_always_refused(value: int, shstk: bool, ibt: bool) -> None:
    """CET-001: whatever the vCPU has."""
    assert _is_qword(value)
    assert value >> 6 & 0xF

    assert control_refusal(value, shstk, ibt, False) is c.CET_RESERVED_BITS


def without_ibt_only_two_bits_are_left(value: int, shstk: bool) -> None:
    """CET-003, and bits 63:2 of AMD's registers."""
    assert _is_qword(value)
    assert control_refusal(value, shstk, False, True) is None

    assert value < 4
    assert shstk or value == 0


def features_only_add_values(value: int, base_aligned: bool) -> None:
    """What is accepted with one feature is accepted with both."""
    assert _is_qword(value)
    assert control_refusal(value, True, False, base_aligned) is None

    assert control_refusal(value, True, True, base_aligned) is None


def suppress_and_tracker_exclude_each_other(value: int) -> None:
    """CET-004."""
    assert _is_qword(value)
    assert control_refusal(value, True, True, False) is None

    assert value >> 10 & 3 != 3


def base_of_a_control_register_is_its_page(value: int) -> None:
    """The low 12 bits are no part of the address."""
    assert _is_qword(value)

    assert base_of(value) + value % 4096 == value


def register_ids_of_msrs_resolve(index: int) -> None:
    """CET-026: the MSR's number is in the low 32 bits."""
    assert 0 <= index < 1 << 32

    assert one_reg_msr(ONE_REG_MSR + index) == index


def only_index_zero_is_a_kvm_register(index: int) -> None:
    """CET-027: type 3 has one register."""
    assert 0 <= index < 1 << 32

    assert (one_reg_msr(ONE_REG_GUEST_SSP + index) is not None) == (index == 0)


def bad_upper_halves_never_resolve(upper: int) -> None:
    """CET-027: architecture, reserved bits, type and size decide together."""
    assert 0 <= upper < 1 << 32
    assert upper not in (0x2030_0002, 0x2030_0003)

    assert one_reg_msr(upper << 32) is None


def image_size_follows_two_bits(xss: int) -> None:
    """CET-073: 16 bytes for component 11, 24 for component 12."""
    assert 0 <= xss < 1 << 14

    assert xsaves_size(xss) == 576 + 16 * (xss // 2048 % 2) + 24 * (xss // 4096 % 2)


def resolvable_ids_have_no_reserved_bits(reg: int) -> None:
    """The property CrossHair finds the two id families by."""
    assert _is_qword(reg)
    assert one_reg_msr(reg) is not None

    assert reg >> 32 in (0x2030_0002, 0x2030_0003)
