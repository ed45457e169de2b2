"""The TDP MMU of an unmodified kernel: the direct half of tdp_mirror, its page tables walked from outside."""

from conformance.real.linux_tdpmmu.adapter import LinuxTdpMmu

__all__ = ["LinuxTdpMmu"]
