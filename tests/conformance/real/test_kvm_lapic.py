"""The host's KVM: the facts are as they were measured, and an adapter that is wrong is caught."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conformance.candidates.load import Candidate, from_adapter
from conformance.engines import campaign, corpus, machine
from conformance.engines.context import Context
from conformance.lockstep import run_trace
from conformance.model.avic.operations import Act, Irqfds
from conformance.model.avic.routing import Message
from conformance.real.adapter import RealWorld
from conformance.real.kvm_lapic import KvmLapic, world
from conformance.real.kvm_lapic import machine as machines
from conformance.real.kvm_lapic.adapter import NO_ISR
from conformance.real.kvm_lapic.irqfds import Eventfds
from conformance.real.kvm_lapic.machine import APIC_TPR, Vm
from conformance.subsystem import subsystem
from conformance.verdict import UsageError
from tests.real_facts import KVM, KVM_LAPIC, Fact

OF = subsystem("avic")
OPS = world.KvmWorld.OPERATIONS


@pytest.fixture(scope="session")
def adapter() -> KvmLapic:
    """The real thing, or the sentence that says why it is not there."""
    try:
        return KvmLapic()
    except UsageError as error:
        pytest.skip(str(error))


@pytest.fixture
def vm(adapter: KvmLapic) -> Any:
    """Two enabled local APICs."""
    made = Vm()
    for number in range(2):
        made.create_vcpu(number).set_registers({0xF0: 0x1FF})
    yield made
    made.close()


def results(candidate: Candidate, fact: Fact) -> tuple[Any, ...]:
    """What the steps of a fact return, judged on the way."""
    report = run_trace(candidate.part(OF), fact.trace, candidate.factory, record=True)
    assert report.failure is None, report.failure
    return tuple(step.result for step in report.steps)


@pytest.mark.parametrize("fact", KVM, ids=lambda fact: fact.name)
def test_the_facts_hold(adapter: KvmLapic, fact: Fact) -> None:
    """What was measured is what is there, and what the model allows."""
    candidate = from_adapter(adapter, "real:kvm-lapic")

    seen = results(candidate, fact)

    assert seen == tuple(result for _, result in fact.steps)


def test_generated_messages_are_routed_as_the_model_says(adapter: KvmLapic) -> None:
    """A short form of the gate: walks, examples, shipped traces; the tally says that it was looked at."""
    candidate = from_adapter(adapter, "real:kvm-lapic")
    context = Context(candidate.part(OF), candidate, "kvm-lapic", steps=600, examples=12)

    for engine in (corpus, campaign, machine):
        engine.run(context)

    assert not context.failures
    assert set(KvmLapic.clauses or ()) <= {clause.id for clause in context.tally.clauses}


# -- defects in the path of the adapter


class WrongVector(world.KvmWorld):
    """Sends the neighbouring vector."""

    def fresh(self, apics: Any, message: Message) -> Vm:
        """Its data are made from what is asked for, so the question is changed."""
        made = super().fresh(apics, message)
        return _Altered(made, data=1)  # type: ignore[return-value]  # stands for it


class _Altered:
    """A VM through which messages do not pass as they are."""

    def __init__(self, of: Vm, data: int = 0, lost: str = "") -> None:
        self.of, self.data, self.lost = of, data, lost
        self.vcpus = of.vcpus

    def signal_msi(self, address: int, data: int) -> int:
        """With another vector, or not at all."""
        return 0 if self.lost == "signal_msi" else self.of.signal_msi(address, data ^ self.data)

    def set_routing(self, routes: list[tuple[int, int, int]]) -> None:
        """As above."""
        if self.lost != "set_routing":
            self.of.set_routing([(gsi, address, data ^ self.data) for gsi, address, data in routes])

    def irqfd(self, fd: int, gsi: int, *, deassign: bool = False) -> None:
        """As above."""
        if self.lost != "irqfd":
            self.of.irqfd(fd, gsi, deassign=deassign)


def _losing(call: str) -> Callable[[Any, Any, Message], Any]:
    def fresh(self: world.KvmWorld, apics: Any, message: Message) -> Any:
        return _Altered(world.KvmWorld.fresh(self, apics, message), lost=call)

    return fresh


class NoAcceptance(world.KvmWorld):
    """Forgets to look at the last vCPU."""

    def accepted(self, vm: Vm, vector: int) -> int:
        """One bit is never set."""
        return super().accepted(vm, vector) & ~(1 << len(vm.vcpus) - 1)


class ForgetsDfr(world.KvmWorld):
    """Leaves out SET_LAPIC's DFR."""

    def set_up(self, vcpu: Any, apic: Any) -> None:
        """All flat."""
        super().set_up(vcpu, replace(apic, dfr=0xFFFFFFFF))


class NoAssign(Eventfds):
    """Leaves out the ioctl of assign."""

    def assign(self, act: Act) -> tuple[int, tuple[int, ...]]:
        """As if it had been done."""
        return 0, ()


class NoDeassign(Eventfds):
    """Leaves out the ioctl of deassign."""

    def deassign(self, act: Act) -> tuple[int, tuple[int, ...]]:
        """As if it had been done."""
        return 0, ()


