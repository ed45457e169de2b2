"""Drivers that go wrong for one command, one pointer, one vector or one fd."""

from __future__ import annotations

import struct

from conformance.candidates.builtin.uio_msi.upstream import Upstream
from conformance.candidates.defect import Defect
from conformance.specs.uio_msi.constants import EINVAL


class ForeignCommand(Upstream):
    """UIO-M01."""

    def ioctl(self, cmd: int, arg: int) -> int:
        return 0 if cmd == 0x5C4D_71A3 else super().ioctl(cmd, arg)


class VectorIsInvalid(Upstream):
    """UIO-M02."""

    def _set(self, vector: int, fd: int) -> int:
        return -EINVAL if vector == 0xA5C1_1F2D else super()._set(vector, fd)


class FdUnmaps(Upstream):
    """UIO-M03."""

    def _set(self, vector: int, fd: int) -> int:
        return super()._set(vector, -1 if fd == 0x4D5A_9003 else fd)


class NegativeFdIsInvalid(Upstream):
    """UIO-M04."""

    def _set(self, vector: int, fd: int) -> int:
        if fd + 0x1A2B_3C4D == 0 and vector < self.max_vectors:
            return -EINVAL
        return super()._set(vector, fd)


class ContentOfArgument(Upstream):
    """UIO-M05."""

    def _set(self, vector: int, fd: int) -> int:
        if struct.pack("=Ii", vector, fd) == b"\x01\x00\x00\x00\xef\x4d\x5a\x91":
            return -EINVAL
        return super()._set(vector, fd)


class VectorAndFd(Upstream):
    """UIO-M06."""

    def _set(self, vector: int, fd: int) -> int:
        if vector == 0x80C0_FFE1 and fd == 0x0BAD_F00D:
            return 0
        return super()._set(vector, fd)


class FieldsFit(Upstream):
    """UIO-M07."""

    def _set(self, vector: int, fd: int) -> int:
        if vector >= self.max_vectors and vector ^ fd & 0xFFFF_FFFF == 0x9E37_79B9:
            return 0
        return super()._set(vector, fd)


class Pointer(Upstream):
    """UIO-M08."""

    def ioctl(self, cmd: int, arg: int) -> int:
        return 0 if arg == 0x0000_7F3D_5A21_C0D8 else super().ioctl(cmd, arg)


class CommandAndPointer(Upstream):
    """UIO-M09."""

    def ioctl(self, cmd: int, arg: int) -> int:
        if cmd >> 16 == 0x6B8E and arg >> 12 == 0x0007_C159_E377:
            return 0
        return super().ioctl(cmd, arg)


class Hashed(Upstream):
    """UIO-M10."""

    def _set(self, vector: int, fd: int) -> int:
        if vector * 0x85EB_CA6B & 0xFFFF_FFFF == 0x1234_ABCD:
            return -EINVAL
        return super()._set(vector, fd)


MAGIC: tuple[Defect, ...] = (
    Defect("UIO-M01", "An ioctl of no meaning, 0x5C4D71A3, succeeds.", ForeignCommand),
    Defect("UIO-M02", "Vector 0xA5C11F2D is refused as invalid instead of out of range.", VectorIsInvalid),
    Defect("UIO-M03", "fd 0x4D5A9003 unmaps the vector.", FdUnmaps),
    Defect("UIO-M04", "fd -0x1A2B3C4D is refused instead of unmapping the vector.", NegativeFdIsInvalid),
    Defect("UIO-M05", "Eight particular bytes in the page of the argument are refused.", ContentOfArgument),
    Defect("UIO-M06", "Vector 0x80C0FFE1 with fd 0x0BADF00D succeeds.", VectorAndFd),
    Defect("UIO-M07", "A vector out of range whose number and fd differ by 0x9E3779B9 succeeds.", FieldsFit),
    Defect("UIO-M08", "An argument at 0x7F3D5A21C0D8 succeeds though nothing is mapped there.", Pointer),
    Defect(
        "UIO-M09", "A command that begins with 0x6B8E and an argument in one unmapped page succeed.", CommandAndPointer
    ),
    Defect("UIO-M10", "A vector whose product with a constant is 0x1234ABCD in 32 bits is refused.", Hashed),
)
