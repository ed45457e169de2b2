"""The Hypothesis state machine of a subsystem: structured values, and shrinking done by others."""

from __future__ import annotations

import random
import warnings
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis.errors import Flaky, HypothesisWarning, StopTest, Unsatisfiable
from hypothesis.stateful import run_state_machine_as_test

from conformance.engines.context import Context
from conformance.engines.minimise import minimise, minimiser
from conformance.machines.base import Disagreement, Machine
from conformance.verdict import Failure, HarnessError, Tally

EXAMPLES = 60
"""Examples of one round in the gate."""
STEPS = 40
"""Steps of one example at most."""
ROUNDS = 40
"""Rounds at most: one more is run after each new failure."""

__all__ = ["EXAMPLES", "STEPS", "run"]


def run(context: Context) -> None:
    """Run the machine until a round finds nothing new; in the hunt, with fresh seeds until the time is up."""
    if context.part != 0 and not context.hunting:
        return
    if not any(context.allows(config) for config in context.subsystem.configs):
        return
    machine = context.subsystem.machine()
    source = random.Random(f"machine:{context.seed}:{context.part}")
    quiet = 0
    for _ in range(ROUNDS if not context.hunting else 1_000_000):
        if context.expired():
            return
        if not _round(context, machine, source.getrandbits(32)):
            quiet += 1
            if not context.hunting:
                return
        elif quiet:
            quiet = 0


def _round(context: Context, machine: type[Machine], value: int) -> bool:
    """One Hypothesis run; True if it found a failure not seen before."""
    found: list[Failure] = []
    warned: dict[str, Failure] = {}
    driven: Any = type(
        machine.__name__,
        (machine,),
        {
            "__doc__": machine.__doc__,
            "__module__": machine.__module__,
            "of": context.subsystem,
            "factory": staticmethod(context.candidate.factory),
            "profile": context.profile,
            "capabilities": context.candidate.capabilities,
            "known": context.known,
            "found": found,
            "warned": warned,
            "tally": Tally(context.tally.clauses),
        },
    )
    chosen = _settings(context)
    try:
        if context.hunting:
            _run(seed(value)(driven), chosen)
        else:
            _run(driven, chosen)
    except Disagreement:
        pass
    except (BaseExceptionGroup, Flaky) as error:
        if not found:
            raise HarnessError(f"Hypothesis could not run the machine: {error}") from error
    except Unsatisfiable as error:
        raise HarnessError(f"the strategies of {context.subsystem.name} generate nothing: {error}") from error
    finally:
        context.tally.steps += driven.tally.steps
        context.tally.traces += driven.tally.traces
        context.tally.hangs += driven.tally.hangs
    context.note_warnings(list(warned.values()), minimiser(context))
    last: dict[str, Failure] = {failure.signature: failure for failure in found}
    for failure in last.values():
        context.note_failure(failure, lambda f: minimise(context, f, context.subsystem.environment))
    return bool(last)


def _settings(context: Context) -> settings:
    return settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        derandomize=not context.hunting,
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=Verbosity.quiet,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


def _run(driven: Any, chosen: settings) -> None:
    try:
        with warnings.catch_warnings():
            # Domains list many values, and a strategy's repr spells them out; nobody reads it here.
            warnings.filterwarnings("ignore", "Generating overly large repr", HypothesisWarning)
            run_state_machine_as_test(driven, settings=chosen)
    except StopTest as error:
        raise HarnessError(f"Hypothesis stopped the machine: {error}") from error
