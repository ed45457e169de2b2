"""Worlds, and what the fields of operations are drawn from: addresses on both sides of the split."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from conformance.model.step import Step
from conformance.model.tdp_mirror import Config
from conformance.model.tdp_mirror.operations import PageFault
from conformance.specs.tdp_mirror.constants import (
    MEM_GUEST_MEMFD,
    SLOT_INVALID,
    TDX_OPERAND_BUSY,
    TDX_OPERAND_ID_EPOCH,
    TDX_OPERAND_ID_SEPT,
    TDX_OPERAND_INVALID,
    TDX_PREVIOUS_TLB_EPOCH_BUSY,
)
from conformance.strategies.domain import Domain

SMALL = Config()
"""A TD of four gfns: three of guest memory, two of them private; one ordinary page."""
HUGE = Config(huge=True, slots=((0, 0, 4, MEM_GUEST_MEMFD),), private_gfns=())
"""All shared, with leaves that may be huge."""
LOGGED = Config(huge=True, slots=((0, 0, 4, 0),), private_gfns=())
"""All shared and none of it guest memory, so that its slot may log dirty pages."""
UNEVEN = Config(huge=True, slots=((0, 0, 3, MEM_GUEST_MEMFD), (1, 3, 1, 0)), private_gfns=())
"""A block that two slots share, so that it cannot be huge."""
HALF_PRIVATE = Config(huge=True, slots=((0, 0, 4, MEM_GUEST_MEMFD),), private_gfns=(0, 1))
"""A private block beside one that may be huge."""
MIXED = Config(huge=True, slots=((0, 0, 4, MEM_GUEST_MEMFD),), private_gfns=(1,))
"""One block of both halves, one that may be huge."""
ENDS_PRIVATE = Config(huge=True, slots=((0, 0, 4, MEM_GUEST_MEMFD),), private_gfns=(0, 3))
"""Two blocks of both halves: the first gfn and the last are private, what lies between is not."""
UNALIGNED = Config(max_gfn=2, slots=((0, 0, 2, MEM_GUEST_MEMFD), (1, 2, 1, 0)), private_gfns=(0,))
"""The last gfn is in the middle of what an entry of the root covers."""
COPIED = Config(slots=((0, 0, 4, MEM_GUEST_MEMFD),), private_gfns=(0,), readonly_gfns=(1, 2))
"""Pages of the host that are shared with others until they are written."""
DEEP = Config(deep=True)
"""The candidate makes the SEAMCALLs; the TD is not finalized."""
EARLY = Config(deep=True, early=True)
TWO_FILES = Config(slots=((0, 0, 1, MEM_GUEST_MEMFD), (1, 2, 1, MEM_GUEST_MEMFD), (2, 3, 1, 0)), private_gfns=(0, 2))
"""Two slots of guest memory."""
PROTECTED = Config(mirror=False)
"""Private memory without a mirror (SW_PROTECTED)."""
PLAIN = Config(mirror=False, private=False, slots=((0, 0, 4, 0),), private_gfns=())
HIGH = Config(max_gfn=15, slots=((0, 0, 2, MEM_GUEST_MEMFD), (1, 8, 2, 0), (2, 10, 2, MEM_GUEST_MEMFD)),
              private_gfns=(0, 10))  # fmt: skip
"""gfns beyond what the root level can name."""
DELETING = Config(
    slots=((0, 0, 3, MEM_GUEST_MEMFD | SLOT_INVALID), (1, 3, 1, SLOT_INVALID)),
)
"""Slots in the middle of their deletion."""
FAR = 2**30 + 5 * 2**18 + 3 * 2**9 + 1
"""A private gfn of which no index is 0."""
FOUR_LEVELS = Config(
    index_bits=9, levels=4, direct_bit=35, max_gfn=2**35 - 1,
    slots=((0, 0, 3, MEM_GUEST_MEMFD), (1, 511, 3, 0), (2, 2**35 - 1, 1, 0), (4, 1024, 64, 0),
           (5, FAR, 1, MEM_GUEST_MEMFD)),
    private_gfns=(0, 1, FAR),
)  # fmt: skip
FIVE_LEVELS = replace(
    FOUR_LEVELS, levels=5, direct_bit=39, max_gfn=2**39 - 1, slots=(*FOUR_LEVELS.slots, (3, 2**37 - 1, 1, 0))
)

CONFIGS = (
    SMALL,
    HUGE,
    LOGGED,
    COPIED,
    UNEVEN,
    UNALIGNED,
    TWO_FILES,
    MIXED,
    DEEP,
    PROTECTED,
    PLAIN,
    HIGH,
    DELETING,
    FOUR_LEVELS,
    FIVE_LEVELS,
    EARLY,
)

SHARED = SMALL.direct_bits << 12
"""The address bit of the shared half in the small geometry."""

VCPUS: Domain[int] = Domain((0, 1))
GPAS: Domain[int] = Domain(
    (0, 0x1000, 0x3000 | SHARED, 0x2000 | SHARED),
    (0x2000, 0x3000, SHARED, 0x1000 | SHARED, 0x1234, 0x8000, 0x8000 | SHARED, 0x9000 | SHARED, 0xA000, 0xA000 | SHARED,
     511 << 12 | 1 << 47, 512 << 12 | 1 << 47, 511 << 12 | 1 << 51, 1 << 47, 1 << 51, 1 << 48,
     1 << 47 | 1 << 48, 2**48 - 4096, 2**37 - 1 << 12 | 1 << 51,
     2**52 - 4096),
)  # fmt: skip
FIRSTS: Domain[int] = Domain((0, 1, 2, 3), (4, 5, 511, 512, 2**35 - 1, 2**35, 2**39))
ENDS: Domain[int] = Domain((4, 1, 2, 3), (0, 8, 12, 512, 513, 2**35, 2**39, 2**40))
SLOTS: Domain[int] = Domain((0, 1), (2, 4))
MASKS: Domain[int] = Domain((1, 2, 3), (5, 1 << 31, 1 << 32, 1 << 33 | 1, 1 << 63, 2**64 - 1))
"""Pages of one word of user space's bitmap, on both sides of its halves."""
TYPES: Domain[int] = Domain((2, 4, 6, 3, 5, 7, 0, 1))
FILTERS: Domain[int] = Domain((1, 2, 3), (0,))
GFNS: Domain[int] = Domain((0, 1, 2, 3))
LEVELS: Domain[int] = Domain((1, 2))
"""What is asked for at 4K, or only of what is huge."""

BUSY = TDX_OPERAND_BUSY
BROKEN = TDX_OPERAND_INVALID

REMOVAL = (
    ("tdh_mem_range_block", (BUSY | TDX_OPERAND_ID_SEPT, BROKEN)),
    ("tdh_mem_track", (BUSY | TDX_OPERAND_ID_EPOCH, BROKEN, TDX_PREVIOUS_TLB_EPOCH_BUSY)),
    ("tdh_mem_page_remove", (BUSY, BROKEN)),
)


def fault_at(gfn: int, private: bool, vcpu: int = 0, **more: Any) -> Step:
    """A fault of the half that a gfn of the small geometry is in."""
    return Step(PageFault(vcpu, gfn << 12 if private else gfn << 12 | SHARED, private, **more))
