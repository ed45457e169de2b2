"""What released Linux breaks is found, and the kernel-shaped candidate that keeps the clause is not accused."""

from __future__ import annotations

from typing import Any

import pytest

from conformance.candidates.builtin.cet.linux import Linux
from conformance.candidates.builtin.cet.linux.svm import Svm
from conformance.candidates.builtin.cet.linux.vmx import Vmx
from conformance.model.cet import operations as m
from conformance.specs.cet import constants as k
from conformance.strategies.cet.domains import AMD, SHSTK_ONLY, WITHOUT_CET
from tests.conformance.cet.judging import ONE, A, blamed, run

SVM = m.Config(AMD, (SHSTK_ONLY,))
NO_LM = m.Config(vcpus=(m.Cpuid(lm=False),))
NO_CET = m.Config(WITHOUT_CET, (m.Cpuid(),))


class Rsm(Linux):
    """RSM as released."""

    CR4_BEFORE_CR0 = True


class TableRead(Linux):
    """INT_SSP_TAB as released."""

    READS_TABLE_WITHOUT_LM = True


class ReleasedVmx(Vmx):
    """Nested VMX as released."""

    FAILED_ENTRY_LOADS_GUEST_AREA = True
    FIELDS_WITHOUT_HARDWARE = True


class NestedVmx(Linux):
    """Nested VMX as released."""

    VMX = ReleasedVmx


class MarksVmcb01(Svm):
    """Writes of MSRs as released."""

    MARKS_VMCB01 = True


class SvmWrites(Linux):
    """Writes of MSRs as released."""

    SVM = MarksVmcb01


class Unchecked(Svm):
    """VMRUN as in 6.18."""

    CHECKS_VMCB12 = False


class Vmrun(Linux):
    """VMRUN as in 6.18."""

    SVM = Unchecked


RSM = (
    m.Run(0),
    m.MovCr0(0, True),
    m.MovCr4(0, True, False),
    m.Smi(0),
    m.MovCr0(0, False),
    m.Rsm(0, None),
)
FAILED_ENTRY = (m.Run(0), m.NestedEnter(0, m.Area(ssp=2, host_wp=False, load_host=False)), m.ReadSsp(0))
L2_WRITE = (m.Run(0), m.NestedEnter(0, m.Area()), m.Wrmsr(0, k.INT_SSP_TAB, A, False), m.ReadSsp(0))


@pytest.mark.parametrize(
    ("released", "ops", "config", "clause"),
    [
        (Rsm, RSM, ONE, "CET-080"),
        (TableRead, (m.Run(0), m.Rdmsr(0, k.INT_SSP_TAB, False)), NO_LM, "CET-014"),
        (NestedVmx, (m.Run(0), m.Vmread(0, k.GUEST_S_CET)), NO_CET, "CET-089"),
        (NestedVmx, FAILED_ENTRY, ONE, "CET-094"),
        (SvmWrites, L2_WRITE, SVM, "CET-092"),
        (Vmrun, (m.Run(0), m.NestedEnter(0, m.Area(s_cet=0x40))), SVM, "CET-091"),
    ],
)
def test_what_released_linux_breaks_is_found(
    released: type, ops: tuple[Any, ...], config: m.Config, clause: str
) -> None:
    """The same trace is right where the kernel-shaped candidate keeps the clause."""
    assert blamed(run(released, *ops, config=config)) == clause

    assert run(Linux, *ops, config=config).failure is None
