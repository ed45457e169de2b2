"""The messages, and the version of the protocol.

Whoever is asked answers: each message of the suite is followed by exactly one of the driver, about the same
operation. So only one side speaks at a time, whichever of the operations in flight goes on. `docs/wire.md` is the
page of prose, `schema/S.json` the schema for subsystem S.
"""

from __future__ import annotations

from typing import Any

import msgspec

PROTOCOL = 1
"""Version of the protocol. It changes where an old driver could not go on as it is."""


class _Message(msgspec.Struct, tag_field="type", gc=False):
    """What all messages have: `type` says which one it is."""


# -- What the suite says


class Greeting(_Message, tag="hello"):
    """The first line: what is spoken, and what the driver is to be."""

    protocol: int
    subsystem: str


class Create(_Message, tag="create"):
    """Make a new instance of the driver, as when the module is loaded into a fresh world; `return` answers."""

    op: int
    """Number of the operation, never used twice in one process."""
    thread: int
    """0, or 1 for the second of two operations at once."""
    instance: int
    """Number of the instance, never used twice in one process."""


class Enter(_Message, tag="enter"):
    """Call an entry point. `call` asks for something in the middle of it, `return` or `raise` ends it."""

    op: int
    thread: int
    instance: int
    name: str
    args: list[Any]


class Result(_Message, tag="result", omit_defaults=True):
    """The answer to a `call`: the operation goes on."""

    op: int
    thread: int
    value: Any
    descriptor: bool = False
    """Whether a file descriptor comes with this line (SCM_RIGHTS)."""


class Stop(_Message, tag="stop"):
    """The answer to a `call` that ends the operation: the trace is over. `stopped` answers."""

    op: int
    thread: int


class Destroy(_Message, tag="destroy"):
    """Forget an instance; no operation is in flight in it. `return` answers."""

    op: int
    thread: int
    instance: int


# -- What the driver says


class Hello(_Message, tag="hello", forbid_unknown_fields=True):
    """The answer to the greeting: who this is, and what it has."""

    protocol: int
    name: str
    """What to call it where its failures are described."""
    subsystem: str
    entries: list[str]
    """Entry points that it has."""
    profile: str | None = None
    """None: the subsystem's default."""
    capabilities: list[str] | None = None
    """None: all that the subsystem knows, but those that must be declared."""
    restart: bool = False
    """Whether it wants a new process for each trace, because it keeps one instance only or cannot stop."""
    descriptors: bool = False
    """Whether it takes file descriptors (SCM_RIGHTS) where the world has real ones."""


class Call(_Message, tag="call"):
    """Make an environment call. `result` or `stop` answers; before that, other operations may be entered."""

    op: int
    name: str
    args: list[Any]


class Return(_Message, tag="return"):
    """The operation has ended."""

    op: int
    value: Any = None


class Raise(_Message, tag="raise"):
    """The operation has ended by what counts as a crash: an exception that nobody caught, a failed assertion."""

    op: int
    error: str


class Stopped(_Message, tag="stopped"):
    """The operation has been left."""

    op: int


ToDriver = Greeting | Create | Enter | Result | Stop | Destroy
FromDriver = Hello | Call | Return | Raise | Stopped

encode = msgspec.json.Encoder().encode
"""A message as JSON, without the end of the line."""
read_from_driver = msgspec.json.Decoder(FromDriver).decode
read_from_suite = msgspec.json.Decoder(ToDriver).decode
