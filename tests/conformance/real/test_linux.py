"""Debian kernels in guests: the facts are as they were measured, and an adapter that is wrong is caught."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from errno import EBADF
from pathlib import Path
from typing import Any

import pytest

from conformance.candidates.load import Candidate, from_adapter, load
from conformance.commands.main import invoke
from conformance.engines import campaign, machine
from conformance.engines.context import Context
from conformance.lockstep import run_trace
from conformance.model.avic import operations as avic
from conformance.model.step import Step
from conformance.model.tdp_mirror import operations as tdp
from conformance.real import adapter as adapters
from conformance.real.adapter import Adapter, RealWorld
from conformance.real.guest import functions, kvm, packages
from conformance.real.guest import machine as machines
from conformance.real.guest.channel import Back, call
from conformance.real.guest.machine import Guest
from conformance.real.guest.world import outside
from conformance.real.linux_avic import LinuxAvic
from conformance.real.linux_avic.world import AvicWorld
from conformance.real.linux_tdpmmu import LinuxTdpMmu
from conformance.real.linux_tdpmmu.world import TdpWorld
from conformance.real.linux_uio import LinuxUio
from conformance.real.linux_uio.world import Uio
from conformance.real.linux_vfio import LinuxVfio
from conformance.real.linux_vfio.world import Vfio
from conformance.specs.avic.clauses import ACTIVATION_SETS_CONTROLS_AND_INTERCEPTS
from conformance.specs.avic.constants import ADDRESS_BITS, VMCB_INT_CTL, VMCB_LOGICAL_TABLE
from conformance.subsystem import subsystem
from conformance.trace import Trace
from conformance.verdict import HarnessError, UsageError, Violation
from tests.conformance.real.test_guest import descriptors
from tests.linux_facts import ALIASED, AVIC, FACTS, FOUND, PREFAULT, TDPMMU, UIO, VFIO
from tests.real_facts import Fact

KINDS: dict[str, type[Adapter]] = {
    "linux_vfio": LinuxVfio,
    "linux_uio": LinuxUio,
    "linux_avic": LinuxAvic,
    "linux_tdpmmu": LinuxTdpMmu,
}
SUBSYSTEM = {"linux_vfio": "uio_msi", "linux_uio": "uio_msi", "linux_avic": "avic", "linux_tdpmmu": "tdp_mirror"}
SHOWN = {"linux_vfio": VFIO, "linux_uio": UIO, "linux_avic": AVIC, "linux_tdpmmu": TDPMMU}


def made(kind: type[Adapter], version: str) -> Candidate:
    """An adapter of that kernel as a candidate."""
    return from_adapter(kind(version), "real:linux")  # type: ignore[call-arg]  # they take a version


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: f"{fact.adapter}-{fact.name}")
def test_the_facts_hold(kernel: str, fact: Fact) -> None:
    """What was measured is what is there, and what the model allows."""
    candidate = made(KINDS[fact.adapter], kernel)
    if fact in PREFAULT and not LinuxTdpMmu(kernel).prefaults:
        pytest.skip(f"no KVM_PRE_FAULT_MEMORY in {kernel}")
    if fact in ALIASED and not LinuxAvic(kernel).tells_aliases:
        pytest.skip(f"AVIC of {kernel} does not tell aliases: LINUX-8")

    report = run_trace(candidate.part(subsystem(fact.subsystem)), fact.trace, candidate.factory, record=True)

    assert report.failure is None, report.failure
    assert tuple(step.result for step in report.steps) == tuple(result for _, result in fact.steps)


@pytest.mark.parametrize("name", KINDS)
def test_generated_traces_are_judged(kernel: str, name: str) -> None:
    """A short form of the gate: no failure but those that are settled as findings."""
    candidate = made(KINDS[name], kernel)
    of = candidate.part(subsystem(SUBSYSTEM[name]))
    context = Context(of, candidate, candidate.profile, steps=60, examples=3)

    campaign.run(context)
    machine.run(context)

    assert candidate.adapter is not None
    assert {failure.signature for failure in context.failures} <= set(candidate.adapter.findings)
    assert context.tally.steps > 60


# -- defects in the path of the adapter


def _wrong_vector(world: Vfio, op: Any) -> int:
    world.doorbell.ring(op.vector ^ 1)
    return 0


def _no_set_irqs(_world: Vfio, _op: Any) -> int:
    return 0


def _lost_event(world: Uio, op: Any) -> int:
    world.function.set_command(2, 0)
    return 0


def _wrong_delivery(world: AvicWorld, op: Any) -> int:
    return world.deliver(avic.Deliver(op.id, op.vector ^ 1, op.level))


def _no_set_lapic(_world: AvicWorld, _op: Any) -> int:
    return 0


def _pages_stay(_world: TdpWorld, _op: Any) -> int:
    return 0


def _another_page(world: TdpWorld, op: Any) -> int:
    return world.prefault(tdp.Prefault(op.vcpu, op.gpa ^ 0x1000, op.size, op.flags))


BROKEN: dict[str, tuple[str, type, Callable[[Any, Any], Any]]] = {
    "vfio: wrong vector": ("linux_vfio", VFIO[0].steps[4][0].__class__, _wrong_vector),
    "vfio: no SET_IRQS": ("linux_vfio", VFIO[0].steps[2][0].__class__, _no_set_irqs),
    "uio: level not asserted": ("linux_uio", UIO[0].steps[3][0].__class__, _lost_event),
    "avic: wrong vector": ("linux_avic", avic.Deliver, _wrong_delivery),
    "avic: no KVM_SET_LAPIC": ("linux_avic", avic.SetLapic, _no_set_lapic),
    "tdpmmu: pages stay": ("linux_tdpmmu", tdp.HvaInvalidate, _pages_stay),
    "tdpmmu: another page": ("linux_tdpmmu", tdp.Prefault, _another_page),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_defect_of_the_adapter_is_caught(kernel: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So none of the verdicts is empty."""
    name, op, broken = BROKEN[what]
    candidate = made(KINDS[name], kernel)
    worlds: dict[str, type[RealWorld]] = {
        "linux_vfio": Vfio, "linux_uio": Uio, "linux_avic": AvicWorld, "linux_tdpmmu": TdpWorld,
    }  # fmt: skip
    monkeypatch.setattr(worlds[name], "OPERATIONS", {**worlds[name].OPERATIONS, op: broken})
    of = candidate.part(subsystem(SUBSYSTEM[name]))

    caught = [fact.name for fact in SHOWN[name] if run_trace(of, fact.trace, candidate.factory).failure is not None]

    assert caught


