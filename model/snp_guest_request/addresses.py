"""Guest-physical addresses by name: what an operation says without holding numbers."""

from __future__ import annotations

from conformance.specs.snp_guest_request.constants import PAGE_SIZE

GPA = {
    "G0": 0x1000,
    "G1": 0x2000,
    "R0": 0x3000,
    "R1": 0x4000,
    "P0": 0x5000,
    "P1": 0x6000,
    "D0": 0x7000,
    "D1": 0x8000,
    "D2": 0x9000,
    "D3": 0xA000,
    "private": 0xC000,
    "readonly": 0xD000,
    "spare": 0x1_0000_1000,
}
"""Guest pages of every VM by name; all else is a hole. The lower half of the last is that of another page."""

PAGE_AT = {gpa: name for name, gpa in GPA.items()}

WATCHED = ("P0", "P1", "D0", "D1", "D2", "D3", "readonly")
"""Pages whose content is part of the view, in this order."""

INDEX = {name: index for index, name in enumerate(WATCHED)}

_FIXED = {
    "D": GPA["D0"],
    "D1": GPA["D1"],
    "D3": GPA["D3"],
    "hole": 0xB000,
    "private": GPA["private"],
    "readonly": GPA["readonly"],
    "D+1": GPA["D0"] + 1,
    "D+8": GPA["D0"] + 8,
    "D+2048": GPA["D0"] + 2048,
    "far R": 0x1_0000_0000 + GPA["R0"],
    "far P": 0x1_0000_0000 + GPA["P0"],
    "far D": 0x1_0000_0000 + GPA["D0"],
    "0": 0,
    "2^51": 1 << 51,
    "2^52-4096": (1 << 52) - 4096,
    "2^63": 1 << 63,
    "-4096": 2**64 - 4096,
}


def gpa_of(name: str, cpu: int) -> int:
    """Guest-physical address of a name used by the VM's `cpu`-th vCPU.

    R, P and G are the vCPU's own request, response and GHCB page, with ' the other vCPU's;
    an offset may follow.
    """
    if name in _FIXED:
        return _FIXED[name]
    base, _, offset = name.partition("+")
    own = cpu if base[-1] != "'" else 1 - cpu
    return GPA[f"{base[0]}{own}"] + int(offset or 0)


_GPAS = {
    (name, cpu): gpa_of(name, cpu)
    for cpu in (0, 1)
    for name in (*_FIXED, "R", "P", "G", "R'", "P'", "G'", "R+8", "P+1", "P+8", "R+4095", "R+2048", "P+2048")
}


def address(name: str, cpu: int) -> int:
    """The same from a table where the name is a usual one."""
    known = _GPAS.get((name, cpu))
    return gpa_of(name, cpu) if known is None else known


def page_at(gpa: int) -> str | None:
    """Name of the page that holds this byte, None in a hole."""
    return PAGE_AT.get(gpa - gpa % PAGE_SIZE)
