"""What one trace did, for people: the calls of each step in order, and which of them changed what can be observed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from conformance.company import Done
from conformance.environment.door import Call, Environment
from conformance.environment.foreign import plain
from conformance.model.step import Step


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step of a replay did, for people."""

    step: Step
    done: tuple[Done, ...]
    """Operations that happened: the step's own and then those during it, or both threads'. A result of None
    belongs to an operation that returns nothing, or did not return."""
    calls: tuple[tuple[int, Call], ...]
    """(which of `done`, environment call), in the order in which the calls took effect."""
    expected: Any
    """View of the outcome that came closest; None when the step did not end."""
    got: Any
    """View observed; None when the step did not end."""
    wrote: tuple[tuple[str, int, Call], ...] = ()
    """(view field, which of `done`, environment call), for each call that changed what can be observed."""

    @property
    def result(self) -> Any:
        """What the step's own operation returned."""
        return self.done[0].result

    @property
    def inner(self) -> tuple[Done, ...]:
        """Operations that happened during the step's own."""
        return self.done[1:]


LOOKED = 300
"""Calls of one operation after which no further one is looked at for what it changed: a flood makes ten thousand."""


class Recorder:
    """Listens to the calls of a trace while it is replayed."""

    __slots__ = ("env", "fields", "order", "seen", "wrote")

    keep: ClassVar[Callable[[int, Call], None] | None] = None
    """Notes each call and its place in the operation, where they are to be known even if this process ends in it."""

    def __init__(self, env: Environment, fields: tuple[str, ...]) -> None:
        self.env = env
        self.fields = fields
        """Of the view, in the order of blame."""
        self.order: list[tuple[list[Call], int]] = []
        """The calls of the step, in the order in which they took effect: log and place in it."""
        self.seen: Any = None
        """What could be observed after the last call."""
        self.wrote: list[tuple[str, list[Call], int]] = []
        """Field, log and place of each call that changed what can be observed."""

    def log(self) -> list[Call]:
        """A log for the calls of one operation."""
        return _Log(self.order, self._after_call)

    def take(self, step: Step, done: Sequence[Done], expected: Any, observed: Any) -> StepReport:
        """What the step did that ends here."""
        logs = {id(d.frame.log): i for i, d in enumerate(done)}
        calls = tuple((logs[id(log)], log[at]) for log, at in self.order if id(log) in logs)
        wrote = tuple((name, logs[id(log)], log[at]) for name, log, at in self.wrote if id(log) in logs)
        self.order.clear()
        self.wrote.clear()
        self.seen = observed
        return StepReport(step, tuple(done), calls, expected, observed, wrote)

    def _after_call(self, log: list[Call], at: int) -> None:
        """See what a call changed; in the middle of an operation a view need not be to be had."""
        if at >= LOOKED:
            return
        try:
            view = self.env.view()
        except Exception:  # half-way through an operation, where nobody asks a world to be whole
            return
        last, self.seen = self.seen, view
        if last is not None and view != last:
            changed = [name for name in self.fields if getattr(view, name) != getattr(last, name)]
            self.wrote += [(name, log, at) for name in changed]


class _Log(list[Call]):
    """A frame's log that also notes the order in which calls take effect, and tells of each."""

    __slots__ = ("after", "order")

    def __init__(self, order: list[tuple[list[Call], int]], after: Callable[[list[Call], int], None]) -> None:
        super().__init__()
        self.order = order
        self.after = after

    def append(self, item: Call) -> None:
        item = _plain(item)
        self.order.append((self, len(self)))
        if Recorder.keep is not None:
            Recorder.keep(len(self), item)
        super().append(item)

    def __setitem__(self, at: Any, item: Any) -> None:
        item = _plain(item)
        super().__setitem__(at, item)
        if Recorder.keep is not None:
            Recorder.keep(at, item)
        self.after(self, at)


def _plain(call: Call) -> Call:
    """A call of which other processes are told; whoever listens to it has none of the candidate's classes."""
    name, args, result = call
    return name, plain(args), result
