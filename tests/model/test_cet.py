"""What the model of cet allows: values, the error table, reset, nesting, and what survives."""

from __future__ import annotations

from typing import Any

import pytest

from conformance.model.cet import State, initial, legal, step, view
from conformance.model.cet import operations as m
from conformance.model.cet.capabilities import capabilities
from conformance.model.cet.values import one_reg_msr
from conformance.model.step import Outcome, each
from conformance.specs.cet import PROFILES, Profile
from conformance.specs.cet import constants as k
from conformance.strategies.cet.domains import AMD, IBT_ONLY, NEITHER, SHSTK_ONLY, UNLIKE, UNLIKE_SVM

UPSTREAM = PROFILES["upstream"]
A = 0x1000_0000_0000


def world(*cpuids: m.Cpuid, host: m.Host | None = None, ignore: bool = False, profile: Profile = UPSTREAM) -> State:
    """A host with these vCPUs, the first one running."""
    config = m.Config(host or m.Host(), cpuids or (m.Cpuid(),), ignore)
    return initial(config, profile)


def after(state: State, *ops: Any, profile: Profile = UPSTREAM) -> State:
    """The state after legal operations, each taking its first outcome."""
    for op in ops:
        assert legal(state, op), op
        state = first(state, op, profile=profile).state
    return state


def outcomes(state: State, op: Any, env: m.Answers | None = None, profile: Profile = UPSTREAM) -> tuple[Outcome, ...]:
    """All that is allowed."""
    return each(step(state, op, env or m.Answers(), profile))


def first(state: State, op: Any, env: m.Answers | None = None, profile: Profile = UPSTREAM) -> Outcome:
    """What is wanted most."""
    return outcomes(state, op, env, profile)[0]


def emulated(msr: int, value: int, cpuid: m.Cpuid | None = None, host: m.Host | None = None) -> tuple[Any, str]:
    """Result and clause of an emulated WRMSR on a vCPU that runs."""
    outcome = first(after(world(cpuid or m.Cpuid(), host=host), m.Run(0)), m.Wrmsr(0, msr, value, emulated=True))
    return outcome.result, outcome.because.id


@pytest.mark.parametrize("msr", k.CONTROL_MSRS)
@pytest.mark.parametrize(
    ("value", "cpuid", "result", "clause"),
    [
        (0x40, m.Cpuid(), 1, "CET-001"),
        (0x200, m.Cpuid(), 1, "CET-001"),
        (1, IBT_ONLY, 1, "CET-002"),
        (4, SHSTK_ONLY, 1, "CET-003"),
        (0x4000, SHSTK_ONLY, 1, "CET-003"),
        (0xC00, m.Cpuid(), 1, "CET-004"),
        (0x400, m.Cpuid(), 0, "CET-004"),
        (0x800, m.Cpuid(), 0, "CET-004"),
        (0x1000, m.Cpuid(), 1, "CET-005"),
        (0x2000, m.Cpuid(), 1, "CET-005"),
        (0x4000, m.Cpuid(), 0, "CET-003"),
        (0x8000_0000_0000, m.Cpuid(), 1, "CET-006"),
        (0, NEITHER, 1, "CET-007"),
        (0x3F, m.Cpuid(), 0, "CET-003"),
    ],
)
def test_control_values(msr: int, value: int, cpuid: m.Cpuid, result: int, clause: str) -> None:
    """Each field of U_CET and S_CET is judged by the vCPU's features."""
    assert emulated(msr, value, cpuid) == (result, clause)


@pytest.mark.parametrize(
    ("msr", "value", "result", "clause"),
    [
        (k.PL0_SSP, 1, 1, "CET-010"),
        (k.PL3_SSP, 2, 1, "CET-010"),
        (k.PL2_SSP, 4, 0, "CET-010"),
        (k.PL1_SSP, 0x7FFF_FFFF_FFFC, 0, "CET-010"),
        (k.PL1_SSP, 0x8000_0000_0000, 1, "CET-011"),
        (k.PL1_SSP, 0xFFFF_8000_0000_0000, 0, "CET-011"),
        (k.PL1_SSP, 0x1000, 0, "CET-018"),
        (k.INT_SSP_TAB, 3, 0, "CET-012"),
        (k.INT_SSP_TAB, 0x8000_0000_0000, 1, "CET-011"),
        (k.XSS, 0x1800, 0, "CET-073"),
        (k.XSS, 0x2000, 1, "CET-073"),
        (k.INTERNAL_GUEST_SSP, 0, 1, "CET-030"),
    ],
)
def test_pointer_values(msr: int, value: int, result: int, clause: str) -> None:
    """Alignment and canonicality, and what each register does not ask for."""
    assert emulated(msr, value) == (result, clause)


