"""The one door through which every environment call of a candidate passes.

`Environment.call(name, *args)` logs the call, offers a point of preemption before and after
its effect, hands the planned refusal to the simulator, and remembers the first breach. No
simulator knows which transport a call came through.
"""

from __future__ import annotations

import inspect
import signal
from collections.abc import Callable, Hashable, Mapping
from operator import attrgetter
from typing import Any, ClassVar, get_type_hints

from greenlet import GreenletExit

from conformance.environment.foreign import described, shown
from conformance.environment.simulator import Simulator
from conformance.model.step import Fault
from conformance.ports import methods
from conformance.specs.clause import Clause
from conformance.verdict import Breach, Crash, Hang, HarnessError, Terminated, UsageError, Violation

CALL_BUDGET = 100_000
"""Environment calls within one operation after which a candidate counts as hanging."""

Call = tuple[str, tuple[Any, ...], Any]
"""Name, arguments and result of one environment call; the result is None while it lasts."""

LEAST, MOST = -(2**63), 2**64 - 1
"""Ints that a machine word can hold, signed or not."""

_BUILTIN_TYPES = ("int", "str", "bytes", "bool")


class Frame:
    """What belongs to one operation in progress: its planned faults, its calls, its log."""

    __slots__ = ("actor", "given", "log", "made", "outer", "overcome", "plan", "points", "refused")

    def __init__(self, faults: tuple[Fault, ...] = (), made: dict[str, int] | None = None) -> None:
        self.plan: dict[tuple[str, int], int] = {(f.call, f.nth): f.value for f in faults} if faults else {}
        self.given: dict[str, int] = {}
        """Refusals that the candidate really met, by call; the first one of each call."""
        self.refused: dict[str, tuple[Any, ...]] = {}
        """The arguments of the first refused call, by call."""
        self.overcome: set[str] = set()
        """Calls that were granted when they were made once more after a refusal."""
        self.log: list[Call] = []
        self.made: dict[str, int] = {} if faults or made is None else made
        """How often each call was made: in this operation when faults are planned, else in the whole trace."""
        self.points = 0
        """Points of preemption passed so far."""
        self.actor: Any = None
        """Whose thread performs it, for environments that have several."""
        self.outer: Frame | None = None
        """The operation in the middle of which this one happens."""

    def settle(self, call: str, args: tuple[Any, ...]) -> None:
        """A call has returned: it was refused, or what was refused before is granted."""
        if (call, self.made[call]) in self.plan:
            self.refused.setdefault(call, args)
        elif self.refused.get(call) == args:
            self.overcome.add(call)

    def ways(self) -> tuple[dict[str, int], ...]:
        """Refusals by which the operation may be judged: those that it met, or those that no further attempt mended."""
        if not self.overcome:
            return (self.given,)
        return self.given, {call: value for call, value in self.given.items() if call not in self.overcome}


class Foreign:
    """A candidate's object that stands for one in a process or a library."""

    def dismissed(self) -> None:
        """It is needed no more. What it does then is judged like any other doing of the candidate's."""


class Taken(OSError):
    """Something that a simulator has of the operating system is not what it was; says what the candidate has done."""


