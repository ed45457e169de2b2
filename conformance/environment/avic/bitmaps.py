"""The bitmaps of a register page, ISR, TMR and IRR: eight 32-bit words, 16 bytes apart."""

from __future__ import annotations

from conformance.environment.avic.memory import Page
from conformance.specs.avic.constants import APIC_IRR, APIC_ISR


def highest(page: Page, offset: int) -> int:
    """Highest vector of the bitmap at `offset`, -1 when it is empty."""
    words, first = page.words, offset >> 2
    for n in range(7, -1, -1):
        word = words[first + 4 * n]
        if word:
            return 32 * n + word.bit_length() - 1
    return -1


def has(page: Page, offset: int, vector: int) -> bool:
    """Whether a bit of a bitmap is set."""
    return page.words[(offset >> 2) + 4 * (vector >> 5)] >> (vector & 31) & 1 == 1


def change(page: Page, offset: int, vector: int, on: bool) -> None:
    """Set or clear a bit of a bitmap, atomically as hardware does."""
    index, bit = (offset >> 2) + 4 * (vector >> 5), 1 << (vector & 31)
    word = page.words[index]
    page.set(index, word | bit if on else word & ~bit)


def evaluate(page: Page, v_tpr: int) -> int:
    """Deliver the highest vector of IRR if V_TPR and ISR allow it; the vector, or -1."""
    vector = highest(page, APIC_IRR)
    if vector < 0 or vector >> 4 <= max(v_tpr, highest(page, APIC_ISR) >> 4):
        return -1
    change(page, APIC_IRR, vector, False)
    change(page, APIC_ISR, vector, True)
    return vector
