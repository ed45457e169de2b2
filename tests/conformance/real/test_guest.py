"""What surrounds a guest, without one: the channel."""

from __future__ import annotations

import socket

import pytest

from conformance.real.guest.channel import Channel
from conformance.verdict import Crash, Hang


def test_a_late_answer_is_nobodys() -> None:
    """After a hang the channel is closed, so that no answer is taken for that of another request."""
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    with pytest.raises(Hang, match=r"does not answer within 0\.01 s: first"):
        channel.one("first", patience=0.01)

    with theirs, pytest.raises(Crash, match="the guest is gone"):
        channel.one("second", patience=0.01)