def _with(kind: type[Eventfds]) -> Callable[[Any, Any], Any]:
    def irqfds(_world: Any, op: Any) -> tuple[Any, ...]:
        made = kind()
        try:
            return tuple(made.act(act) for act in op.acts)
        finally:
            made.close()

    return irqfds


BROKEN = {
    "no assign": type("Never", (world.KvmWorld,), {"OPERATIONS": {**OPS, Irqfds: _with(NoAssign)}}),
    "no deassign": type("Stays", (world.KvmWorld,), {"OPERATIONS": {**OPS, Irqfds: _with(NoDeassign)}}),
    "wrong vector": WrongVector,
    "no KVM_SIGNAL_MSI": type("NoSignal", (world.KvmWorld,), {"fresh": _losing("signal_msi")}),
    "no KVM_SET_GSI_ROUTING": type("NoRouting", (world.KvmWorld,), {"fresh": _losing("set_routing")}),
    "no KVM_IRQFD": type("NoIrqfd", (world.KvmWorld,), {"fresh": _losing("irqfd")}),
    "one vCPU not looked at": NoAcceptance,
    "DFR not set": ForgetsDfr,
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_defect_of_the_adapter_is_caught(adapter: KvmLapic, what: str) -> None:
    """So none of the verdicts is empty."""

    class Broken(KvmLapic):
        """The adapter with that defect."""

        def environment(self, config: Any, profile: Any) -> RealWorld:
            del config, profile
            made: RealWorld = BROKEN[what](self.hidden)
            return made

    candidate = from_adapter(Broken(), "real:broken")
    caught = [
        fact.name for fact in KVM if run_trace(candidate.part(OF), fact.trace, candidate.factory).failure is not None
    ]

    assert caught


# -- what the model has no operation for


ENDLESS_WINDOW = b"\xfb\x90\xeb\xfd"
"""sti; 1: nop; jmp 1b: what is pending may be taken late (KVM-3)."""
LONG_WINDOW = b"\xfb\xb9\x00\x20\xe2\xfe\xe6\x20"
"""sti; mov $8192, cx; loop .; out: many chances to take it."""


@pytest.mark.parametrize(("tpr", "port"), [(0x40, 0x10), (0x4F, 0x10), (0x50, 0x20), (0xF0, 0x20)])
def test_task_priority_holds_delivery_back(vm: Vm, tpr: int, port: int) -> None:
    """A guest with interrupts on takes vector 0x51 unless TPR's class is as high."""
    vcpu = vm.vcpus[1]
    vcpu.set_registers({APIC_TPR: tpr})
    vcpu.set_handler(0x51)
    vm.signal_msi(0xFEE01000, 0x51)

    assert vcpu.run_real_mode(LONG_WINDOW if port == 0x20 else ENDLESS_WINDOW, 0) == port


def test_a_guest_that_does_not_end_is_ended(vm: Vm, monkeypatch: pytest.MonkeyPatch) -> None:
    """jmp $ is left after the patience, with a harness error."""
    monkeypatch.setattr(machines, "PATIENCE", 0.4)

    with pytest.raises(machines.HarnessError, match="vCPU 0"):
        vm.vcpus[0].run_real_mode(b"\xeb\xfe", 0)


def shown(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What a reproducer says, which needs the kernel and a compiler alone."""
    program, source = folder / name, Path(__file__).parents[3] / "examples" / "real" / f"{name}.c"
    subprocess.run(["cc", "-Wall", "-Wextra", "-Werror", "-o", program, source], check=True, timeout=60)
    return subprocess.run([program], capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_kvm_1_no_isr_while_a_handler_runs(adapter: KvmLapic, tmp_path: Path) -> None:
    """The program says what the adapter found when it probed."""
    told = shown("kvm_isr", tmp_path)

    assert told.returncode == (1 if NO_ISR in adapter.absent else 0), told
    assert "ISR[0x51]" in told.stdout


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_kvm_3_a_pending_interrupt_is_late(vm: Vm, tmp_path: Path) -> None:
    """The program sees what a guest of ours sees."""
    vcpu = vm.vcpus[1]
    vcpu.set_handler(0x51)
    vm.signal_msi(0xFEE01000, 0x51)
    late = vcpu.run_real_mode(b"\xfb" + b"\x90" * 64 + b"\xe6\x20", 0) == 0x20

    told = shown("kvm_window", tmp_path)

    assert told.returncode == (1 if late else 0), told


def test_without_kvm_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence."""
    monkeypatch.setattr("conformance.real.kvm_lapic.adapter.Kvm", lambda: machines.Kvm("/nowhere"))

    with pytest.raises(UsageError, match="real:kvm-lapic needs /dev/kvm: No such file"):
        KvmLapic()


def test_nothing_stays_open(adapter: KvmLapic) -> None:
    """A world gives back what it opened."""
    made = adapter.environment(None, None)
    before = len(list(Path("/proc/self/fd").iterdir()))

    made.perform(KVM_LAPIC[0].steps[0][0])
    made.close()

    assert len(list(Path("/proc/self/fd").iterdir())) == before