class Environment:
    """Base of the five environments: the door, the log, the plan of faults, the way in.

    A subclass gives `PORT` (the Protocol of environment calls), its simulators as annotated attributes (one
    of them has a method of each call's name), `OPERATIONS` (what performs each operation) and `view()`.
    """

    PORT: ClassVar[type]
    """The Protocol in `specs/` that lists the environment calls."""
    OPERATIONS: ClassVar[Mapping[type, Callable[[Any, Any], Any]]]
    """Operation type -> function of the world and the operation that performs it and returns its result."""
    CALL_CLAUSES: ClassVar[Mapping[str, tuple[Clause, ...]]] = {}
    """Clauses that each environment call exercises; gathered from the simulators."""

    TWO_CPUS: ClassVar[bool] = False
    """Whether the threads of `Parallel` are two CPUs, so that one goes on while the other is in atomic context."""

    entries: ClassVar[int] = 0
    """Entries into any candidate so far; the watchdog looks at it."""
    heard: ClassVar[int] = 0
    """What candidates in processes of their own have asked for so far; who asks is not stuck."""
    inside: ClassVar[int] = 0
    """How deep the harness is inside a candidate."""
    doom: ClassVar[Breach | None] = None
    """What is known to happen in this step, since it ended a process: raised where the candidate would be entered."""
    calls_before: ClassVar[tuple[Call, ...]] = ()
    """The environment calls that it had made by then, where somebody wrote them down."""
    survivors: ClassVar[list[Any]] = []
    """Candidates' objects of such steps, kept for ever: what ended the process may have been their end."""

    _handlers: ClassVar[dict[str, Callable[..., Any]]]
    _remembering: ClassVar[tuple[str, ...]] = ()
    """Simulators that have a digest."""
    _port: ClassVar[type]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Find for each environment call of the port the simulator that has it."""
        super().__init_subclass__(**kwargs)
        if not hasattr(cls, "PORT") or not cls.__dict__.keys() & {"PORT", "__annotations__"}:
            return
        simulators = cls.simulators()
        where = {name: _served_by(cls, name, simulators) for name in methods(cls.PORT)}
        cls._handlers = {name: getattr(simulators.get(at, cls), name) for name, at in where.items()}
        ways = {name: _doorway(name, where[name], handler) for name, handler in cls._handlers.items()}
        cls._port = type(cls.PORT.__name__, (_Port,), {"__slots__": (), "__doc__": cls.PORT.__doc__, **ways})
        counted = {
            call: clauses for simulator in simulators.values() for call, clauses in simulator.CALL_CLAUSES.items()
        }
        cls.CALL_CLAUSES = {**counted, **cls.__dict__.get("CALL_CLAUSES", {})}
        cls._remembering = tuple(at for at, kind in simulators.items() if kind.digest is not Simulator.digest)

    @classmethod
    def simulators(cls) -> dict[str, type[Simulator]]:
        """The simulators of this world by attribute, as the class declares them."""
        hints = get_type_hints(cls)
        return {name: kind for name, kind in hints.items() if inspect.isclass(kind) and issubclass(kind, Simulator)}

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
        self.work = 1
        """How many times as many points of preemption as usual two threads may need, for what the world holds."""
        self.scheduler: Any = None
        """The `Scheduler` while two threads run; locks and waits then call its `block`."""

    def digest(self) -> Hashable:
        """What the world remembers beyond what the model's state tells; see `Simulator.digest`."""
        return tuple(getattr(self, name).digest() for name in self._remembering)

    # -- the candidate's way out

    @property
    def port(self) -> Any:
        """What a Python candidate is given: an object with one method per environment call."""
        return self._port(self)

    def call(self, name: str, *args: Any) -> Any:
        """Make one environment call by name on behalf of the candidate, and return its result.

        Raises:
            Breach  the call breaks the protocol, or an earlier one did
        """
        return getattr(self._port, name)(self.port, *args)

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

    def wait_until(self, what: str, ready: Callable[[], bool]) -> bool:
        """Let other threads go on until `ready()`; False when it is not, and there is no other thread."""
        if ready():
            return True
        if self.scheduler is None:
            return False
        self.scheduler.block(what, ready)
        return True

    # -- the harness's way in

    def start(self, factory: Callable[[Any], Any]) -> None:
        """Create the candidate's object, and bring the world to where the configuration has it."""
        self._contained(self.begin, factory)

    def begin(self, factory: Callable[[Any], Any]) -> None:
        """What `start` does in this world; a subclass goes on from here."""
        self.driver = self.enter(factory, self.port)

    def starting_at(self, state: Any) -> Any:
        """The model's initial state, by what the candidate has chosen of what it may choose."""
        return state

    def end(self) -> None:
        """Let go of the candidate's object."""
        if Environment.doom is not None and self.breach is None:
            Environment.survivors.append(self.driver)
            raise self.remember(Environment.doom)
        if isinstance(self.driver, Foreign):
            self.enter(self.driver.dismissed)

    def descriptor(self, call: str, result: Any) -> int | None:
        """The file descriptor that an environment call has given the driver, where this world has real ones."""
        return None

    def enter(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call into the candidate; an exception it raises is a Crash, not ours."""
        if Environment.doom is not None:
            for call in Environment.calls_before:
                self.frame.log.append(call)
            Environment.survivors.append(self.driver)
            raise self.remember(Environment.doom)
        Environment.entries += 1
        Environment.inside += 1
        try:
            return function(*args)
        except (Breach, HarnessError, UsageError, Terminated, GreenletExit):
            raise
        except BaseException as error:  # a candidate that asks to leave the process is wrong, not done
            if isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
                raise  # where Ctrl-C does nothing, it is the candidate's own
            raise self.remember(Crash(f"{_name(function)} raised {_describe(error)}")) from error
        finally:
            Environment.inside -= 1

    def enter_int(self, function: Callable[..., Any], *args: Any) -> int:
        """Call into the candidate where an int must come back: a result, an errno."""
        result = self.enter(function, *args)
        if type(result) is not int:
            raise self.remember(
                Crash(
                    f"{_name(function)} returned {self.text_of(result)} ({type(result).__name__}), expected int", "type"
                )
            )
        if not LEAST <= result <= MOST:
            raise self.remember(Crash(f"{_name(function)} returned an int of {result.bit_length()} bits", "type"))
        return result

    def text_of(self, value: Any) -> str:
        """Something of the candidate's, whose own code says how it looks."""
        Environment.inside += 1
        try:
            return shown(value)
        finally:
            Environment.inside -= 1

    def perform(self, op: Any) -> Any:
        """Perform one operation on the candidate or in the world, and return its result."""
        return self._contained(self.act, op)

    def act(self, op: Any) -> Any:
        """What `perform` does in this world; a subclass adds what comes before and after."""
        return self.OPERATIONS[type(op)](self, op)

    def _contained(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """Its result; what a candidate's object lacks or has taken away ends a step, not the run."""
        try:
            return function(argument)
        except AttributeError as error:
            if error.obj is not self.driver:
                raise
            kind = type(self.driver).__name__
            raise self.remember(Crash(f"its object, a {kind}, has no {error.name!r}", "type")) from error
        except OSError as error:
            breach = self.gone(error)
            if breach is error:
                raise
            raise breach from error

    def gone(self, error: OSError) -> BaseException:
        """A breach where the candidate has taken away what the world needs; the same error where that is not known."""
        return self.remember(Crash(str(error))) if isinstance(error, Taken) else error

    def can_interrupt(self, op: Any) -> bool:
        """Whether `op` may happen right here, in the middle of another operation."""
        return True

    def can_run_beside(self, left: Any, right: Any) -> bool:
        """Whether the world can do both at once (`Parallel`)."""
        return True

    def at_switch(self) -> None:
        """Called whenever another thread goes on in `Parallel`: the place for invariants that hold at any moment."""

    def view(self) -> Any:
        """What can be observed from outside: the same record as the model's `view`."""
        raise NotImplementedError

    def close(self) -> None:
        """Give back what the operating system lent (descriptors, processes)."""

    def _failed(self, name: str, args: tuple[Any, ...], error: BaseException) -> BaseException:
        """What an exception inside a simulator means: a breach of the candidate's, or a mistake of ours."""
        if isinstance(error, HarnessError | UsageError):
            return error
        wrong = self._wrong_type(name, args)
        if wrong is not None:
            return self.remember(wrong)
        if isinstance(error, Breach):
            return self.remember(error)
        if isinstance(error, OSError) and isinstance(gone := self.gone(error), Breach):
            return gone
        if isinstance(error, RecursionError):  # how deep it is, is the candidate's doing
            return self.remember(Crash(f"{name} was called too deep in the candidate: {error}"))
        return HarnessError(f"the simulator of {name}{self.text_of(args)} failed: {_describe(error)}")

    def _wrong_type(self, name: str, args: tuple[Any, ...]) -> Crash | None:
        """A breach when the arguments are not what the port asks for; asked only once something failed."""
        signature = inspect.signature(self._handlers[name])
        try:
            bound = signature.bind(self, *args)
        except TypeError as wrong:
            return Crash(f"{name}{self.text_of(args)}: {wrong}", "type")
        for parameter, value in list(bound.arguments.items())[1:]:
            wanted = signature.parameters[parameter].annotation
            wanted = wanted if isinstance(wanted, str) else getattr(wanted, "__name__", "")
            if wanted in _BUILTIN_TYPES and type(value).__name__ != wanted:
                return Crash(
                    f"{name}: {parameter} is {self.text_of(value)} ({type(value).__name__}), expected {wanted}", "type"
                )
            if type(value) is int and not LEAST <= value <= MOST:
                return Crash(f"{name}: {parameter} is an int of {value.bit_length()} bits", "type")
        return None


class _Port:
    """What a candidate holds: one method per environment call, made by `_doorway`."""

    __slots__ = ("_env",)

    def __init__(self, env: Environment) -> None:
        self._env = env


def _served_by(world: type[Environment], call: str, simulators: Mapping[str, type[Simulator]]) -> str:
    """The attribute of the one simulator that has the call; TypeError when none has it, or several have."""
    found = [attribute for attribute, kind in simulators.items() if hasattr(kind, call)]
    if hasattr(world, call):
        found.append("")
    if len(found) != 1:
        who = " and ".join(found) if found else "no simulator"
        raise TypeError(f"{world.__name__}: {who} has the environment call {call} of {world.PORT.__name__}")
    return found[0]


def _doorway(name: str, attribute: str, handler: Callable[..., Any]) -> Callable[..., Any]:
    """The one way to the simulator of `name`; a single Python call, since candidates make several in each step."""
    simulator = attrgetter(attribute) if attribute else _itself

    def call(port: _Port, *args: Any) -> Any:
        env = port._env  # the two are one thing in two classes
        if env.breach is not None:
            raise env.breach
        frame = env.frame
        made = frame.made
        made[name] = made.get(name, 0) + 1
        log = frame.log
        at = len(log)
        if at >= env.calls:
            raise env.remember(Hang(f"more than {env.calls} environment calls in one operation, the last one {name}"))
        if env.preempt is not None and (not env.atomic or (env.TWO_CPUS and env.scheduler is not None)):
            env.preempt(name)
            at = len(log)
        log.append((name, args, None))
        try:
            result = handler(simulator(env), *args)
        except (Breach, Exception) as error:
            raise env._failed(name, args, error) from error  # as above
        log[at] = (name, args, result)
        if frame.plan:
            frame.settle(name, args)
        if env.preempt is not None and (not env.atomic or (env.TWO_CPUS and env.scheduler is not None)):
            env.preempt(name)
        return result

    call.__name__ = name
    return call


def _itself(env: Environment) -> Environment:
    return env


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _describe(error: BaseException) -> str:
    """Exception type, message, and where in the candidate it arose."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {described(error)}{where}"
