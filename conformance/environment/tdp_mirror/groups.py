"""Groups of operations that the rules of the world speak of."""

from __future__ import annotations

from typing import Any

from conformance.model.tdp_mirror import operations as ops

MAPPING = (ops.PageFault, ops.TdpMap, ops.Prefault, ops.EptViolation, ops.InitRegion)
"""Operations that map."""
PROTECTING = (ops.WrprotSlot, ops.WriteProtectGfn, ops.ClearDirtySlot, ops.ClearDirtyMasked)
"""Operations that may take note of dirty pages and clear their bits."""
CHANGING_BITS = (*PROTECTING, ops.Age, ops.FastFault)
"""Operations that change what leaves say, and neither bring nor take any."""
SHARED_ONLY = (*PROTECTING, ops.Age, ops.SplitHuge, ops.RecoverHuge, ops.ZapSp, ops.FastFault)
"""Operations that never alter a mirror (TDP-095)."""
GUEST = (ops.Access, ops.Accept)
"""What a vCPU does in the guest, with no part of the candidate in it."""
ZAPPING = (ops.ZapInvalidated, ops.ZapAllFast, ops.VmUninit)
"""Operations that put the MMU's references to roots."""


def is_prefetch(op: Any) -> bool:
    """Whether pages are mapped that the guest has not asked for."""
    return isinstance(op, ops.Prefault) or (isinstance(op, ops.PageFault) and op.prefetch)
