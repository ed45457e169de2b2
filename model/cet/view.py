"""What can be observed from outside after a step."""

from __future__ import annotations

from typing import NamedTuple

from conformance.model.cet.operations import GetMpState, Init, NestedExit, Operation, Reset, Rsm, Smi
from conformance.model.cet.state import CPUS, State, Words
from conformance.model.cet.state import RESET as WAS_RESET
from conformance.model.step import Labels
from conformance.specs.cet import clauses as c
from conformance.specs.clause import Clause


class Crs(NamedTuple):
    """CR0.WP and CR4.CET of a vCPU."""

    wp: bool
    cet: bool


CRS = tuple(tuple(Crs(wp, cet) for cet in (False, True)) for wp in (False, True))
"""All there are, by WP and CET."""


class View(NamedTuple):
    """What hardware and memory show after a step; all but the first by slot, None where nothing is demanded."""

    s_cet: tuple[int, ...]
    """S_CET of each physical CPU, with no guest running."""
    crs: tuple[Crs | None, ...]
    """CR0.WP and CR4.CET."""
    smram: tuple[int | None, ...]
    """The SSP slot."""
    area: tuple[Words | None, ...]
    """S_CET, SSP and table in vmcs12 or vmcb12, outside L2."""


VIEW_CLAUSES: dict[str, Clause] = {
    "s_cet": c.S_CET_IS_THE_HOSTS,
    "crs": c.CET_NEEDS_WP,
    "smram": c.SSP_THROUGH_SMRAM,
    "area": c.L2_STORED,
}

VIEW_LABELS: dict[str, Labels] = {
    "s_cet": ("CPU {}",),
    "crs": ("vCPU {}", ("CR0.WP", "CR4.CET")),
    "smram": ("vCPU {}",),
    "area": ("vCPU {}", ("S_CET", "SSP", "INTERRUPT_SSP_TABLE")),
}
"""What the parts of its fields are called."""


def view(state: State) -> View:
    """What hardware and memory show."""
    crs: list[Crs | None] = []
    smram: list[int | None] = []
    area: list[Words | None] = []
    for v in state.vcpus:
        crs.append(None if v is None or v.dead else CRS[v.wp][v.cet])
        smram.append(None if v is None else v.smram)
        area.append(None if v is None or v.l2 is not None else v.area)
    return View((state.host.s_cet,) * CPUS, tuple(crs), tuple(smram), tuple(area))


def cite(state: State, op: Operation, field: str, _expected: View, got: View) -> Clause | None:
    """A better clause than the view field's."""
    if isinstance(op, Smi | Rsm):
        return c.SMM_CLEARS_CR4 if field == "crs" else c.SSP_THROUGH_SMRAM if field == "smram" else None
    if isinstance(op, Init | Reset | GetMpState) and field == "crs":
        return c.RESET_CLEARS_CRS
    if field == "area" and _stayed_in_l2(state, got):
        return c.RESET_LEAVES_MODES
    if isinstance(op, NestedExit):
        amd = state.host.vendor == "amd"
        return c.VMRUN_SWITCHES if amd else c.L1_RESUMES if field == "crs" else None
    return None


def _stayed_in_l2(state: State, got: View) -> bool:
    """Whether a vCPU that was reset runs L2 still."""
    pairs = zip(state.vcpus, got.area, strict=True)
    return any(v is not None and v.l2 is None and v.origin == WAS_RESET and area is None for v, area in pairs)
