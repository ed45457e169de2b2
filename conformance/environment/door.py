"""The one door through which every environment call of a candidate passes.

`Environment.call(name, *args)` logs the call, offers a point of preemption before and after
its effect, hands the planned refusal to the simulator, and remembers the first breach. No
simulator knows which transport a call came through.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from conformance.verdict import Breach, Crash, Hang, HarnessError, UsageError, Violation
from model.step import Fault
from specs.clause import Clause

CALL_BUDGET = 100_000
"""Environment calls within one operation after which a candidate counts as hanging."""

Call = tuple[str, tuple[Any, ...], Any]
"""Name, arguments and result of one environment call; the result is None while it lasts."""


class Frame:
    """What belongs to one operation in progress: its planned faults, its calls, its log."""

    __slots__ = ("given", "log", "made", "plan", "points")

    def __init__(self, faults: tuple[Fault, ...] = (), made: dict[str, int] | None = None) -> None:
        self.plan: dict[tuple[str, int], int] = {(f.call, f.nth): f.value for f in faults} if faults else {}
        self.given: dict[str, int] = {}
        """Refusals that the candidate really met, by call; the first one of each call."""
        self.log: list[Call] = []
        self.made: dict[str, int] = {} if faults or made is None else made
        """How often each call was made: in this operation when faults are planned, else in the whole trace."""
        self.points = 0
        """Points of preemption passed so far."""


class Environment:
    """Base of the five environments: the door, the log, the plan of faults, the way in.

    A subclass gives `PORT` (the Protocol of environment calls; it has a method of each name),
    `OPERATIONS` (what performs each operation) and `view()`.
    """

    PORT: ClassVar[type]
    """The Protocol in `specs/` that lists the environment calls."""
    OPERATIONS: ClassVar[Mapping[type, Callable[[Any, Any], Any]]]
    """Operation type -> unbound method that performs it and returns its result."""
    CALL_CLAUSES: ClassVar[Mapping[str, tuple[Clause, ...]]] = {}
    """Clauses that each environment call exercises, because the door checks them there."""

    entries: ClassVar[int] = 0
    """Entries into any candidate so far; the watchdog looks at it."""
    inside: ClassVar[int] = 0
    """How deep the harness is inside a candidate."""

    _handlers: ClassVar[dict[str, Callable[..., Any]]]
    _port: ClassVar[type]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "PORT" not in cls.__dict__:
            return
        names = [name for name, member in vars(cls.PORT).items() if inspect.isfunction(member) and name[0] != "_"]
        missing = [name for name in names if not hasattr(cls, name)]
        if missing:
            raise TypeError(f"{cls.__name__} lacks the environment calls {', '.join(missing)} of {cls.PORT.__name__}")
        cls._handlers = {name: getattr(cls, name) for name in names}
        cls._port = _port_class(cls.PORT.__name__, names)

    def __init__(self) -> None:
        self.frame = Frame()
        self.breach: Breach | None = None
        """The first breach; after it nothing the candidate does is believed."""
        self.preempt: Callable[[str], None] | None = None
        """Called at each point of preemption while somebody wants to know."""
        self.atomic = 0
        """Depth of atomic context (interrupt handlers, spinlocks); no preemption while above 0."""
        self.held: dict[Clause, int] = {}
        """Clauses that a simulator exercised itself; see `hold`."""
        self.driver: Any = None
        """The candidate's object."""
        self.calls = CALL_BUDGET
        self.scheduler: Any = None
        """The `Scheduler` while two threads run; locks and waits then call its `block`."""

    # -- the candidate's way out

    @property
    def port(self) -> Any:
        """What a Python candidate is given: an object with one method per environment call."""
        return self._port(self.call)

    def call(self, name: str, *args: Any) -> Any:
        """Make one environment call on behalf of the candidate, and return its result.

        Raises:
            Breach  the call breaks the protocol, or an earlier one did
        """
        if self.breach is not None:
            raise self.breach
        frame = self.frame
        made = frame.made
        made[name] = made.get(name, 0) + 1
        log = frame.log
        if len(log) >= self.calls:
            raise self.remember(Hang(f"more than {self.calls} environment calls in one operation, the last one {name}"))
        if self.preempt is not None and not self.atomic:
            self.preempt(name)
        at = len(log)
        log.append((name, args, None))
        try:
            result = self._handlers[name](self, *args)
        except Breach as breach:
            raise self.remember(self._wrong_type(name, args) or breach) from None
        except (HarnessError, UsageError):
            raise
        except Exception as error:
            wrong = self._wrong_type(name, args)
            if wrong is None:
                raise HarnessError(f"the simulator of {name}{args!r} failed: {_describe(error)}") from error
            raise self.remember(wrong) from error
        log[at] = (name, args, result)
        if self.preempt is not None and not self.atomic:
            self.preempt(name)
        return result

    def refused(self, call: str) -> int:
        """The refusal planned for this call, 0 when none is; marks it as given.

        A simulator asks after its protocol checks and after any refusal of its own, so that a
        fault counts only when it decided the result.
        """
        frame = self.frame
        if not frame.plan:
            return 0
        value = frame.plan.get((call, frame.made.get(call, 0)), 0)
        if value:
            frame.given.setdefault(call, value)
        return value

    def hold(self, clause: Clause) -> None:
        """Count that a simulator checked `clause` and it held."""
        self.held[clause] = self.held.get(clause, 0) + 1

    def require(self, clause: Clause, holds: bool, detail: str) -> None:
        """Count a check of `clause`, or raise the Violation that `detail` describes."""
        if not holds:
            raise self.remember(Violation(clause, detail))
        self.held[clause] = self.held.get(clause, 0) + 1

    def remember(self, breach: Breach) -> Breach:
        """Note a breach, so that a candidate that swallows it gains nothing; the first one stays."""
        if self.breach is None:
            self.breach = breach
        return self.breach

    # -- the harness's way in

    def start(self, factory: Callable[[Any], Any]) -> None:
        """Create the candidate's object."""
        self.driver = self.enter(factory, self.port)

    def enter(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call into the candidate; an exception it raises is a Crash, not ours."""
        Environment.entries += 1
        Environment.inside += 1
        try:
            return function(*args)
        except (HarnessError, UsageError):
            raise
        except Exception as error:
            raise self.remember(Crash(f"{_name(function)} raised {_describe(error)}")) from error
        finally:
            Environment.inside -= 1

    def enter_int(self, function: Callable[..., Any], *args: Any) -> int:
        """Call into the candidate where an int must come back: a result, an errno."""
        result = self.enter(function, *args)
        if type(result) is not int:
            raise self.remember(
                Crash(f"{_name(function)} returned {result!r} ({type(result).__name__}), expected int", "type")
            )
        return result

    def perform(self, op: Any) -> Any:
        """Perform one operation on the candidate or in the world, and return its result."""
        return self.OPERATIONS[type(op)](self, op)

    def can_interrupt(self, op: Any) -> bool:
        """Whether `op` may happen right here, in the middle of another operation."""
        return True

    def view(self) -> Any:
        """What can be observed from outside: the same record as the model's `view`."""
        raise NotImplementedError

    def close(self) -> None:
        """Give back what the operating system lent (descriptors, processes)."""

    def _wrong_type(self, name: str, args: tuple[Any, ...]) -> Crash | None:
        """A breach when the arguments are not what the port asks for; asked only once something failed."""
        signature = inspect.signature(self._handlers[name])
        try:
            bound = signature.bind(self, *args)
        except TypeError as wrong:
            return Crash(f"{name}{args!r}: {wrong}", "type")
        for parameter, value in list(bound.arguments.items())[1:]:
            wanted = signature.parameters[parameter].annotation
            wanted = wanted if isinstance(wanted, str) else getattr(wanted, "__name__", "")
            if wanted in ("int", "str", "bytes", "bool") and type(value).__name__ != wanted:
                return Crash(f"{name}: {parameter} is {value!r} ({type(value).__name__}), expected {wanted}", "type")
        return None


def _port_class(title: str, names: list[str]) -> type:
    """A class with one method per environment call, each of which goes through the door."""

    def __init__(self: Any, call: Callable[..., Any]) -> None:
        self._call = call

    members: dict[str, Any] = {"__slots__": ("_call",), "__init__": __init__, "__doc__": f"The port {title}."}
    for name in names:

        def method(self: Any, *args: Any, _name: str = name) -> Any:
            return self._call(_name, *args)

        method.__name__ = name
        members[name] = method
    return type(title, (), members)


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _describe(error: BaseException) -> str:
    """Exception type, message, and where in the candidate it arose."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {error}{where}"
