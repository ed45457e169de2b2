"""Bochs' processors: the facts are as measured, what is wrong with them is known, a wrong adapter is caught."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from conformance.candidates.load import from_adapter
from conformance.engines import campaign, machine
from conformance.engines.context import Context
from conformance.lockstep import run_trace
from conformance.model.cet import operations as m
from conformance.real.adapter import RealWorld
from conformance.real.bochs_cet import BochsCet
from conformance.real.bochs_cet import machine as machines
from conformance.real.bochs_cet.adapter import FULL, WITHOUT_CET
from conformance.real.bochs_cet.machine import CLEAN, CPUID, ENDBR64, LOAD, RDMSR, WRMSR, XSAVES, Bochs
from conformance.real.bochs_cet.world import BochsWorld
from conformance.specs.cet import constants as k
from conformance.subsystem import subsystem
from conformance.verdict import HarnessError, UsageError
from tests.real_facts import BOCHS, Fact

OF = subsystem("cet")


@pytest.fixture(scope="session")
def adapter() -> BochsCet:
    """The real thing, or the sentence that says why it is not there."""
    try:
        return BochsCet()
    except UsageError as error:
        pytest.skip(str(error))


@pytest.fixture
def bochs(adapter: BochsCet) -> Bochs:
    """The processor with CET, clean."""
    made = adapter.machine(m.Host())
    made.ask(CLEAN)
    return made


@pytest.mark.parametrize("fact", BOCHS, ids=lambda fact: fact.name)
def test_the_facts_hold(adapter: BochsCet, fact: Fact) -> None:
    """What was measured is what is there, and what the model allows."""
    candidate = from_adapter(adapter, "real:bochs-cet")

    report = run_trace(candidate.part(OF), fact.trace, candidate.factory, record=True)

    assert report.failure is None, report.failure
    assert tuple(step.result for step in report.steps) == tuple(result for _, result in fact.steps)


def test_generated_accesses_do_as_the_model_says(adapter: BochsCet) -> None:
    """A short form of the gate."""
    candidate = from_adapter(adapter, "real:bochs-cet")
    context = Context(candidate.part(OF), candidate, "hardware", steps=60, examples=3)

    for engine in (campaign, machine):
        engine.run(context)

    assert not context.failures
    assert len({clause.id for clause in context.tally.clauses} & adapter.judged(OF)) > 8


class LosesWrites(BochsWorld):
    """Leaves out WRMSR."""

    def wrmsr(self, op: m.Wrmsr) -> int:
        """As if it had been done."""
        return 0


class WrongRegister(BochsWorld):
    """Reads the neighbouring MSR."""

    def rdmsr(self, op: m.Rdmsr) -> tuple[int, int]:
        """Another one."""
        return super().rdmsr(m.Rdmsr(op.vcpu, op.msr ^ 1))


class NoFaults(BochsWorld):
    """Says that nothing ever faults."""

    def ask(self, request: int, argument: int = 0, value: int = 0) -> tuple[bool, bytes]:
        """The vector is dropped."""
        return False, super().ask(request, argument, value)[1]


@pytest.mark.parametrize(("wrong", "name"), [(LosesWrites, "wrmsr"), (WrongRegister, "rdmsr"), (NoFaults, "")])
def test_a_defect_of_the_adapter_is_caught(adapter: BochsCet, wrong: type[BochsWorld], name: str) -> None:
    """So none of the verdicts is empty."""

    class Broken(BochsCet):
        """The adapter with that defect."""

        def __init__(self) -> None:
            vars(self).update(vars(adapter))

        def environment(self, config: m.Config, profile: Any) -> RealWorld:  # type: ignore[override]
            del profile
            made = wrong(partial(self.machine, config.host), self.visible)
            if name:
                kind = {"wrmsr": m.Wrmsr, "rdmsr": m.Rdmsr}[name]
                type(made).OPERATIONS = {**BochsWorld.OPERATIONS, kind: getattr(wrong, name)}
            return made

    candidate = from_adapter(Broken(), "real:broken")

    assert any(run_trace(candidate.part(OF), fact.trace, candidate.factory).failure is not None for fact in BOCHS)


# -- what is wrong with Bochs 2.7: docs/findings.md


def read(bochs: Bochs, msr: int) -> int:
    """RDMSR."""
    return int(struct.unpack_from("<Q", bochs.ask(RDMSR, msr)[1])[0])


def test_bochs_1_xsaves_takes_components_in_use_for_initial(bochs: Bochs, adapter: BochsCet) -> None:
    """XSTATE_BV lacks component 11 exactly when U_CET or PL3_SSP is not 0, so that the image loses them."""
    bochs.ask(WRMSR, k.XSS, 1 << k.CET_U)
    seen = []
    for value in (0, 1):
        bochs.ask(WRMSR, k.U_CET, value)
        bochs.ask(XSAVES, 1 << k.CET_U)
        seen.append(struct.unpack_from("<Q", bochs.ask(LOAD, 512)[1])[0] >> k.CET_U & 1)

    assert (seen == [1, 0]) == (m.Xsaves not in adapter.operations)


def test_bochs_2_xss_without_cet(adapter: BochsCet) -> None:
    """Its bits 11 and 12 are taken by a processor that has neither shadow stacks nor branch tracking."""
    bare = adapter.machine(m.Host(shstk=False, ibt=False))
    bare.ask(CLEAN)

    assert (bare.ask(WRMSR, k.XSS, 1 << k.CET_U)[0] == 0) == adapter.xss_without_cet


def test_bochs_2_the_leaf_that_names_xss_is_empty(bochs: Bochs) -> None:
    """CPUID.(0xD,1).ECX has no bit of CET, though XSS takes both."""
    told = struct.unpack("<4I", bochs.ask(CPUID, 0xD, 1)[1])

    assert bochs.ask(WRMSR, k.XSS, 0x1800)[0] == 0
    assert told[2] & 0x1800 in (0, 0x1800)


def test_bochs_3_endbr64_changes_s_cet_while_cet_is_off(bochs: Bochs) -> None:
    """TRACKER and SUPPRESS go, though the manual has it only where branch tracking is on; a later one may be right."""
    bochs.ask(WRMSR, k.S_CET, 0x1800)
    before = read(bochs, k.S_CET)
    bochs.ask(ENDBR64)

    assert before == 0x1800
    assert read(bochs, k.S_CET) in (0x1000, 0x1800)


# -- the process


def test_no_file_is_left_of_one_that_has_come_up(adapter: BochsCet) -> None:
    """A process that is killed has no time to remove them; it answers without."""
    made = Bochs(WITHOUT_CET)
    try:
        assert not machines.Path(made.folder).exists()
        assert made.ask(CLEAN) == (0, b"")
    finally:
        made.close()


def test_one_that_does_not_come_up_is_told(adapter: BochsCet, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it says of the mistake, and without a folder that stays."""
    folders = []
    monkeypatch.setattr(machines.tempfile, "mkdtemp", _noted(machines.tempfile.mkdtemp, folders))

    with pytest.raises(HarnessError, match="Bochs, model no_such_cpu, ended"):
        Bochs("no_such_cpu")

    assert len(folders) == 1
    assert not machines.Path(folders[0]).exists()


