"""Upstream, with the manual's freedom for two bits."""

from __future__ import annotations

from typing import ClassVar

from conformance.candidates.builtin.cet.upstream import Upstream


class Hardware(Upstream):
    """Accepts what the manual accepts in bits 13:12 of U_CET and S_CET."""

    profile: ClassVar[str] = "hardware"
    base_aligned: ClassVar[bool] = False