def test_the_hosts_width_decides() -> None:
    """What is canonical with 57 bits only is accepted where the host has them."""
    assert emulated(k.PL0_SSP, 0x8000_0000_0000, host=m.Host(la57=True))[0] == 0
    assert emulated(k.PL0_SSP, 0x0100_0000_0000_0000, host=m.Host(la57=True))[0] == 1


@pytest.mark.parametrize("msr", [*k.POINTER_MSRS, k.INT_SSP_TAB])
def test_pointers_need_shstk(msr: int) -> None:
    """IBT alone does not bring them."""
    state = after(world(IBT_ONLY), m.Run(0))

    assert first(state, m.Rdmsr(0, msr)).result == (1, 0)
    assert first(state, m.Wrmsr(0, msr, 0)).result == 1


def test_the_table_needs_lm_for_reads_too() -> None:
    """CET-014 in both directions, while the pointers need none."""
    state = after(world(m.Cpuid(lm=False)), m.Run(0))

    assert first(state, m.Rdmsr(0, k.INT_SSP_TAB)).result == (1, 0)
    assert first(state, m.Wrmsr(0, k.INT_SSP_TAB, 0)).result == 1
    assert first(state, m.Rdmsr(0, k.PL0_SSP)).result == (0, 0)


def test_a_passed_through_write_is_judged_by_the_host() -> None:
    """The virtualization hole: IBT bits of a vCPU without IBT, bits 13:12 of any."""
    state = after(world(SHSTK_ONLY), m.Run(0))

    assert [o.result for o in outcomes(state, m.Wrmsr(0, k.U_CET, 0x3004))] == [0]
    assert [o.result for o in outcomes(state, m.Wrmsr(0, k.U_CET, 0x40))] == [1]


def test_other_profiles_may_intercept() -> None:
    """Where interception is open, both judges may speak."""
    posted = PROFILES["as-posted"]
    state = after(world(SHSTK_ONLY, profile=posted), m.Run(0))

    assert {o.result for o in outcomes(state, m.Wrmsr(0, k.U_CET, 4), profile=posted)} == {0, 1}


def test_a_non_canonical_base_is_tolerated_with_a_warning() -> None:
    """CET-006 is a SHOULD: accepting is an outcome that breaches it."""
    allowed = outcomes(world(), m.SetMsrs(0, ((k.S_CET, 0x8000_0000_0004 & ~0x3000),)))

    assert [(o.result, [b.id for b in o.breaches]) for o in allowed] == [(0, []), (1, ["CET-006"])]


def test_hardware_profile_accepts_low_base_bits() -> None:
    """CET-005 holds where KVM's own check does."""
    hardware = PROFILES["hardware"]
    state = after(world(profile=hardware), m.Run(0))

    assert first(state, m.Wrmsr(0, k.S_CET, 0x1000, emulated=True), profile=hardware).result == 0


@pytest.mark.parametrize(
    ("cpuid", "entries", "result"),
    [
        (NEITHER, ((k.PL0_SSP, 0),), 1),
        (NEITHER, ((k.PL0_SSP, 8),), 0),
        (m.Cpuid(), ((k.PL0_SSP, 8), (k.PL1_SSP, 1), (k.PL2_SSP, 8)), 1),
        (m.Cpuid(), ((0x6A9, 0),), 0),
        (m.Cpuid(), ((k.S_CET, 0),) * 255, 255),
        (m.Cpuid(), ((k.S_CET, 1),) * 256, -k.E2BIG),
        (m.Cpuid(), (), 0),
    ],
)
def test_set_msrs(cpuid: m.Cpuid, entries: tuple[tuple[int, int], ...], result: int) -> None:
    """How many were processed; an advertised MSR the vCPU lacks takes zero only."""
    assert first(world(cpuid), m.SetMsrs(0, entries)).result == result


