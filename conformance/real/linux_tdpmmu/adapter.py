"""What of the direct half can be asked of KVM's TDP MMU, and seen."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar

from conformance.model.tdp_mirror import Config
from conformance.model.tdp_mirror.operations import HvaInvalidate, Prefault, SlotCreate, VcpuCreate, WrprotSlot
from conformance.real.adapter import Rate, rate
from conformance.real.guest.adapter import GuestAdapter, round_trips
from conformance.real.guest.world import outside
from conformance.real.linux_tdpmmu.bench import TdpBench
from conformance.real.linux_tdpmmu.world import HUGE_PAGES, PAGES, TdpWorld

PLAIN = Config(
    mirror=False, private=False, index_bits=9, levels=4, max_gfn=PAGES - 1, slots=((0, 0, 4, 0), (1, 6, 2, 0)),
    private_gfns=(),
)  # fmt: skip
ONE_SLOT = Config(
    mirror=False, private=False, index_bits=9, levels=4, max_gfn=PAGES - 1, slots=((0, 0, 8, 0),), private_gfns=()
)
HUGE = Config(
    mirror=False, private=False, index_bits=9, levels=4, max_gfn=HUGE_PAGES - 1,
    slots=((0, 0, 512, 0), (1, 512, 8, 0)), private_gfns=(), huge=True,
)  # fmt: skip
"""A slot that is one huge page, and one that is a part of another."""
_REACH = 1 << 30


class LinuxTdpMmu(GuestAdapter):
    """kvm of a Debian kernel with `tdp_mmu`, on nested page tables."""

    title = "kvm with tdp_mmu of Linux"
    world = TdpWorld
    scripts = "linux_tdpmmu"
    profile = "upstream"
    capabilities = frozenset({"tables-of-512"})
    operations = frozenset(TdpWorld.OPERATIONS)
    view_fields = frozenset({"shared"})
    worlds: ClassVar[tuple[Config, ...]] = (PLAIN, ONE_SLOT, HUGE)
    clauses = frozenset(f"TDP-{n:03}" for n in (13, 17, 20, 24, 30, 53, 68, 80, 94, 95, 103, 109))
    leave_out_zap = False
    findings: Mapping[str, str] = MappingProxyType(
        {
            "TDP-103:Prefault:result": "LINUX-4",
            "TDP-068:Prefault:view.shared": "LINUX-6",
        }
    )

    @cached_property
    def prefaults(self) -> bool:
        """Whether KVM_PRE_FAULT_MEMORY is there; else the guest reads."""
        with outside(TdpWorld(self.kernel, PLAIN, prefaults=False)) as world:
            return world.has_prefault()

    def environment(self, config: Config, profile: Any) -> TdpWorld:
        """A VM with its slots."""
        del profile
        return TdpWorld(self.kernel, config, prefaults=self.prefaults, leave_out_zap=self.leave_out_zap)

    def bench(self) -> TdpBench:
        """A VM, once one is asked for."""
        return TdpBench(self.kernel)

    def builds(self, config: Config) -> bool:
        """A VM that is no TD, on hardware's tables, of plain slots."""
        plain = not config.mirror and not config.private and not config.readonly_gfns
        pages = HUGE_PAGES if config.huge else PAGES
        geometry = (config.index_bits, config.levels) == (9, 4) and config.max_gfn < pages
        return plain and geometry and not any(flags for *_, flags in config.slots)

    def legal(self, state: Any, op: Any) -> bool:
        """Memory that is there; one page at a time. Dirty logging of huge pages splits and merges them."""
        match op:
            case Prefault():
                usual = op.size == 4096 and not op.flags and not op.gpa & 4095
                malformed = op.size == 0 or bool(op.flags) or bool((op.gpa | op.size) & 4095)
                return op.gpa < _REACH and (usual or (malformed and self.prefaults))
            case SlotCreate():
                pages = HUGE_PAGES if state.config.huge else PAGES
                return not op.flags and op.npages > 0 and op.base + op.npages <= pages and op.slot < 8
            case WrprotSlot():
                return not state.config.huge
            case HvaInvalidate():
                return bool(op.may_block)
            case _:
                return True

    def rates(self) -> tuple[Rate, ...]:
        """Requests, and walks of the page tables from outside."""
        with outside(TdpWorld(self.kernel, PLAIN, prefaults=self.prefaults)) as world:
            world.perform(VcpuCreate(0))
            world.perform(Prefault(0, 0x1000))
            return (*round_trips(world.channel), rate("walks of the page tables", 5900, world.leaves))
