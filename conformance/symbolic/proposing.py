"""The search in a process of its own: it proposes traces, and leaves nothing of what it did to whoever judges them.

A candidate's module, or a cache of a function, that a word got into would be another candidate; z3 may run out of
memory; CrossHair's tracer is there for all code of its process. So the search is forked off, and tells traces.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import os
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from random import Random
from typing import Any

import msgspec

from conformance.candidates.load import builtin_names, load
from conformance.engines.context import Context
from conformance.runs.watchdog import watching
from conformance.subsystem import Subsystem, subsystem
from conformance.trace import Trace, from_data, to_data
from conformance.verdict import HarnessError, UsageError

SILENCE = 60.0
"""Seconds without a word after which the search is given up: z3 does not come back."""
GIVEN_UP, DIED = "symbolic searches given up", "symbolic searches that were killed"
"""Figures of the report."""


def require_crosshair(option: str) -> None:
    """UsageError when CrossHair is not there."""
    if importlib.util.find_spec("crosshair") is None or importlib.util.find_spec("z3") is None:
        raise UsageError(f"{option}: needs CrossHair, which is not installed: pip install 'conformance[symbolic]'")


def proposals(context: Context) -> Iterator[Trace]:
    """Traces to judge, as the search finds them; the notes of the context say in the end what it did.

    Raises:
        HarnessError  the search ended by a mistake of its own
    """
    require_crosshair("--engine=symbolic")
    reading, writing = os.pipe()
    left = None if context.deadline is None else context.deadline - context.clock()
    child = os.fork()
    if not child:
        os.close(reading)
        _search(context, writing, left)
    os.close(writing)
    has_ended, status = False, 0
    try:
        for data in _lines(context, reading):
            if data is None:
                has_ended = True
            elif isinstance(data, dict) and "notes" in data:
                context.notes.update(data["notes"])
            else:
                of = context.subsystem
                yield from_data(data, {of.name: of.config}, {of.name: of.operations})
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise HarnessError("symbolic: the search ended by a mistake of its own; standard error says which")
    if has_ended and os.WIFSIGNALED(status):
        context.notes[DIED] = 1


def _lines(context: Context, reading: int) -> Iterator[Any]:
    """What the search tells, line by line, until it ends or is taking too long; None last where it ended itself."""
    buffer, heard = b"", time.monotonic()
    while not context.expired():
        ready, _, _ = select.select([reading], [], [], 0.25)
        if not ready:
            if time.monotonic() - heard > SILENCE:
                context.notes[GIVEN_UP] = 1
                return
            continue
        got = os.read(reading, 1 << 16)
        if not got:
            yield None
            return
        heard = time.monotonic()
        *lines, buffer = (buffer + got).split(b"\n")
        for line in lines:
            yield msgspec.json.decode(line)
            if context.expired():
                return


def _search(context: Context, writing: int, left: float | None) -> None:
    """The child: search, for so long by the context's clock at most, tell, and end."""
    try:
        from conformance.symbolic.execution import Execution
        from conformance.symbolic.explorer import Explorer
        from conformance.symbolic.skeletons import Skeletons

        gc.disable()  # a collection in the middle of a traced instruction would be traced
        warnings.simplefilter("ignore")  # an instruction that is traced warns of what the candidate's own would not
        of, factory = carrier(context)
        random = Random(f"symbolic:{context.subsystem.name}:{context.profile}:{context.seed}")
        execution = Execution(of, factory, context.profile)
        explorer = Explorer(execution, Skeletons(context, random), random, lambda: False)
        limit, started = context.steps, context.clock()
        explorer.over = lambda: (
            (limit is not None and explorer.figures.runs >= limit)
            or (left is not None and context.clock() - started >= left)
        )
        with watching():
            for config, steps in explorer.proposals():
                _tell(writing, _notes(explorer))
                _tell(writing, to_data(Trace(of.name, context.profile, config, steps)))
        _tell(writing, _notes(explorer))
    except BrokenPipeError:
        os._exit(0)
    except BaseException as error:  # whatever it is, it must not go on as if it were the parent
        print(f"symbolic: the search ended early: {type(error).__name__}: {error}", file=sys.stderr)
        if os.environ.get("CONFORMANCE_DEBUG"):
            import traceback

            traceback.print_exc()
        os._exit(1)
    os._exit(0)


def carrier(context: Context) -> tuple[Subsystem, Callable[[Any], Any]]:
    """What runs with symbolic arguments, and in which world: the candidate, or a correct one for it if it is no Python.

    A C library and another process see ints only as they are, but model and world are the same for all, and so are
    the traces that reach their branches.
    """
    of, candidate = context.subsystem, context.candidate
    if candidate.spec.partition(":")[0] not in ("lib", "cmd", "real"):
        return of, candidate.factory
    of = subsystem(of.name)
    shipped = [load(f"builtin:{name}", of) for name in builtin_names(of) if name != "as-posted"]
    fitting = [one for one in shipped if one.profile == context.profile] or shipped
    able = [one for one in fitting if candidate.capabilities <= one.capabilities] or fitting
    return of, able[0].factory


def _tell(writing: int, data: Any) -> None:
    line = msgspec.json.encode(data) + b"\n"
    while line:
        line = line[os.write(writing, line) :]


def _notes(explorer: Any) -> dict[str, Any]:
    told = asdict(explorer.figures)
    told["branches by solving"] = told.pop("found")
    return {"notes": {f"symbolic {name}": n for name, n in told.items()}}
