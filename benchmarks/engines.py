"""Steps per second of every source of traces, and of a bare Hypothesis machine for the same job.

All figures come from one run on the same machine, so their ratios mean something. The bare
machine is what one would write by hand for uio_msi: a dict for a model, a handful of rules,
assertions in the rules; it knows no faults, no company, no clauses.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from conformance.candidates.load import load
from conformance.engines import campaign, explore, machine
from conformance.engines.context import Context
from conformance.environment import uio_msi as environment
from conformance.environment.door import Frame
from conformance.model import uio_msi as model
from conformance.model.uio_msi.operations import FIRST_FD, Close, IrqSet, Open, Probe, RaiseVector
from conformance.specs.uio_msi.constants import EBADF, ERANGE
from conformance.subsystem import subsystem

EXAMPLES = 150
VECTORS = 2


class Bare(RuleBasedStateMachine):
    """A UIO MSI-X driver against a dict."""

    taken = 0
    """Steps of all examples."""

    @initialize()
    def load(self) -> None:
        """Bind the driver."""
        of = subsystem("uio_msi")
        self.env = environment.FAST(model.Config(), of.profiles["upstream"])
        self.env.start(load("builtin:upstream", of).factory)
        self.opens = 0
        self.wired: dict[int, int] = {}
        self.pending: set[int] = set()
        self.counts = [0, 0]
        self.before = self.env.view().counters
        assert self.do(Probe()) == 0

    def do(self, op: Any) -> Any:
        """Perform one operation."""
        Bare.taken += 1
        self.env.frame = Frame()
        return self.env.perform(op)

    @rule()
    def open(self) -> None:
        """Open a handle."""
        assert self.do(Open()) == 0
        self.opens += 1

    @precondition(lambda self: self.opens)
    @rule()
    def close(self) -> None:
        """Close a handle; the last one unmaps all."""
        assert self.do(Close()) == 0
        self.opens -= 1
        if not self.opens:
            self.wired.clear()
            self.pending.clear()

    @precondition(lambda self: self.opens)
    @rule(vector=st.integers(0, VECTORS), eventfd=st.sampled_from([0, 1, -1, 99]))
    def irq_set(self, vector: int, eventfd: int) -> None:
        """Map, unmap, or be refused."""
        fd = FIRST_FD + eventfd if eventfd in {0, 1} else -1 if eventfd == -1 else 2**31 - 1
        result = self.do(IrqSet(vector, fd))
        if vector >= VECTORS:
            assert result == -ERANGE
        elif eventfd == -1:
            assert result == 0
            self.wired.pop(vector, None)
        elif eventfd == 99:
            assert result == -EBADF
        else:
            assert result == 0
            self.wired[vector] = eventfd
            if vector in self.pending:
                self.pending.remove(vector)
                self.counts[eventfd] += 1

    @precondition(lambda self: self.opens)
    @rule(vector=st.integers(0, VECTORS - 1))
    def raise_vector(self, vector: int) -> None:
        """An event: signalled where mapped, held where not."""
        self.do(RaiseVector(vector))
        if vector in self.wired:
            self.counts[self.wired[vector]] += 1
        else:
            self.pending.add(vector)

    @invariant()
    def counters_agree(self) -> None:
        """Each eventfd has what it should."""
        if hasattr(self, "env"):
            now = self.env.view().counters
            assert [now[i] - self.before[i] for i in (0, 1)] == self.counts


def bare() -> float:
    """Steps per second of the bare machine."""
    chosen = settings(
        max_examples=EXAMPLES,
        stateful_step_count=machine.STEPS,
        deadline=None,
        database=None,
        derandomize=True,
        verbosity=Verbosity.quiet,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    started = time.process_time()
    run_state_machine_as_test(Bare, settings=chosen)
    return Bare.taken / (time.process_time() - started)


def engine(run: Callable[[Context], None], steps: int | None = None) -> float:
    """Steps per second of one engine over the correct candidate."""
    of = subsystem("uio_msi")
    candidate = load("builtin:upstream", of)
    context = Context(subsystem=of, candidate=candidate, profile=candidate.profile, steps=steps)
    started = time.process_time()
    run(context)
    return context.tally.steps / (time.process_time() - started)


def main() -> None:
    """Measure and print."""
    engine(campaign.run, 5_000)
    rates = {
        "bare Hypothesis machine, by hand": bare(),
        "machine": engine(machine.run),
        "campaign": engine(campaign.run, 150_000),
        "explore": engine(explore.run),
    }
    print("uio_msi, builtin:upstream, steps per second of processor time")
    for name, rate in rates.items():
        print(f"  {name:<34}{rate:>10,.0f}   {rate / rates['machine']:>6.1f} x machine")


if __name__ == "__main__":
    main()