def test_a_batch_keeps_what_came_before_the_failure() -> None:
    """Earlier entries take effect, later ones do not."""
    state = first(world(), m.SetMsrs(0, ((k.PL0_SSP, 8), (k.PL1_SSP, 1), (k.PL2_SSP, 8)))).state

    assert first(state, m.GetMsrs(0, (k.PL0_SSP, k.PL1_SSP, k.PL2_SSP))).result == (3, (8, 0, 0))


def test_a_failed_read_ends_the_batch() -> None:
    """An MSR nobody knows is neither advertised nor ignored."""
    assert first(world(), m.GetMsrs(0, (k.PL0_SSP, 0x6A9, k.PL1_SSP))).result == (1, (0,))
    assert first(world(ignore=True), m.GetMsrs(0, (0x6A9,))).result == (1, (0,))


def test_user_pointers_fault() -> None:
    """-EFAULT wherever a copy was refused, and nothing changed."""
    state = world()

    bad_in, bad_out = m.Answers(copy_from_user=-k.EFAULT), m.Answers(copy_to_user=-k.EFAULT)

    assert first(state, m.SetMsrs(0, ((k.PL0_SSP, 8),)), bad_in).result == -k.EFAULT
    assert first(state, m.GetMsrs(0, (k.PL0_SSP,)), bad_out).result == (-k.EFAULT, ())
    assert first(state, m.GetOneReg(0, k.ONE_REG_GUEST_SSP), bad_out).result == (-k.EFAULT, 0)


@pytest.mark.parametrize(
    "reg",
    [
        k.ONE_REG_GUEST_SSP | 1,
        k.ONE_REG_GUEST_SSP ^ 1 << 56,
        k.ONE_REG_GUEST_SSP | 1 << 40,
        k.ONE_REG_GUEST_SSP | 1 << 48,
        k.ONE_REG_GUEST_SSP ^ 1 << 52,
        k.ONE_REG_GUEST_SSP | 4 << 32,
        k.ONE_REG_MSR | 0x6A9,
    ],
)
def test_bad_register_ids(reg: int) -> None:
    """-EINVAL, also when the user pointer is bad."""
    answers = m.Answers(copy_from_user=-k.EFAULT)

    assert first(world(), m.GetOneReg(0, reg)).result == (-k.EINVAL, 0)
    if one_reg_msr(reg) is None:
        assert first(world(), m.SetOneReg(0, reg, 0), answers).result == -k.EINVAL


def test_guest_ssp_needs_shstk_even_with_ignore_msrs() -> None:
    """CET-027 comes before ignore_msrs."""
    assert first(world(NEITHER, ignore=True), m.GetOneReg(0, k.ONE_REG_GUEST_SSP)).result == (-k.EINVAL, 0)


@pytest.mark.parametrize(
    ("cpuid", "n", "result"),
    [
        (m.Cpuid(), 0, (-k.E2BIG, 1, ())),
        (m.Cpuid(), 1, (0, 1, (k.ONE_REG_GUEST_SSP,))),
        (m.Cpuid(), 2**64 - 1, (0, 1, (k.ONE_REG_GUEST_SSP,))),
        (NEITHER, 0, (0, 0, ())),
    ],
)
def test_register_list(cpuid: m.Cpuid, n: int, result: tuple[int, int, tuple[int, ...]]) -> None:
    """The count is always written back."""
    assert first(world(cpuid), m.GetRegList(0, n)).result == result


@pytest.mark.parametrize(
    ("host", "caps"),
    [
        (m.Host(), (True, True, 0x1800)),
        (m.Host(vendor="amd"), (True, False, 0x1800)),
        (m.Host(tdp=False), (False, True, 0x1800)),
        (m.Host(tdp=False, ibt=False), (False, False, 0)),
        (m.Host(smaller_maxphyaddr=True), (False, False, 0)),
        (m.Host(unrestricted=False), (False, False, 0)),
        (m.Host(basic56=False), (False, False, 0)),
        (m.Host(load_cet_entry=False), (False, False, 0)),
        (m.Host(load_cet_exit=False), (False, False, 0)),
        (m.Host(vendor="amd", unrestricted=False), (True, False, 0x1800)),
        (m.Host(xss=0x800), (False, False, 0)),
        (m.Host(xss=0x1000), (False, False, 0)),
        (m.Host(xsaves=False), (False, False, 0)),
        (m.Host(shstk=False), (False, True, 0x1800)),
    ],
)
def test_capabilities(host: m.Host, caps: tuple[bool, bool, int]) -> None:
    """Each prerequisite takes what depends on it."""
    assert capabilities(host)[:3] == caps


