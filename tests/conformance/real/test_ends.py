"""Guests that end under a trace: it is taken once more, and only what ends a guest again at the same step is told."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from conformance.candidates.load import from_adapter
from conformance.engines import campaign, machine
from conformance.engines.context import Context
from conformance.lockstep import Report, run_trace
from conformance.model.step import Step
from conformance.model.tdp_mirror.operations import Prefault, VcpuCreate, WrprotSlot
from conformance.real.guest.channel import storing
from conformance.real.guest.world import outside
from conformance.real.linux_avic import LinuxAvic
from conformance.real.linux_tdpmmu import LinuxTdpMmu
from conformance.real.linux_tdpmmu.adapter import PLAIN
from conformance.real.linux_tdpmmu.world import TdpWorld
from conformance.subsystem import subsystem
from conformance.trace import Trace
from conformance.verdict import NOT_TRIED, HarnessError

OPS = (VcpuCreate(0), Prefault(0, 0), WrprotSlot(0), Prefault(0, 0x1000))
ALWAYS = range(1, 1_000_000)


@pytest.fixture(autouse=True)
def nothing_lost(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What tests do to emulators is told in them alone, and is not done where the adapter asks what there is."""
    monkeypatch.setattr(TdpWorld, "lost", {})
    monkeypatch.setattr(LinuxTdpMmu, "prefaults", LinuxTdpMmu(kernel).prefaults)


def kill(world: TdpWorld) -> None:
    """As if the emulator died of its own."""
    os.kill(world.guest.process.pid, signal.SIGKILL)


def panic(world: TdpWorld) -> None:
    """The guest's kernel ends."""
    world.channel.one(storing("/proc/sysrq-trigger", b"c"))


def ending(
    monkeypatch: pytest.MonkeyPatch, name: str, how: Callable[[TdpWorld], None], times: tuple[int, ...] | range
) -> None:
    """Let guests end in a method of the world, before its first, second, … call."""
    method: Callable[..., Any] = getattr(TdpWorld, name)
    calls = iter(ALWAYS)

    def ends(world: TdpWorld, *arguments: Any) -> Any:
        if next(calls) in times:
            how(world)
        return method(world, *arguments)

    operations = {op: ends if function is method else function for op, function in TdpWorld.OPERATIONS.items()}
    monkeypatch.setattr(TdpWorld, "OPERATIONS", operations)
    monkeypatch.setattr(TdpWorld, name, ends)


def judged(kernel: str) -> Report:
    """What a trace of four steps shows."""
    candidate = from_adapter(LinuxTdpMmu(kernel), "real:linux")
    trace = Trace("tdp_mirror", candidate.profile, PLAIN, tuple(Step(op) for op in OPS))
    return run_trace(candidate.part(subsystem("tdp_mirror")), trace, candidate.factory)


def gate(kernel: str, *engines: Callable[[Context], None], steps: int = 30) -> Context:
    """A short form of a gate; what is known of the kernel is not minimised."""
    candidate = from_adapter(LinuxTdpMmu(kernel), "real:linux")
    of = candidate.part(subsystem("tdp_mirror"))
    context = Context(of, candidate, candidate.profile, steps=steps, examples=2, length=5)
    context.known |= set(LinuxTdpMmu.findings)
    for run in engines:
        run(context)
    return context


@pytest.mark.parametrize("where", ["set_up", "prefault", "look", "clean"])
def test_an_emulator_that_is_killed_once_is_nobodys_finding(
    kernel: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the beginning of a trace, in a step, in a look at it, at the end: all steps are judged in a fresh guest."""
    ending(monkeypatch, where, kill, (1,))

    report = judged(kernel)

    assert report.failure is None, report.failure
    assert report.tally.steps == len(OPS)
    assert not TdpWorld.lost


def test_a_gate_goes_on_behind_emulators_that_are_killed(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It judges the same steps, and finds the same."""
    undisturbed = gate(kernel, campaign.run, machine.run)
    ending(monkeypatch, "set_up", kill, (2,))
    ending(monkeypatch, "look", kill, (5, 20))

    disturbed = gate(kernel, campaign.run, machine.run)

    assert not undisturbed.failures
    assert not disturbed.failures
    assert disturbed.tally.clauses == undisturbed.tally.clauses
    assert not TdpWorld.lost


@pytest.mark.parametrize(
    ("where", "step"), [("set_up", "at the beginning"), ("prefault", "in prefault"), ("clean", "at the end")]
)
def test_an_emulator_that_ends_at_the_same_step_again(
    kernel: str, where: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That trace ends there, which is said and is no finding; the next one is judged."""
    ending(monkeypatch, where, kill, (1, 2))

    ended, following = judged(kernel), judged(kernel)

    assert ended.failure is not None
    assert ended.failure.kind == NOT_TRIED
    assert following.failure is None, following.failure
    assert [told.partition(",")[0] for told in LinuxTdpMmu(kernel).absent] == [f"QEMU ended with SIGKILL {step}"]
    assert not LinuxAvic(kernel).absent


def test_a_gate_goes_on_behind_an_emulator_that_always_ends(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No failure, no error, and the traces without that operation are judged."""
    ending(monkeypatch, "wrprot_slot", kill, ALWAYS)

    context = gate(kernel, campaign.run, steps=12)

    assert not context.failures
    assert context.tally.steps >= 12
    assert len(TdpWorld.lost) == 1


def test_a_kernel_that_panics_once_is_nobodys_finding(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An emulator that is wrong now and then looks like that."""
    ending(monkeypatch, "prefault", panic, (1,))

    assert judged(kernel).failure is None


def test_a_kernel_that_panics_at_the_same_step_again_crashed(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the finding has what it said."""
    ending(monkeypatch, "prefault", panic, (1, 2))

    failure = judged(kernel).failure

    assert failure is not None
    assert failure.signature == f"{subsystem('tdp_mirror').robustness.id}:Prefault:crash"
    assert "Kernel panic - not syncing" in failure.detail
    assert not TdpWorld.lost


def test_a_guest_that_ends_outside_traces(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an adapter asks what kernel it is, that is an error of ours."""
    ending(monkeypatch, "set_up", kill, (1, 2))

    with (
        pytest.raises(HarnessError, match="QEMU ended with SIGKILL at the beginning, and again"),
        outside(TdpWorld(LinuxTdpMmu(kernel).kernel, PLAIN, prefaults=False)),
    ):
        pass
