"""Where PL0..PL2_SSP may be kept, and what a candidate may lack."""

from __future__ import annotations

from dataclasses import dataclass

from conformance.specs import clause as base


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile(base.Profile):
    """How a candidate keeps PL0..PL2_SSP; what guests and userspace see is the same in all."""

    fpu_managed: bool = True
    """The FPU code swaps component 12 with the guest FPU; otherwise the candidate swaps by hand."""
    cleared: bool = False
    """PL0..PL2_SSP are 0 in hardware whenever somebody else may look."""
    base_aligned: bool = True
    """Bits 13:12 of U_CET and S_CET are refused where the candidate checks the value."""


PROFILES = {
    "upstream": Profile(name="upstream", text="The guest FPU carries PL0..PL3_SSP and U_CET, as merged for v6.18."),
    "v5": Profile(
        name="v5", text="Swapped by hand when guest state is loaded and put, as in the series' v5.", fpu_managed=False
    ),
    "as-posted": Profile(
        name="as-posted",
        text="Swapped by hand around KVM_RUN and at context switches, cleared for the host, as the seed posted.",
        fpu_managed=False,
        cleared=True,
    ),
    "hardware": Profile(
        name="hardware",
        text="As upstream, with the manual's freedom for bits 13:12 of U_CET and S_CET.",
        base_aligned=False,
    ),
}

CAPABILITIES = {
    "one-reg": "KVM_GET_ONE_REG, KVM_SET_ONE_REG and KVM_GET_REG_LIST",
    "xsave": "KVM_GET_XSAVE and KVM_SET_XSAVE",
    "smm": "system management mode",
    "nested": "nested virtualization",
    "emulator": "an instruction emulator",
}
