"""`real:bochs-cet`: the rules of CET's MSRs, control registers and XSAVES components by Bochs' CPU model."""

from conformance.real.bochs_cet.adapter import BochsCet

__all__ = ["BochsCet"]
