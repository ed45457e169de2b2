"""Ledgers: what was handed out to a candidate, and must come back once."""

from __future__ import annotations

from typing import Generic, TypeVar

Thing = TypeVar("Thing")


class Ledger(Generic[Thing]):
    """Things by token: what is out, and what has come back. Tokens are not used again, so a stale one shows."""

    __slots__ = ("back", "next", "out")

    def __init__(self, first: int) -> None:
        self.next = first
        """The token of what is handed out next."""
        self.out: dict[int, Thing] = {}
        self.back: set[int] = set()

    def hand_out(self, thing: Thing, size: int = 1) -> int:
        """The token of `thing`; the `size` numbers from it on name nothing else."""
        token = self.next
        self.next += size
        self.out[token] = thing
        return token

    def take_back(self, token: int) -> Thing | None:
        """What the token named; None when it is not out: see `back` for whether it ever was."""
        thing = self.out.pop(token, None)
        if thing is not None:
            self.back.add(token)
        return thing
