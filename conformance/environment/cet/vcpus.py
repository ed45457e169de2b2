"""What each vCPU has one of, by the number that the candidate knows it by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from conformance.environment.simulator import Simulator
from conformance.verdict import Crash

if TYPE_CHECKING:
    from conformance.environment.door import Environment

Part = TypeVar("Part")


class PerVcpu(Simulator, Generic[Part]):
    """A simulator with a part for each vCPU; numbers are not used again."""

    def __init__(self, door: Environment) -> None:
        self.door = door
        self.parts: dict[int, Part] = {}

    def of(self, vcpu: int) -> Part:
        """What the vCPU has; a number that names none is the candidate's mistake."""
        part = self.parts.get(vcpu)
        if part is None:
            raise Crash(f"there is no vCPU {vcpu!r}", "type")
        return part

    def add(self, vcpu: int) -> None:
        """A vCPU is created."""
        raise NotImplementedError

    def remove(self, vcpu: int) -> None:
        """It is gone."""
        del self.parts[vcpu]