def test_a_host_with_shadow_stacks_is_refused() -> None:
    """CET-065."""
    bare = initial(m.Config(vcpus=()), UPSTREAM)

    assert first(bare, m.VendorInit(m.Host(s_cet=1))).result == (-k.EIO, False, False)
    assert first(bare, m.VendorInit(m.Host(s_cet=4))).result == (0, True, True)


def test_a_module_is_loaded_anew_on_hosts_of_its_vendor() -> None:
    """Which of the two it is, it may have found out once."""
    intel, amd = (initial(m.Config(host, ()), UPSTREAM) for host in (m.Host(), AMD))

    assert [legal(state, m.VendorInit(host)) for state in (intel, amd) for host in (UNLIKE, UNLIKE_SVM)] == [
        *(True, False),
        *(False, True),
    ]


def test_cr0_and_cr4_interlock() -> None:
    """CR4.CET needs CR0.WP, and holds it."""
    state = after(world(), m.Run(0))

    assert first(state, m.MovCr4(0, True)).result == 1
    state = after(state, m.MovCr0(0, True), m.MovCr4(0, True))
    assert first(state, m.MovCr0(0, False)).result == 1
    assert first(after(world(NEITHER), m.Run(0), m.MovCr0(0, True)), m.MovCr4(0, True)).result == 1


def test_sregs_may_take_the_pair_or_not() -> None:
    """CET-072 leaves freedom; a vCPU with that pair cannot run."""
    allowed = outcomes(world(), m.SetSregs(0, False, True))

    assert {o.result for o in allowed} == {0, -k.EINVAL}
    assert not legal(allowed[-1].state, m.Run(0))


def test_a_batch_that_cannot_be_read_ends_somewhere() -> None:
    """Who reads it entry by entry has stored some, never the last; who reads it first has stored none."""
    allowed = outcomes(
        world(),
        m.SetMsrs(0, ((k.PL0_SSP, 8), (k.PL1_SSP, 8), (k.PL2_SSP, 8))),
        m.Answers(copy_from_user=-k.EFAULT),
    )
    stored = [(o.result, *first(o.state, m.GetMsrs(0, k.POINTER_MSRS[:3])).result[1]) for o in allowed]

    assert stored == [
        (-k.EFAULT, 0, 0, 0),
        (-k.EFAULT, 8, 0, 0),
        (-k.EFAULT, 8, 8, 0),
        (1, 8, 0, 0),
        (2, 8, 8, 0),
    ]


@pytest.mark.parametrize(("op", "xss"), [(m.Init(0), 0x1800), (m.Reset(0), 0)])
def test_reset_clears_and_init_keeps_xss(op: Any, xss: int) -> None:
    """CET-076."""
    state = after(world(), m.Run(0), m.Wrmsr(0, k.XSS, 0x1800), m.Wrmsr(0, k.PL0_SSP, A), m.Wrmsr(0, k.S_CET, 1))
    if isinstance(op, m.Reset):
        state = after(state, m.Leave(0))

    v = after(state, op).vcpus[0]

    assert v is not None
    assert v.regs == (0, 0, 0, 0, 0, 0, 0, xss, 0)


def test_rsm_restores_or_shuts_down() -> None:
    """SSP and the control registers come back, whatever the handler did to CR0.WP."""
    state = after(world(), m.Run(0), m.MovCr0(0, True), m.MovCr4(0, True), m.WriteSsp(0, A), m.Smi(0))

    assert view(state).smram[0] == A
    assert view(state).crs[0] == (True, False)
    state = after(state, m.MovCr0(0, False))
    assert view(after(state, m.Rsm(0))).crs[0] == (True, True)
    assert first(after(state, m.Rsm(0, 0x2000)), m.ReadSsp(0)).result == 0x2000
    assert first(state, m.Rsm(0, 1)).result == 1


