"""Groups of operations that the rules of the world speak of."""

from __future__ import annotations

from conformance.model.tdp_mirror import operations as ops

MAPPING = (ops.PageFault, ops.TdpMap, ops.Prefault, ops.EptViolation, ops.InitRegion)
"""Operations that map."""
PROTECTING = (ops.WrprotSlot, ops.WriteProtectGfn, ops.ClearDirtySlot, ops.ClearDirtyMasked)
"""Operations that may take note of dirty pages and clear their bits."""
SHARED_ONLY = (*PROTECTING, ops.Age, ops.SplitHuge, ops.RecoverHuge, ops.ZapSp, ops.FastFault)
"""Operations that never alter a mirror (TDP-095)."""
GUEST = (ops.Access, ops.Accept)
"""What a vCPU does in the guest, with no part of the candidate in it."""
ZAPPING = (ops.ZapInvalidated, ops.ZapAllFast, ops.VmUninit)
"""Operations that put the MMU's references to roots."""
