"""What a process has that a candidate in it may take away, and how it is had again: descriptors, limits, settings."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Mapping
from contextlib import suppress

LEFT = 64
"""Descriptors that must be left to a process, which are more than any work of ours opens at once."""
NONE = 1 << 31
"""Greater than every descriptor."""
LIMITS = ("NOFILE", "AS", "DATA", "FSIZE", "STACK", "NPROC", "CPU")
"""Those of setrlimit(2) under which work of ours fails."""


class Belongings:
    """Of one process and all its copies; what they were is known from its start."""

    def __init__(self, kept: Mapping[int, tuple[str, int]]) -> None:
        """`kept`: descriptors of ours, and of each a path by which it is had again and the flags to open that with."""
        self.kept = kept
        self.files = {fd: _file(fd) for fd in kept}
        self.limits = {name: resource.getrlimit(_number(name)) for name in LIMITS}
        self.depth = sys.getrecursionlimit()
        self.usual = self._free(1) + LEFT
        """A number that is free while the candidate has not opened many."""

    def mend(self) -> list[str]:
        """Have again what is not as it was; a sentence for each thing that was done."""
        return [*self.limits_mended(), *self.descriptors_mended()]

    def descriptors_mended(self) -> list[str]:
        """Of descriptors alone, which no candidate has a reason to take."""
        lost = []
        for fd, was in self.files.items():
            if _file(fd) == was:
                os.set_blocking(fd, True)
                continue
            lost.append(fd)
            path, flags = self.kept[fd]
            with suppress(OSError):  # no descriptor is left
                again = os.open(path, flags)
                if again != fd:
                    os.dup2(again, fd)
                    os.close(again)
        return [f"closed or replaced descriptors that are not its own: {', '.join(map(str, lost))}"] if lost else []

    def limits_mended(self) -> list[str]:
        """Of limits and settings, which it may have set for itself."""
        done = [f"set {name} to {now}" for name, now in self._limits_changed()]
        for name, (soft, hard) in self.limits.items():
            number = _number(name)
            now, most = resource.getrlimit(number)
            if now != soft:
                for highest in (hard, most):  # what this user may
                    with suppress(ValueError, OSError):
                        resource.setrlimit(number, (soft, highest))
                        break
        if sys.getrecursionlimit() != self.depth:
            done.append(f"set the recursion limit to {sys.getrecursionlimit()}")
            with suppress(RecursionError):  # it is deep in a call that it was made for
                sys.setrecursionlimit(self.depth)
        return done

    def for_good(self) -> str:
        """What cannot be mended; empty where all can."""
        done = [f"set {name} to {now} for good" for name, now in self._limits_changed()]
        if not done and self._are_used_up():
            done = [f"opened all {self.limits['NOFILE'][0]} descriptors that its process may have"]
        return ", ".join(done)

    def _limits_changed(self) -> list[tuple[str, int]]:
        soft = {name: resource.getrlimit(_number(name))[0] for name in LIMITS}
        return [(f"RLIMIT_{name}", now) for name, now in soft.items() if now != self.limits[name][0]]

    def _are_used_up(self) -> bool:
        """Whether nearly no descriptor is left."""
        return self._free(1) > self.usual and self._free(LEFT) == NONE

    def _free(self, many: int) -> int:
        """The lowest number that is free; NONE where fewer than `many` are."""
        opened = []
        try:
            for _ in range(many):
                opened.append(os.open("/", os.O_PATH))
            return opened[0]
        except OSError:
            return NONE
        finally:
            for fd in opened:
                os.close(fd)


def _file(fd: int) -> tuple[int, int] | None:
    """Which file a descriptor names; None where it names none."""
    try:
        said = os.fstat(fd)
    except OSError:
        return None
    return said.st_dev, said.st_ino


def _number(name: str) -> int:
    number: int = getattr(resource, f"RLIMIT_{name}")
    return number