@pytest.mark.parametrize("load", [False, True])
@pytest.mark.parametrize("load_host", [False, True])
def test_nested_vmx_switches_by_its_controls(load: bool, load_host: bool) -> None:
    """Four combinations of the two controls."""
    area = m.Area(s_cet=1, ssp=0x100, table=0x200, load=load, load_host=load_host)
    area = m.Area(1, 0x100, 0x200, load=load, host_s_cet=2, host_ssp=0x300, host_table=0x400, load_host=load_host)
    state = after(world(), m.Run(0), m.Wrmsr(0, k.S_CET, 3), m.WriteSsp(0, A), m.NestedEnter(0, area))
    inside = (0x100 if load else A, 1 if load else 3)

    assert first(state, m.ReadSsp(0)).result == inside[0]
    assert first(state, m.Rdmsr(0, k.S_CET)).result == (0, inside[1])
    state = after(state, m.NestedExit(0))
    assert view(state).area[0] == ((1, 0x100, 0x200) if load else (3, A, 0))
    assert first(state, m.ReadSsp(0)).result == (0x300 if load_host else inside[0])


@pytest.mark.parametrize(
    ("area", "result"),
    [
        (m.Area(host_cet=True, host_wp=False), k.VMFAIL_HOST_STATE),
        (m.Area(cet=True, wp=False), k.INVALID_GUEST_STATE),
        (m.Area(host_s_cet=0x40), k.VMFAIL_HOST_STATE),
        (m.Area(host_s_cet=0x40, load_host=False), k.ENTERED),
        (m.Area(host_ssp=2), k.VMFAIL_HOST_STATE),
        (m.Area(host_ssp=1 << 47), k.VMFAIL_HOST_STATE),
        (m.Area(host_ssp=1 << 32, host_64=False), k.VMFAIL_HOST_STATE),
        (m.Area(host_table=1 << 47), k.VMFAIL_HOST_STATE),
        (m.Area(ssp=1 << 47), k.ENTERED),
        (m.Area(ssp=1 << 48), k.INVALID_GUEST_STATE),
        (m.Area(ssp=1), k.INVALID_GUEST_STATE),
        (m.Area(s_cet=0x8000_0000_0000), k.ENTERED),
        (m.Area(host_s_cet=0x8000_0000_0000), k.VMFAIL_HOST_STATE),
        (m.Area(table=1 << 47), k.INVALID_GUEST_STATE),
        (m.Area(s_cet=0x40, load=False), k.ENTERED),
    ],
)
def test_nested_vmx_checks(area: m.Area, result: int) -> None:
    """Host area before guest area, each only with its control."""
    assert first(after(world(), m.Run(0)), m.NestedEnter(0, area)).result == result


def test_nested_svm_always_switches() -> None:
    """VMRUN has no control to opt out, and L1 resumes from vmcb01."""
    amd = m.Host(vendor="amd", ibt=False)
    area = m.Area(1, 0x100, 0x200, load=False, load_host=False)
    state = after(world(SHSTK_ONLY, host=amd), m.Run(0), m.WriteSsp(0, A), m.NestedEnter(0, area))

    assert first(state, m.ReadSsp(0)).result == 0x100
    assert first(after(state, m.NestedExit(0)), m.ReadSsp(0)).result == A
    bad = m.Area(0x40)
    assert first(after(world(SHSTK_ONLY, host=amd), m.Run(0)), m.NestedEnter(0, bad)).result == k.VMEXIT_INVALID


def test_a_refused_vmrun_leaves_the_clean_bit_meaningless() -> None:
    """Whether vmcb12's values were taken is nobody's business then."""
    amd = m.Host(vendor="amd", ibt=False)
    plain, clean = m.Area(1, 8, 8), m.Area(1, 8, 8, clean=True)
    bad = m.Area(1, 8, 8, cet=True, wp=False)
    running = after(world(SHSTK_ONLY, host=amd), m.Run(0))

    assert legal(after(running, m.NestedEnter(0, plain), m.NestedExit(0)), m.NestedEnter(0, clean))
    assert not legal(after(running, m.NestedEnter(0, bad)), m.NestedEnter(0, clean))


def test_restored_l2_keeps_what_was_restored() -> None:
    """With no entry pending nothing is loaded from vmcs12."""
    state = after(world(), m.SetMsrs(0, ((k.S_CET, 3),)), m.SetSregs(0, True, True))
    state = after(state, m.SetNestedState(0, m.Area(s_cet=1)), m.Run(0))

    assert first(state, m.Rdmsr(0, k.S_CET)).result == (0, 3)


