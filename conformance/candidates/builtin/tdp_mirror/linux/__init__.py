"""A TDP MMU laid out as the files of Linux 6.16 are, with the mends of later releases where 6.16 itself goes wrong.

One module per file of the kernel, one method per function, in a chain of classes that ends with `Linux`: `spte`,
`tdp_iter`, `tdp_mmu` (three parts), `mmu`, `kvm_main` (with guest_memfd) and `tdx`.
"""

from conformance.candidates.builtin.tdp_mirror.linux.linux import Linux

__all__ = ["Linux"]
