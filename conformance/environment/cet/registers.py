"""Places in a register file, and which of them go together."""

from __future__ import annotations

from conformance.specs.cet import constants as k

U, S, PL0, PL1, PL2, PL3, TABLE, XSS, SSP = range(9)
"""Places in a register file: the MSRs by number, then SSP."""
COUNT = 9
PLACE = {msr: place for place, msr in enumerate(k.MSRS)}
XSTATE = (U, PL0, PL1, PL2, PL3)
"""Registers of components 11 and 12."""
POINTERS = (PL0, PL1, PL2)
SWITCHED = (S, SSP, TABLE)
"""Registers that a VM entry and exit switch, in the order of the two tuples below."""
FIELDS = (k.GUEST_S_CET, k.GUEST_SSP, k.GUEST_INTR_SSP_TABLE)
SAVE_AREA = (k.VMCB_S_CET, k.VMCB_SSP, k.VMCB_ISST_ADDR)