@pytest.mark.parametrize(
    ("instruction", "shstk", "ibt"),
    [("mov", 0, 0), ("ret", 2, 0), ("indirect_jmp", 0, 2), ("indirect_call", 2, 2), ("task_switch", 2, 2)],
)
def test_the_emulator_refuses_what_is_affected(instruction: str, shstk: int, ibt: int) -> None:
    """Only with CR4.CET, and by the register of that privilege."""
    ready = after(world(), m.Run(0), m.MovCr0(0, True), m.MovCr4(0, True))
    op = m.Emulate(0, instruction)

    assert first(after(world(), m.Run(0), m.Wrmsr(0, k.S_CET, 5)), op).result == k.EMULATED
    assert first(after(ready, m.Wrmsr(0, k.S_CET, 1)), op).result == shstk
    assert first(after(ready, m.Wrmsr(0, k.S_CET, 4)), op).result == ibt


def test_a_far_jump_needs_a_low_ssp() -> None:
    """With shadow stacks active."""
    ready = after(world(), m.Run(0), m.MovCr0(0, True), m.MovCr4(0, True), m.WriteSsp(0, 1 << 32))

    assert first(ready, m.Emulate(0, "far_jmp")).result == k.EMULATED
    assert first(after(ready, m.Wrmsr(0, k.S_CET, 1)), m.Emulate(0, "far_jmp")).result == k.EMULATED_GP


@pytest.mark.parametrize(
    ("ops", "clause"),
    [
        ((), "CET-009"),
        ((m.Wrmsr(0, k.PL0_SSP, A), m.Preempt(0)), "CET-043"),
        ((m.Wrmsr(0, k.PL0_SSP, A), m.Preempt(0, 1)), "CET-050"),
        ((m.Wrmsr(0, k.PL0_SSP, A), m.Halt(0)), "CET-058"),
        ((m.Wrmsr(0, k.PL1_SSP, A),), "CET-017"),
        ((m.Wrmsr(0, k.PL0_SSP, A, emulated=True),), "CET-042"),
        ((m.Wrmsr(0, k.PL0_SSP, A), m.Wrmsr(0, k.PL0_SSP, 0)), "CET-016"),
        ((m.Wrmsr(0, k.XSS, 0x1000), m.Xrstors(0, 12, (A, 0, 0)), m.Preempt(0)), "CET-040"),
        ((m.Init(0),), "CET-076"),
        ((m.Leave(0), m.SetMsrs(0, ((k.PL0_SSP, A),)), m.Run(0)), "CET-024"),
        ((m.Leave(0), m.Window(0), m.Run(0)), "CET-044"),
        ((m.Leave(0), m.Migrate(0), m.Run(0)), "CET-032"),
        ((m.NestedEnter(0, m.Area(cet=False)),), "CET-087"),
        ((m.Wrmsr(0, k.PL0_SSP, A), m.Leave(0), m.Destroy(0), m.Create(0), m.Run(0)), "CET-059"),
    ],
)
def test_a_read_cites_what_the_value_should_have_survived(ops: tuple[Any, ...], clause: str) -> None:
    """So a lost value names the clause that forbids losing it there."""
    state = after(world(), m.Run(0), *ops)

    assert first(state, m.Rdmsr(0, k.PL0_SSP)).because.id == clause


def test_a_cpuid_that_gives_the_guest_the_same_may_be_taken_after_a_run() -> None:
    """Userspace offers more than KVM has; whether that counts as a change is nobody's rule."""
    state = after(world(host=m.Host(ibt=False)), m.Run(0), m.Leave(0))

    assert [o.result for o in outcomes(state, m.SetCpuid(0, SHSTK_ONLY))] == [-k.EINVAL, 0]
    assert [o.result for o in outcomes(state, m.SetCpuid(0, NEITHER))] == [-k.EINVAL]


def test_smi_may_zero_the_slot_of_a_vcpu_without_ssp() -> None:
    """Who writes the whole map at once leaves a zero there; with SHSTK it holds SSP."""
    state = after(world(IBT_ONLY), m.Run(0), m.Smi(0), m.Rsm(0, 8))

    assert [view(o.state).smram[0] for o in outcomes(state, m.Smi(0))] == [8, 0]
