"""The design as merged."""

from __future__ import annotations

from typing import ClassVar

from conformance.candidates.builtin.cet.upstream.control import Control
from conformance.candidates.builtin.cet.upstream.ioctls import Ioctls
from conformance.candidates.builtin.cet.upstream.nested import Nested


class Upstream(Ioctls, Control, Nested):
    """The guest FPU carries PL0..PL3_SSP and U_CET; VMCS or VMCB carry the rest."""

    profile: ClassVar[str] = "upstream"
