"""Objects of a candidate's own classes are told, whatever these classes do, and end nothing."""

from __future__ import annotations

import enum
import pickle
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest

from conformance.candidates.load import builtin_names, load
from conformance.engines import corpus
from conformance.environment.foreign import LONGEST, described, plain, shown
from conformance.lockstep import run_trace
from conformance.subsystem import NAMES, Subsystem, subsystem
from conformance.trace import Trace
from tests.toy import TOY, Put, Shelf, Take, trace


class Colour(enum.IntEnum):
    RED = 1


class Wild(int):
    def __repr__(self) -> str:
        raise KeyboardInterrupt

    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    __hash__ = int.__hash__


class Vast:
    def __repr__(self) -> str:
        return "x" * 1_000_000


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def test_it_is_shown_or_named() -> None:
    """By its own repr where that returns."""
    assert shown(Wild(1)) == "<Wild>"
    assert shown(Colour.RED) == "<Colour.RED: 1>"
    assert shown(()) == "()"


def test_what_is_shown_is_short() -> None:
    """A report stays one that can be read."""
    assert len(shown(Vast())) < 2 * LONGEST
    assert described(Mute()) == ""


def test_no_class_of_the_candidates_is_told() -> None:
    """Who reads it has none of them."""
    nested: list[Any] = []
    nested.append(nested)

    told = plain((Wild(7), Colour.RED, (lambda: 1), "a", (b"b", [True]), Vast(), nested))

    assert [type(item) for item in told[:2]] == [int, int]
    assert told[3:5] == ("a", (b"b", [True]))
    again = pickle.loads(pickle.dumps(told))  # noqa: S301 - our own
    assert again[:2] == (7, 1)
    assert repr(again) == repr(told)
    assert len(repr(told)) < 3 * LONGEST


def raises(error: BaseException) -> Callable[[], int]:
    def act() -> int:
        raise error

    return act


@pytest.mark.parametrize(
    ("act", "kind", "detail"),
    [
        (lambda: Wild(0), "type", "take returned <Wild> (Wild), expected int"),
        (Vast, "type", "characters more (Vast), expected int"),
        (raises(Mute()), "crash", "take raised Mute:"),
        (raises(ValueError("x" * 1_000_000)), "crash", "take raised ValueError: xxx"),
    ],
)
def test_it_is_a_finding(act: Callable[[], Any], kind: str, detail: str) -> None:
    """And no failure of the suite."""

    class Odd(Shelf):
        def take(self) -> int:
            return act()  # type: ignore[no-any-return]

    failure = run_trace(TOY, trace(Put(), Take()), Odd, record=True).failure

    assert failure is not None
    assert failure.signature == f"TOY-008:Take:{kind}"
    assert detail in failure.detail
    assert len(failure.detail) < 2 * LONGEST


def test_an_object_without_the_methods_of_its_class_is_a_finding() -> None:
    """A class may make something else than its instances."""

    class Nothing(Shelf):
        def __new__(cls, _port: Any) -> Any:
            return None

    failure = run_trace(TOY, trace(Put()), Nothing).failure

    assert failure is not None
    assert failure.signature == "TOY-008:Put:type"
    assert failure.detail == "its object, a NoneType, has no 'put'"


# -- in every world

Factory = Callable[[Any], Any]


class Secret:
    """Tells nothing, not even whether it is true."""

    def __repr__(self) -> str:
        raise ValueError

    def __bool__(self) -> bool:
        raise ValueError

    def __eq__(self, other: object) -> bool:
        raise ValueError

    __hash__ = object.__hash__


def plays(of: Subsystem) -> Iterator[tuple[Trace, Factory]]:
    """Traces that the suite ships, each with a candidate of ours that can play it."""
    ours = [load(f"builtin:{name}", of) for name in builtin_names(of)]
    for path in corpus.files(corpus.SHIPPED / of.name):
        saved = corpus.read(path)
        for one in ours:
            if one.profile == saved.profile and of.requires(saved.config) <= one.capabilities:
                yield saved, one.factory
                break


class Between:
    """A candidate whose entry points are noted, and one of which answers something else."""

    def __init__(self, candidate: Any, odd: str, answer: Any, entered: set[str]) -> None:
        self.candidate, self.odd, self.answer, self.entered = candidate, odd, answer, entered

    def __getattr__(self, name: str) -> Any:
        own = getattr(self.candidate, name)
        if callable(own):
            self.entered.add(name)
        return own if name != self.odd else lambda *_: self.answer


def played(of: Subsystem, saved: Trace, factory: Factory, odd: str = "", answer: Any = None) -> set[str]:
    """The entry points that a trace reaches; fails where it is more than a finding that one answers so oddly."""
    entered: set[str] = set()
    failure = run_trace(
        of, saved, lambda port: Between(factory(port), odd, answer, entered), environment=of.fast, record=True
    ).failure
    assert failure is None or len(failure.detail) < 2 * LONGEST
    return entered


@pytest.mark.parametrize("name", NAMES)
def test_no_answer_ends_the_suite(name: str) -> None:
    """Whatever entry point it comes from, and wherever in a tuple it is."""
    of, tried = subsystem(name), set()
    for saved, factory in plays(of):
        for entry in played(of, saved, factory) - tried:
            tried.add(entry)
            for answer in (Secret(), (0, Secret()), (0, 0, Secret()), (Secret(),) * 3, (0, (Secret(),)), None):
                played(of, saved, factory, entry, answer)

    assert len(tried) > 5


@pytest.mark.parametrize("name", NAMES)
def test_no_object_ends_the_suite(name: str) -> None:
    """A candidate's class may make something else than its instances here too, which nothing can be asked of."""
    of = subsystem(name)
    for saved, factory in islice(plays(of), 4):
        failure = run_trace(of, saved, lambda _port: None, environment=of.fast).failure
        assert failure is not None
        assert failure.kind == "type"
        assert failure.clause is of.robustness
        assert failure.detail.startswith("its object, a NoneType, has no '")
        assert run_trace(of, saved, factory, environment=of.fast).failure is None
