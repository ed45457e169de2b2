"""Values and worlds of CET state.

Values are tagged with the vCPU and the register they are meant for, so a value that turns up in the
wrong place shows where it came from.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from conformance.model.cet import operations as m
from conformance.specs.cet import constants as k
from conformance.strategies.domain import Domain


def tag(vcpu: int, msr: int, n: int = 0) -> int:
    """A canonical, aligned value that says which vCPU and register it was made for."""
    return 0x1000_0000_0000 | vcpu << 32 | (msr & 0xF) << 16 | n << 3


POINTER_EDGES = (
    4,
    8,
    1,
    2,
    3,
    0x7FFF_FFFF_FFFC,
    0x8000_0000_0000,
    0x00FF_FFFF_FFFF_FFFC,
    0x0100_0000_0000_0000,
    0xFFFF_8000_0000_0000,
    0xFF00_0000_0000_0000,
    0xFFFE_0000_0000_0000,
    0xAAAA_AAAA_AAAA_AAA8,
    0xFFFF_FFFF_FFFF_FFFC,
    0xFFFF_FFFF_FFFF_FFFF,
    1 << 32,
)
"""Both ends of the canonical halves at 48 and 57 bits, and each kind of misalignment."""

CONTROL_EDGES = (
    0x3,
    0x2,
    0x4,
    0x3C,
    0x40,
    0x80,
    0x100,
    0x200,
    0x400,
    0x800,
    0xC00,
    0x1000,
    0x2000,
    0x3000,
    0x4000,
    0x4004,
    0x7FFF_FFFF_C000,
    0x8000_0000_0004,
    0x8000_0000_0000_0004,
    0xFFFF_8000_0000_0005,
)
"""Each field of U_CET and S_CET by itself, and bases on both sides of canonical."""

XSS_EDGES = (0x800, 0x1000, 0x1801, 1 << 8, (1 << 64) - 1)

MSR: Domain[int] = Domain(
    (k.PL0_SSP, k.PL1_SSP, k.XSS, k.U_CET, k.S_CET, k.PL2_SSP, k.PL3_SSP, k.INT_SSP_TAB),
    (k.INTERNAL_GUEST_SSP, 0x6A9),
    usual=0.95,
)
VALUE: Domain[int] = Domain(
    (tag(0, k.PL0_SSP), 0, tag(1, k.PL0_SSP), tag(0, k.PL1_SSP), 1, 0x1800, 5),
    POINTER_EDGES + CONTROL_EDGES + XSS_EDGES,
    (0, (1 << 64) - 1),
)
POINTER: Domain[int] = Domain((tag(0, k.PL0_SSP), 0, tag(1, k.PL1_SSP)), POINTER_EDGES)
SSP: Domain[int] = Domain((tag(0, 0xF), 0, tag(1, 0xF), 1 << 32, 0x1000))
SAVED_SSP: Domain[int | None] = Domain((None,), (tag(0, 0xA), 0, 1, 2, 4, 0xAAAA_AAAA_AAAA_AAA8, 0xFFFF_8000_0000_0000))
VCPU: Domain[int] = Domain((0, 1), usual=1.0)
CPU: Domain[int] = Domain((0, 1), usual=1.0)

WORDS: Domain[tuple[int, ...]] = Domain(
    (
        (tag(0, k.PL0_SSP, 1), tag(0, k.PL1_SSP, 1), tag(0, k.PL2_SSP, 1)),
        (),
        (1, tag(0, k.PL3_SSP, 1)),
        (tag(1, k.PL0_SSP, 1), 0, tag(1, k.PL2_SSP, 1)),
        (0, tag(1, k.PL3_SSP, 1)),
    )
)
"""Component 12 has three words, component 11 two; no words stand for the initial state."""

ENTRIES: Domain[tuple[tuple[int, int], ...]] = Domain(
    (
        ((k.PL0_SSP, tag(0, k.PL0_SSP, 2)),),
        ((k.PL1_SSP, tag(0, k.PL1_SSP, 2)),),
        ((k.S_CET, 1),),
        ((k.U_CET, 1), (k.PL3_SSP, tag(0, k.PL3_SSP, 2))),
        ((k.INT_SSP_TAB, tag(0, k.INT_SSP_TAB, 2) | 1),),
        ((k.XSS, 0x1800),),
        ((k.PL0_SSP, 0),),
        ((k.PL2_SSP, tag(1, k.PL2_SSP, 2)),),
    ),
    (
        ((k.PL0_SSP, tag(0, k.PL0_SSP, 3)), (k.PL1_SSP, 1), (k.PL2_SSP, tag(0, k.PL2_SSP, 3))),
        ((k.S_CET, 1), (k.PL1_SSP, tag(0, k.PL1_SSP, 3))),
        ((k.S_CET, 0x40), (k.PL0_SSP, 8)),
        ((k.PL0_SSP, 8), (k.PL0_SSP, 16)),
        ((k.S_CET, 0), (k.PL1_SSP, 8), (k.INT_SSP_TAB, 1 << 62), (k.PL2_SSP, 8)),
        ((k.XSS, 0), (k.U_CET, 0), (k.S_CET, 0)),
        ((0x6A9, 0), (k.PL0_SSP, 8)),
        ((k.XSS, 1 << 8),),
        (),
        *((((msr, value),)) for msr in k.CONTROL_MSRS for value in CONTROL_EDGES),
        *((((msr, value),)) for msr in (k.PL0_SSP, k.PL3_SSP, k.INT_SSP_TAB) for value in POINTER_EDGES),
        ((k.PL0_SSP, 0),) * 255,
        ((k.PL0_SSP, 8),) * 256,
        ((k.INTERNAL_GUEST_SSP, 0x1000),),
    ),
)
INDICES: Domain[tuple[int, ...]] = Domain(
    (
        (k.PL0_SSP,),
        (k.PL1_SSP,),
        (k.S_CET,),
        (k.U_CET, k.PL3_SSP),
        (k.INT_SSP_TAB,),
        (k.XSS,),
        k.MSRS,
        (k.PL2_SSP,),
    ),
    (
        (k.S_CET, k.PL1_SSP),
        (k.S_CET, k.PL1_SSP, k.XSS),
        (k.PL0_SSP, 0x6A9, k.PL1_SSP),
        (0x6A9,),
        (),
        k.MSRS[::-1],
        (k.S_CET,) * 255,
        (k.S_CET,) * 256,
        (k.INTERNAL_GUEST_SSP,),
    ),
)

BAD_REGS = (
    k.ONE_REG_GUEST_SSP | 1,
    k.ONE_REG_GUEST_SSP ^ 0x60 << 56,
    k.ONE_REG_GUEST_SSP | 1 << 40,
    k.ONE_REG_GUEST_SSP | 1 << 48,
    k.ONE_REG_GUEST_SSP ^ 1 << 52,
    (k.ONE_REG_MSR | k.PL0_SSP) ^ 1 << 52,
    (k.ONE_REG_MSR | k.PL0_SSP) ^ 3 << 32,
    (k.ONE_REG_MSR | k.PL0_SSP) ^ 2 << 32,
    (k.ONE_REG_MSR | k.PL0_SSP) | 1 << 47,
    (k.ONE_REG_MSR | k.PL0_SSP) | 1 << 51,
    (k.ONE_REG_MSR | k.PL0_SSP) ^ 1 << 63,
    k.ONE_REG_MSR | 0x6A9,
)
REG: Domain[int] = Domain(
    (k.ONE_REG_GUEST_SSP, k.ONE_REG_MSR | k.PL0_SSP, k.ONE_REG_MSR | k.S_CET, k.ONE_REG_MSR | k.U_CET),
    (*(k.ONE_REG_MSR | msr for msr in k.MSRS), *BAD_REGS),
    usual=0.6,
)

CPUIDS = tuple(
    m.Cpuid(shstk, ibt, lm, xsaves, 0x1800 if xsaves else 0)
    for lm, xsaves, shstk, ibt in product((True, False), (True, False), (True, False), (True, False))
)
CPUID: Domain[m.Cpuid] = Domain(CPUIDS[:4], (*CPUIDS[4:], m.Cpuid(xss=0x800), m.Cpuid(xss=0)))
DENIED: Domain[tuple[int, ...]] = Domain(
    ((), (k.PL0_SSP,), (k.S_CET, k.PL3_SSP)), ((k.U_CET, k.PL1_SSP), (k.INT_SSP_TAB, k.PL2_SSP), (k.XSS,))
)


def areas() -> tuple[m.Area, ...]:
    """The plain area, the four combinations of the controls, and each field by itself at each of its edges."""
    plain = m.Area(
        s_cet=1, ssp=tag(0, 0xE), table=tag(0, 0xD), host_s_cet=2, host_ssp=tag(0, 0xC), host_table=tag(0, 0xB)
    )
    listed = [replace(plain, load=load, load_host=load_host) for load, load_host in product((True, False), repeat=2)]
    listed += [replace(plain, cet=cet, wp=wp) for cet, wp in product((True, False), repeat=2)]
    listed += [replace(plain, host_cet=cet, host_wp=wp) for cet, wp in product((True, False), repeat=2)]
    listed += [replace(plain, intercepts=(msr,)) for msr in (k.PL0_SSP, k.PL3_SSP, k.U_CET, k.S_CET)]
    listed += [replace(plain, intercepts=(k.PL1_SSP, k.PL2_SSP))]
    bare = replace(plain, load=False, load_host=False)
    listed += [replace(bare, cet=True, wp=False), replace(bare, host_cet=True, host_wp=False)]
    listed += [replace(bare, s_cet=0x40), replace(bare, ssp=1), replace(bare, table=1 << 62)]
    listed += [replace(bare, host_s_cet=0x40), replace(bare, host_ssp=2), replace(bare, host_table=1 << 62)]
    listed += [replace(plain, s_cet=0x40, host_s_cet=0x40), replace(plain, cet=True, wp=False, host_ssp=1)]
    listed += [replace(plain, intercepts=k.MSRS)]
    listed += [replace(plain, address=1), replace(plain, address=1, s_cet=2, ssp=tag(0, 0x9), table=0)]
    listed += [
        replace(plain, address=1, clean=True),
        replace(plain, clean=True),
        m.Area(clean=True, load=False, load_host=False, cet=False),
    ]
    listed += [m.Area(cet=False, load=False, load_host=False)]
    listed += [replace(plain, s_cet=value) for value in (*CONTROL_EDGES, 0)]
    listed += [replace(plain, ssp=value) for value in (*POINTER_EDGES, 0, 1 << 47, 1 << 56)]
    listed += [replace(plain, table=value) for value in (*POINTER_EDGES, 0)]
    small = replace(plain, host_64=False, host_ssp=0x1000)
    listed += [
        small,
        replace(small, host_ssp=1 << 32),
        replace(small, host_ssp=0xFFFF_FFFC),
        replace(small, host_s_cet=1 << 32 | 4),
        replace(small, host_table=1 << 40),
        replace(small, host_table=1 << 62),
        replace(small, host_s_cet=0x40),
        replace(small, host_ssp=0x1002),
        replace(small, host_cet=True, host_wp=False),
        replace(plain, load_host=False, s_cet=0x40),
        replace(plain, load=False, host_table=1 << 62),
    ]
    listed += [replace(plain, host_s_cet=value) for value in (*CONTROL_EDGES, 0)]
    listed += [replace(plain, host_ssp=value) for value in (*POINTER_EDGES, 0, 1 << 47, 1 << 56)]
    listed += [replace(plain, host_table=value) for value in (*POINTER_EDGES, 0)]
    return tuple(dict.fromkeys(listed))


AREAS = areas()
AREA: Domain[m.Area] = Domain(AREAS[:10], AREAS[10:])


INTEL = m.Host()
AMD = m.Host(vendor="amd", ibt=False)
SHSTK_ONLY = m.Cpuid(ibt=False)
IBT_ONLY = m.Cpuid(shstk=False)
NEITHER = m.Cpuid(shstk=False, ibt=False)

CONFIGS = (
    m.Config(vcpus=(m.Cpuid(), m.Cpuid())),
    m.Config(vcpus=(m.Cpuid(),)),
    m.Config(vcpus=(m.Cpuid(), NEITHER)),
    m.Config(vcpus=(IBT_ONLY, SHSTK_ONLY)),
    m.Config(AMD, (SHSTK_ONLY, SHSTK_ONLY)),
    m.Config(AMD, (SHSTK_ONLY, NEITHER)),
    m.Config(m.Host(la57=True, s_cet=4), (m.Cpuid(), m.Cpuid(xsaves=False, xss=0))),
    m.Config(vcpus=(m.Cpuid(lm=False), m.Cpuid(xss=0x800))),
    m.Config(vcpus=(NEITHER, m.Cpuid(shstk=False, ibt=False, xsaves=False, xss=0)), ignore_msrs=True),
    m.Config(m.Host(ibt=False), (m.Cpuid(), SHSTK_ONLY)),
    m.Config(m.Host(own_xss=0x800), (m.Cpuid(), SHSTK_ONLY)),
    m.Config(m.Host(vendor="amd", sev_es=True), (m.Cpuid(),)),
    m.Config(m.Host(tdp=False, lm=False), (m.Cpuid(), IBT_ONLY)),
    m.Config(m.Host(xss=0x800), (m.Cpuid(),)),
    m.Config(m.Host(shstk=False, ibt=False, load_cet_entry=False, load_cet_exit=False, xss=0), (m.Cpuid(),)),
    m.Config(vcpus=()),
    m.Config(AMD, ()),
)


UNLIKE = m.Host(la57=True, s_cet=4, own_xss=0x800)
UNLIKE_SVM = replace(AMD, la57=True, s_cet=2, own_xss=0x800)
"""Hosts of which a module that remembers the plain ones knows nothing."""


def hosts() -> tuple[m.Host, ...]:
    """Every combination of features, XSS bits and paging, with all VMX prerequisites or without one of them."""
    on, masks = (True, False), (0x1800, 0x800, 0x1000, 0)
    controls = [(True, True, True, True), (False, True, True, True), (True, False, True, True)]
    controls += [(True, True, False, True), (True, True, True, False), (False, False, False, False)]
    listed = [m.Host(xss=xss) for xss in masks] + [m.Host(smaller_maxphyaddr=True), m.Host(tdp=False)]
    listed += [UNLIKE, m.Host(s_cet=1), m.Host(s_cet=2), m.Host(s_cet=4), m.Host(vendor="amd", ibt=False, s_cet=3)]
    listed += [m.Host(vendor, lm=False, ibt=ibt) for vendor in ("intel", "amd") for ibt in on]
    listed += [m.Host("intel", True, True, True, True, 0x1800, *prerequisites) for prerequisites in controls]
    listed += [
        m.Host("intel", shstk, ibt, xsaves, True, xss, *prerequisites, tdp, not larger)
        for xss, prerequisites in product(masks, controls)
        for shstk, ibt, xsaves, tdp, larger in product(on, repeat=5)
    ]
    listed += [
        m.Host("amd", shstk, ibt, xsaves, True, xss, False, False, False, False, tdp, not larger)
        for xss in masks
        for shstk, ibt, xsaves, tdp, larger in product(on, repeat=5)
    ]
    return tuple(dict.fromkeys(listed))


HOSTS = hosts()
HOST: Domain[m.Host] = Domain((INTEL, m.Host(s_cet=1), AMD, UNLIKE, UNLIKE_SVM), HOSTS)


A0, A1, A2 = tag(0, k.PL0_SSP), tag(0, k.PL1_SSP), tag(0, k.PL2_SSP)
B0, B1 = tag(1, k.PL0_SSP), tag(1, k.PL1_SSP)


CARRIED = m.Area(s_cet=1, ssp=0x2000, table=0x3000, cet=False, load=False, load_host=False)
EXCHANGED = replace(CARRIED, load=True, load_host=True, host_s_cet=2, host_ssp=0x4000, host_table=0x5000)


WITHOUT_CET = m.Host(shstk=False, ibt=False, load_cet_entry=False, load_cet_exit=False, xss=0)
