"""Ports are Protocols: what methods they list."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def methods(protocol: type) -> dict[str, Callable[..., Any]]:
    """The methods of a Protocol by name, in its order."""
    return {name: member for name, member in vars(protocol).items() if inspect.isfunction(member) and name[0] != "_"}
