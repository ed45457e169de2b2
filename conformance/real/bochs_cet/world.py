"""A guest on Bochs' CPU: what it reads and writes of CET, executed for real by the processor's model."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from conformance.model.cet import View
from conformance.model.cet import operations as m
from conformance.model.cet.view import CRS
from conformance.real.adapter import RealWorld
from conformance.real.bochs_cet import machine as b
from conformance.specs.cet.constants import CET_U
from conformance.verdict import HarnessError

GP = 13
CR0_WP, CR4_CET = 16, 23
XSTATE_BV, XCOMP_BV, COMPONENT = 512, 520, 576
"""Offsets in a compacted image with one component."""
COMPACTED = 1 << 63
WORDS = {CET_U: 2, CET_U + 1: 3}


class BochsWorld(RealWorld):
    """One guest in long mode, at privilege level 0."""

    def __init__(self, started: Callable[[], b.Bochs], visible: Callable[[View], View]) -> None:
        super().__init__()
        self.started = started
        self.visible = visible
        self.taken: list[tuple[Any, Any]] = []
        """Operations performed, and their results."""
        self._begin()

    def _begin(self) -> None:
        """Clean the processor of this process, which is a fresh one where the last has died."""
        self.bochs = self.started()
        try:
            self.bochs.ask(b.CLEAN)
        except b.Dead:
            self.bochs = self.started()
            self.bochs.ask(b.CLEAN)

    def perform(self, op: Any) -> Any:
        """Perform one operation; where Bochs dies of it, once more in a fresh one that is brought there first.

        Raises:
            HarnessError  it dies of it again, or does something else than before
        """
        try:
            result = super().perform(op)
        except b.Dead:
            self._begin()
            for before, told in self.taken:
                if (again := super().perform(before)) != told:
                    raise HarnessError(
                        f"Bochs died, and in a fresh one {before!r} gave {again!r}, not {told!r}"
                    ) from None
            result = super().perform(op)
        self.taken.append((op, result))
        return result

    def view(self) -> Any:
        """CR0.WP and CR4.CET of the only vCPU."""
        return self.visible(View((), (CRS[self.bochs.wp][self.bochs.cet], None), (), ()))

    def ask(self, request: int, argument: int = 0, value: int = 0) -> tuple[bool, bytes]:
        """Whether it gave #GP, and what it read."""
        vector, data = self.bochs.ask(request, argument, value)
        if vector not in (0, GP):
            raise HarnessError(f"request {request} of the ROM met vector {vector}")
        return vector == GP, data

    def word(self, request: int, argument: int) -> int:
        """The first eight bytes of what a request reads."""
        return int(struct.unpack_from("<Q", self.ask(request, argument)[1])[0])

    # -- operations

    def run(self, _op: m.Run | m.Leave) -> None:
        """The guest is always there."""

    def wrmsr(self, op: m.Wrmsr) -> int:
        """WRMSR."""
        return int(self.ask(b.WRMSR, op.msr, op.value)[0])

    def rdmsr(self, op: m.Rdmsr) -> tuple[int, int]:
        """RDMSR."""
        faulted, data = self.ask(b.RDMSR, op.msr)
        return (1, 0) if faulted else (0, struct.unpack_from("<Q", data)[0])

    def mov_cr0(self, op: m.MovCr0) -> int:
        """MOV to CR0 with another WP."""
        return self._mov(b.SET_CR0, 0, CR0_WP, op.wp)

    def mov_cr4(self, op: m.MovCr4) -> int:
        """MOV to CR4 with another CET."""
        return self._mov(b.SET_CR4, 1, CR4_CET, op.cet)

    def _mov(self, request: int, register: int, bit: int, on: bool) -> int:
        value = struct.unpack("<QQ", self.ask(b.READ_CRS)[1])[register]
        return int(self.ask(request, 0, value & ~(1 << bit) | int(on) << bit)[0])

    def xsaves(self, op: m.Xsaves) -> tuple[int, ...] | None:
        """XSAVES of one component; a component that is in its initial state reads as zeros."""
        faulted, _ = self.ask(b.XSAVES, 1 << op.component)
        if faulted:
            raise HarnessError("XSAVES gave #GP")
        if not self.word(b.LOAD, XCOMP_BV) >> op.component & 1:
            return None
        words = WORDS[op.component]
        if not self.word(b.LOAD, XSTATE_BV) >> op.component & 1:
            return (0,) * words
        return tuple(self.word(b.LOAD, COMPONENT + 8 * n) for n in range(words))

    def xrstors(self, op: m.Xrstors) -> int:
        """XRSTORS of an image with one component."""
        header = (1 << op.component if op.words else 0, COMPACTED | 1 << op.component)
        for at, value in (*zip((XSTATE_BV, XCOMP_BV), header, strict=True), *enumerate(op.words)):
            self.ask(b.STORE, at if at >= XSTATE_BV else COMPONENT + 8 * at, value)
        for at in range(XCOMP_BV + 8, COMPONENT, 8):
            self.ask(b.STORE, at, 0)
        return int(self.ask(b.XRSTORS, 1 << op.component)[0])

    OPERATIONS: ClassVar[Mapping[type, Callable[[Any, Any], Any]]] = {
        m.Run: run,
        m.Leave: run,
        m.Wrmsr: wrmsr,
        m.Rdmsr: rdmsr,
        m.MovCr0: mov_cr0,
        m.MovCr4: mov_cr4,
        m.Xsaves: xsaves,
        m.Xrstors: xrstors,
    }
