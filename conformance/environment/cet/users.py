"""The user memory of ioctls."""

from __future__ import annotations

from conformance.environment.simulator import Simulator


class UserCopies(Simulator):
    """Copies between the candidate and the VMM's memory, which fail where that is planned; the bytes are arguments."""

    def copy_from_user(self, size: int) -> int:
        """0 or the planned -EFAULT."""
        return self.door.refused("copy_from_user")

    def copy_to_user(self, size: int) -> int:
        """0 or the planned -EFAULT."""
        return self.door.refused("copy_to_user")
