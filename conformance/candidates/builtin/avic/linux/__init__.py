"""A driver laid out as Linux's is: irq_comm.c, lapic.c, x86.c, avic.c and svm.c, a file each."""

from conformance.candidates.builtin.avic.linux.svm import Linux

__all__ = ["Linux"]
