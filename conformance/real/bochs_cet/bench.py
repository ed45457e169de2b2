"""The acts of scripts on Bochs' processors, of any model."""

from __future__ import annotations

import struct

from conformance.real.bochs_cet.machine import CLEAN, CPUID, RDMSR, READ_CRS, SET_CR0, SET_CR4, WRMSR, Bochs, machine
from conformance.real.scripts import Bench, act
from conformance.verdict import HarnessError

_REGISTERS = ("eax", "ebx", "ecx", "edx")
_WP, _CET = 16, 23
_KEPT = ("tigerlake", "corei7_icelake_u")
"""Models of which this process has one anyway."""


class BochsBench(Bench):
    """One processor, of the model that the first act names."""

    def __init__(self) -> None:
        self.made: Bochs | None = None
        self.is_own = False

    def close(self) -> None:
        """End a processor that is nobody else's."""
        if self.made is not None and self.is_own:
            self.made.close()
        self.made = None

    @act
    def processor(self, model: str, ignores_bad_msrs: bool = False) -> int:
        """A clean processor of that model; what its configuration says of MSRs that it does not know."""
        self.is_own = ignores_bad_msrs or model not in _KEPT
        self.made = Bochs(model, ignores_bad_msrs=ignores_bad_msrs) if self.is_own else machine(model)
        return self.made.ask(CLEAN)[0]

    def _ask(self, request: int, argument: int = 0, value: int = 0) -> tuple[int, bytes]:
        if self.made is None:
            raise HarnessError("a script asks a processor before it has one")
        return self.made.ask(request, argument, value)

    @act
    def cpuid(self, leaf: int, register: str, bit: int, subleaf: int = 0) -> int:
        """A bit of CPUID."""
        words = struct.unpack("<4I", self._ask(CPUID, leaf, subleaf)[1])
        return int(words[_REGISTERS.index(register)]) >> bit & 1

    @act
    def wrmsr(self, msr: int, value: int) -> int:
        """WRMSR: the vector of the fault, or 0."""
        return self._ask(WRMSR, msr, value)[0]

    @act
    def rdmsr(self, msr: int) -> list[int]:
        """RDMSR: the vector of the fault, or 0, and the value where there is none."""
        vector, data = self._ask(RDMSR, msr)
        return [vector] if vector else [0, struct.unpack_from("<Q", data)[0]]

    @act
    def set_wp(self, on: bool) -> int:
        """MOV to CR0 with another WP: the vector of the fault, or 0."""
        return self._mov(SET_CR0, 0, _WP, on)

    @act
    def set_cet(self, on: bool) -> int:
        """MOV to CR4 with another CET: the vector of the fault, or 0."""
        return self._mov(SET_CR4, 1, _CET, on)

    def _mov(self, request: int, register: int, bit: int, on: bool) -> int:
        value = struct.unpack("<QQ", self._ask(READ_CRS)[1])[register]
        return self._ask(request, 0, value & ~(1 << bit) | int(on) << bit)[0]