def _noted(function: Callable[..., str], results: list[str]) -> Callable[..., str]:
    """The function, whose results are noted."""

    def noting(*args: Any, **named: Any) -> str:
        results.append(function(*args, **named))
        return results[-1]

    return noting


def test_a_dead_bochs_is_told_and_leaves_nothing(adapter: BochsCet) -> None:
    """The harness error says that it ended."""
    made = Bochs(WITHOUT_CET)
    assert made.process is not None
    pid = made.process.pid
    made.process.kill()
    made.process.wait()

    with pytest.raises(HarnessError, match=r"ended|did not answer"):
        made.ask(RDMSR, k.U_CET)
    made.close()

    with pytest.raises(ProcessLookupError):
        machines.os.kill(pid, 0)
    assert not machines.Path(made.folder).exists()


def test_what_is_missing_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what has it."""
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(UsageError, match="needs bochs and as and ld, not installed here"):
        machines.tools()


def test_one_that_has_died_is_started_again(adapter: BochsCet) -> None:
    """The next world has another, which answers."""
    made = machines.machine(WITHOUT_CET)
    assert machines.machine(WITHOUT_CET) is made
    assert made.process is not None
    made.process.kill()
    made.process.wait()

    again = machines.machine(WITHOUT_CET)

    assert again is not made
    assert again.ask(CLEAN) == (0, b"")


def test_one_of_another_process_is_not_asked(adapter: BochsCet) -> None:
    """A process that was forked starts its own, and lets that one be."""
    made = machines.machine(WITHOUT_CET)
    assert made.process is not None

    child = os.fork()
    if not child:
        alive = made.alive
        made.close()
        os._exit(int(alive))

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert made.process.poll() is None
    assert made.ask(CLEAN) == (0, b"")


@pytest.mark.parametrize("times", [1, 2])
def test_a_trace_goes_on_in_a_fresh_one(adapter: BochsCet, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is killed under a trace says nothing yet; one that dies at the same step again is an error of ours."""
    left = [times]
    rdmsr = BochsWorld.OPERATIONS[m.Rdmsr]

    def killing(world: BochsWorld, op: m.Rdmsr) -> Any:
        if left[0] and op.msr == k.U_CET:
            left[0] -= 1
            assert world.bochs.process is not None
            world.bochs.process.kill()
            world.bochs.process.wait()
        return rdmsr(world, op)

    monkeypatch.setattr(BochsWorld, "OPERATIONS", {**BochsWorld.OPERATIONS, m.Rdmsr: killing})
    world = adapter.environment(m.Config(FULL, (m.Cpuid(),)), None)
    world.perform(m.Wrmsr(0, k.U_CET, 5))

    if times == 2:
        with pytest.raises(HarnessError, match="Bochs, model tigerlake, ended"):
            world.perform(m.Rdmsr(0, k.U_CET))
    else:
        assert world.perform(m.Rdmsr(0, k.U_CET)) == (0, 5)


@pytest.fixture(scope="session", autouse=True)
def _ended() -> Iterator[None]:
    """The processors of this process end with the tests."""
    yield
    machines.end_all()