# -- findings


@pytest.mark.parametrize("finding", FOUND)
def test_linux_shows_its_findings(kernel: str, finding: str) -> None:
    """The shipped trace of each; those of a prefault show nothing where there is none, or a later one.

    Nor does that of an alias where the adapter makes none, which is LINUX-8.
    """
    fact = FOUND[finding]
    candidate = made(KINDS[fact.adapter], kernel)

    report = run_trace(candidate.part(subsystem(fact.subsystem)), fact.trace, candidate.factory)

    is_alias = finding.endswith("by an alias") and not LinuxAvic(kernel).tells_aliases
    if is_alias or (fact.adapter == "linux_tdpmmu" and kernel != "6.12"):
        assert report.failure is None
    else:
        assert report.failure is not None
        assert candidate.adapter is not None
        assert candidate.adapter.findings[report.failure.signature] == finding.partition(" ")[0]


@pytest.mark.parametrize(("tpr", "steps"), [(0xF0, 2), (0xFF, 1)])
def test_linux_2_no_vcpu_spins_that_would_lose_them(kernel: str, tpr: int, steps: int) -> None:
    """The host would decide in which step they are lost."""
    candidate = made(LinuxAvic, kernel)
    trace = Trace("avic", candidate.profile, avic.Config(vcpus=(0,)), (Step(avic.SetLapic(0, tpr)), Step(avic.Load(0))))

    report = run_trace(candidate.part(subsystem("avic")), trace, candidate.factory)

    assert report.failure is None, report.failure
    assert report.tally.steps == steps


