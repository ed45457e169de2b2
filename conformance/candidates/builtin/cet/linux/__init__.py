"""KVM of Linux 6.18, function by function as its files are laid out.

`x86.py`, `registers.py`, `msrs.py` and `state.py` follow arch/x86/kvm/x86.c, `smm.py` smm.c, `emulate.py` emulate.c,
`vmx.py` vmx/vmx.c and vmx/nested.c, `svm.py` svm/svm.c and svm/nested.c. Where the released kernel breaks a clause that
stands, a class attribute chooses; as shipped it keeps the clause.
"""

from conformance.candidates.builtin.cet.linux.x86 import Linux

__all__ = ["Linux"]
