"""What simulators of several subsystems share: the way from the port to them, locks, ledgers."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import pytest

from conformance.environment.door import Environment, Frame
from conformance.environment.ledger import Ledger
from conformance.environment.locks import Locks
from conformance.environment.simulator import Simulator
from conformance.verdict import Crash


class Port(Protocol):
    """Two calls."""

    def kmalloc(self, size: int) -> int: ...

    def kfree(self, token: int) -> int: ...


class Heap(Simulator):
    """Memory."""

    CALL_CLAUSES: ClassVar[dict[str, tuple[Any, ...]]] = {"kfree": ("a clause",)}

    def __init__(self, door: Environment) -> None:
        super().__init__(door)
        self.ledger = Ledger[int](16)

    def kmalloc(self, size: int) -> int:
        return self.ledger.hand_out(size)

    def kfree(self, token: int) -> int:
        return self.ledger.take_back(token) or 0


class World(Environment):
    """A heap and nothing else."""

    PORT = Port
    heap: Heap

    def __init__(self) -> None:
        super().__init__()
        self.heap = Heap(self)


def test_a_call_goes_to_the_simulator_that_has_it() -> None:
    """The world repeats nothing."""
    world = World()

    assert world.port.kmalloc(8) == 16
    assert world.call("kfree", 16) == 8
    assert world.frame.log == [("kmalloc", (8,), 16), ("kfree", (16,), 8)]
    assert World.CALL_CLAUSES == {"kfree": ("a clause",)}


def test_a_value_of_a_wrong_type_is_the_candidates_mistake() -> None:
    """It is named with the argument's name, which the simulator's method gives."""
    world = World()
    world.port.kmalloc(8)

    with pytest.raises(Crash, match=r"kfree: token is \[\] .list., expected int"):
        world.port.kfree([])


@pytest.mark.parametrize(("kinds", "said"), [({}, "no simulator"), ({"a": Heap, "b": Heap}, "a and b")])
def test_each_call_has_one_simulator(kinds: dict[str, type], said: str) -> None:
    """None or two is a mistake of ours, found when the class is made."""
    with pytest.raises(TypeError, match=f"Wrong: {said} has the environment call kmalloc of Port"):
        type("Wrong", (Environment,), {"PORT": Port, "__annotations__": kinds})


def test_a_lock_is_not_had_twice() -> None:
    """Nobody could give it back."""
    locks = Locks(Environment())

    assert locks.take("a", "lock a")
    assert not locks.take("a", "lock a")
    assert locks.take("b", "lock b")
    assert locks.held(locks.door.frame) == ["a", "b"]


def test_a_lock_is_let_go_by_who_holds_it() -> None:
    """Another operation does not."""
    door = Environment()
    locks = Locks(door)
    locks.take("a", "lock a")
    mine, door.frame = door.frame, Frame()

    assert not locks.drop("a")
    door.frame = mine
    assert locks.drop("a")
    assert not locks.drop("a")


def test_a_token_is_not_used_again() -> None:
    """A stale one shows."""
    ledger = Ledger[str](1)
    token = ledger.hand_out("page", 16)

    assert ledger.take_back(token) == "page"
    assert ledger.take_back(token) is None
    assert (token in ledger.back, ledger.hand_out("page")) == (True, 17)