def test_avic_that_is_half_on_is_seen(kernel: str) -> None:
    """In the VMCB of a vCPU that has been in a guest."""
    with outside(AvicWorld(packages.kernel(kernel), avic.Config(vcpus=(0,)))) as world:
        world.perform(avic.Enter(0))
        at = world.vcpus[0, 0].vmcb + VMCB_INT_CTL
        (control,) = struct.unpack_from("<I", world.guest.ram, at)
        struct.pack_into("<I", world.guest.ram, at, control & ~(1 << 31))

        with pytest.raises(Violation, match="bits 31:30 of int_ctl are 0b00, the maximum index is") as seen:
            world.finish(avic.Enter(0))

    assert seen.value.clause is ACTIVATION_SETS_CONTROLS_AND_INTERCEPTS


def test_linux_8_aliases_are_told_from_6_3_on(kernel: str) -> None:
    """Before, AVIC stays on, and a logical id of two bits has an entry that means one."""
    with outside(AvicWorld(packages.kernel(kernel), avic.Config(vcpus=(0, 1)))) as world:
        world.set_lapic(avic.SetLapic(0, ldr=3))
        vcpu = world.vcpus[0, 0]
        (entry,) = struct.unpack_from("<I", world.guest.ram, vcpu.read(VMCB_LOGICAL_TABLE) & ADDRESS_BITS)
        active = world.visit(avic.Enter(0))

    assert (entry, active) == ((0, 0) if LinuxAvic(kernel).tells_aliases else (1 << 31, 1))


def test_an_id_that_has_no_entry_is_asked_where_it_is_refused(kernel: str) -> None:
    """Where it switches AVIC off instead, the clause is not applicable."""
    adapter = LinuxAvic(kernel)

    assert ("AVIC-011" in adapter.judged(subsystem("avic"))) == (adapter.profile == "arch")


@pytest.mark.parametrize("name", ["kvm_prefault", "kvm_tpr"])
def test_the_programs_compile_and_end(name: str, tmp_path: Path) -> None:
    """They need only the kernel: 0 and 1 say what it does, 77 that it cannot be asked here."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler on this machine")
    source = Path(__file__).parents[3] / "examples" / "real" / f"{name}.c"
    subprocess.run([compiler, "-Wall", "-Wextra", "-Werror", "-o", tmp_path / name, source], check=True, timeout=60)

    done = subprocess.run([tmp_path / name], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode in (0, 1, 77)
    assert done.stdout or done.stderr


# -- what is not there, and what is left


@pytest.mark.parametrize("name", KINDS)
def test_rates_are_measured(kernel: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """How fast it is depends on the machine; that it can be told does not."""
    monkeypatch.setattr(adapters, "_PATIENCE", 0.0)
    rates = KINDS[name](kernel).rates()  # type: ignore[call-arg]  # they take a version

    assert rates
    assert all(rate.measured > 0 for rate in rates)


def test_a_kernel_that_is_not_there() -> None:
    """One sentence that says what to do."""
    with pytest.raises(UsageError, match="conformance real fetch"):
        load("real:linux-vfio@3.2", subsystem("uio_msi"))
    with pytest.raises(UsageError, match="which version"):
        load("real:linux-vfio", subsystem("uio_msi"))


def test_an_unknown_series_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, without asking the archive."""
    assert invoke(["real", "fetch", "newest"]) == 2
    assert "no kernel series" in capsys.readouterr().err


def test_the_doctor_looks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache is said to be empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    assert invoke(["real", "doctor"]) == 2
    assert "run `conformance real fetch`" in capsys.readouterr().out


