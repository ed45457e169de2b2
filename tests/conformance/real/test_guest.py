"""What surrounds a guest, without one: the channel, doorbells, the cache."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from conformance.real.guest.channel import Channel
from conformance.real.guest.ivshmem import Doorbell
from conformance.verdict import Crash, Hang, HarnessError


def test_a_late_answer_is_nobodys() -> None:
    """After a hang the channel is closed, so that no answer is taken for that of another request."""
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    with pytest.raises(Hang, match=r"does not answer within 0\.01 s: first"):
        channel.one("first", patience=0.01)

    with theirs, pytest.raises(Crash, match="the guest is gone"):
        channel.one("second", patience=0.01)


def test_what_must_not_be_refused() -> None:
    """The result, or a sentence with the request and the errno."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = Channel(ours)
        theirs.sendall(b"7\n-2\n")

        assert channel.must("first") == 7
        with pytest.raises(HarnessError, match="the guest refused second: -2"):
            channel.must("second")


def descriptors() -> int:
    """How many this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_doorbell_gives_its_descriptors_back() -> None:
    """As many are open afterwards as before it served."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        before = descriptors()
        doorbell = Doorbell(64)
        doorbell.serve(ours)
        during = descriptors()

        doorbell.close()

        assert during == before + 64
        assert descriptors() == before
