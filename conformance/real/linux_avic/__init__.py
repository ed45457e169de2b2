"""The AVIC driver of an unmodified kernel, loaded with `avic=1 force_avic=1` on an emulated processor that has none.

The driver's half is real: tables, backing pages, IsRunning, inhibits; all of it is read from the guest's memory. The
hardware's half is absent: nothing is accelerated and there are no AVIC exits.
"""

from conformance.real.linux_avic.adapter import LinuxAvic

__all__ = ["LinuxAvic"]