def test_qemu_ends_with_its_process(kernel: str) -> None:
    """Whoever started a guest may die in any way."""
    code = (
        "import os, signal\n"
        "from conformance.real.guest.kvm import started\n"
        "from conformance.real.guest.packages import kernel\n"
        f"print(started(kernel({kernel!r})).process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)

    pid = int(done.stdout)
    assert done.returncode == -9
    _await_end(pid)


def test_no_vm_of_a_world_is_the_first_or_the_last(kernel: str) -> None:
    """One is open as long as the guest runs: with the first and the last the kernel patches its own text."""
    guest = kvm.started(packages.kernel(kernel))

    links = guest.channel.ask([call("readlink", f"/proc/self/fd/{n}", bytes(64), 64) for n in range(16)])

    names = [link.data[0].rstrip(b"\0").decode() for link in links if link.value > 0]
    assert [name for name in names if "kvm" in name] == ["/dev/kvm", "anon_inode:kvm-vm", "anon_inode:kvm-vcpu:0"]


def test_a_request_uses_what_one_before_it_gave(kernel: str) -> None:
    """In the same turn."""
    channel = kvm.started(packages.kernel(kernel)).channel

    made, moved, closed, _ = channel.must_all([
        call("eventfd2", 0, 0), call("dup3", Back(1), 300, 0), call("close", Back(2)), call("close", 300),
    ])  # fmt: skip

    assert (moved.value, closed.value) == (300, 0)
    assert channel.one(call("close", made.value)).value == -EBADF


def test_a_wait_for_memory_ends(kernel: str) -> None:
    """At once where it is not that any more, and after the time where it stays."""
    channel = kvm.started(packages.kernel(kernel)).channel
    mapped, _, changed, same, _ = channel.must_all([
        kvm.mapping(4096, 0x22, 2**64 - 1), f"p {Back(1)} 7", f"u {Back(2)} 8 10000", f"u {Back(3, 4)} 0 1",
        call("munmap", Back(4), 4096),
    ])  # fmt: skip

    assert mapped.value
    assert (changed.value, same.value) == (1, 0)


def test_an_ended_guest_holds_nothing(kernel: str) -> None:
    """Its sockets, its memory and the eventfds of its doorbells are closed."""
    machine = functions.machine(packages.kernel(kernel))
    before = descriptors()
    started = Guest(machine, functions.serve)
    during = descriptors()

    started.close()

    assert during > before + sum(functions.SIZES)
    assert descriptors() == before


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where guests of this test are kept; its name would be two words to a shell."""
    folder = tmp_path / "two words"
    monkeypatch.setattr(machines, "cache", lambda: folder)
    return folder / "guests"


def test_a_snapshot_that_cannot_be_restored_is_removed(kernel: str, empty: Path) -> None:
    """So that the guest after that starts without it."""
    machine = machines.Machine(packages.kernel(kernel))
    Guest(machine).close()
    (snapshot,) = empty.glob("*.state")
    restored = Guest(machine)
    restored.close()
    with snapshot.open("r+b") as file:
        file.truncate(1 << 20)

    with pytest.raises(HarnessError):
        Guest(machine)

    assert restored.restored
    assert not snapshot.exists()


def test_a_snapshot_that_is_not_taken_leaves_no_file(kernel: str, empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be a hundred megabytes long by then."""

    def fails(_guest: Guest) -> bool:
        raise HarnessError("QEMU could not write the snapshot")

    monkeypatch.setattr(Guest, "_is_taken", fails)

    with pytest.raises(HarnessError, match="could not write"):
        Guest(machines.Machine(packages.kernel(kernel)))

    assert {path.suffix for path in empty.iterdir()} == {".gz", ".lock"}


def _await_end(pid: int) -> None:
    """Until the process is gone or a zombie of somebody else's; TimeoutError after ten seconds."""
    import time

    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return
        if state == "Z":
            return
        time.sleep(0.05)
    raise TimeoutError(f"process {pid} still runs")
