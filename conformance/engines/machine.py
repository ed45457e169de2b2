"""The Hypothesis state machine of a subsystem: structured values, each drawn where it fits."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis.errors import Flaky, HypothesisWarning, StopTest, Unsatisfiable
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants
from hypothesis.stateful import run_state_machine_as_test

from conformance.engines.context import HANGS, Context
from conformance.engines.experience import Experience
from conformance.engines.garbage import collected_seldom
from conformance.engines.minimise import minimiser
from conformance.machines.base import Enough, Machine, machine_of
from conformance.verdict import Failure, HarnessError, Tally

EXAMPLES = 480
"""Examples in the gate, divided among the parts."""
ROUND = 24
"""Examples of one round of the hunt, and between two looks at the clock."""
STEPS = 50
"""Steps of one example at most."""

IDLE = "rules that found nothing to do"
UNSTEADY = "rounds ended by a candidate that is not deterministic"
"""Figures of the report."""

__all__ = ["EXAMPLES", "STEPS", "run"]


@collected_seldom()
def run(context: Context) -> None:
    """Run the machine, in rounds with seeds of their own; in the hunt until the time is up.

    A failure is minimised when it is met, and the machine goes on behind it, in a fresh world.
    """
    if not any(context.allows(config) for config in context.subsystem.configs):
        return
    machine = machine_of(context.subsystem, context.candidate.capabilities)
    if not any(machine.table):
        return
    source = random.Random(f"machine:{context.seed}:{context.part}")
    driven = _driven(context, machine)
    left = (context.examples or EXAMPLES) // context.parts
    with without_constants():
        while not context.expired() and (context.hunting or left > 0):
            _round(context, driven, source.getrandbits(32), ROUND if context.hunting else min(ROUND, left))
            left -= ROUND


@contextmanager
def without_constants() -> Iterator[None]:
    """Keep Hypothesis from drawing constants of whatever modules are imported.

    It does so now and then, which is right for tests of those modules. What a gate finds must not depend on what
    else its process has done, nor on whether the suite is installed.
    """
    before = providers._get_local_constants
    providers._get_local_constants = Constants
    providers.CONSTANTS_CACHE.cache.clear()  # by now of values that were chosen from others
    try:
        yield
    finally:
        providers._get_local_constants = before
        providers.CONSTANTS_CACHE.cache.clear()


def _driven(context: Context, machine: type[Machine]) -> type[Machine]:
    """The machine with the candidate: one class for all rounds, since Hypothesis keeps every class that it has run."""
    warned: dict[str, Failure] = {}
    tally = Tally(context.tally.clauses)

    def note(failure: Failure) -> None:
        context.note_failure(failure, minimiser(context))
        context.known.add(failure.signature)

    members = {
        "__doc__": machine.__doc__,
        "__module__": machine.__module__,
        "factory": staticmethod(context.candidate.factory),
        "profile": context.profile,
        "environment": context.fast,
        "known": context.known,
        "on_failure": staticmethod(note),
        "on_warning": staticmethod(lambda warning: warned.setdefault(warning.signature, warning)),
        "warned": warned,
        "tally": tally,
        "seeing": Experience(),
        "stopped": staticmethod(lambda: tally.hangs >= HANGS or context.expired()),
    }
    return type(machine.__name__, (machine,), members)


def _round(context: Context, driven: Any, value: int, examples: int) -> None:
    """One Hypothesis run; what it sees of the operations helps the next one."""
    tally, warned = driven.tally, driven.warned
    driven.experience = deepcopy(driven.seeing)
    try:
        with warnings.catch_warnings():
            # Domains list many values, and a strategy's repr spells them out; nobody reads it here.
            warnings.filterwarnings("ignore", "Generating overly large repr", HypothesisWarning)
            run_state_machine_as_test(seed(value)(driven), settings=_settings(examples, context.length or STEPS))
    except Enough:
        pass
    except Flaky:
        # The same choices did not lead to the same steps: what depends on chance in a candidate is found elsewhere.
        # A round that is ended in the middle of an example looks the same to Hypothesis.
        if not context.expired():
            context.notes[UNSTEADY] = context.notes.get(UNSTEADY, 0) + 1
    except (BaseExceptionGroup, StopTest) as error:
        raise HarnessError(f"Hypothesis could not run the machine: {error}") from error
    except Unsatisfiable as error:
        raise HarnessError(f"the strategies of {context.subsystem.name} generate nothing: {error}") from error
    finally:
        context.tally.steps += tally.steps
        context.tally.traces += tally.traces
        context.tally.hangs += tally.hangs
        if driven.idle:
            context.notes[IDLE] = context.notes.get(IDLE, 0) + driven.idle
        tally.steps = tally.traces = tally.hangs = driven.idle = 0
    context.note_warnings(list(warned.values()), minimiser(context))
    warned.clear()


def _settings(examples: int, length: int) -> Any:
    return settings(
        max_examples=examples,
        stateful_step_count=length,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=Verbosity.quiet,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
