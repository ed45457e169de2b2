"""An executable specification and conformance suite for five Linux-virtualization subsystems."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def _guard() -> None:
    """The sibling packages have plain names; refuse to run with somebody else's `model` in front of ours."""
    here = Path(__file__).resolve().parent.parent
    for name in ("specs", "model", "strategies"):
        found = importlib.util.find_spec(name)
        origin = None if found is None or found.origin is None else Path(found.origin).resolve()
        if origin == here / name / "__init__.py":
            continue
        if origin is None:
            where = list(found.submodule_search_locations or ()) if found is not None else []
            raise ImportError(
                f"conformance needs its package {name!r} beside it in {here}, "
                + (f"but found the folder {where[0]}" if where else "and there is none")
                + "; run from the checkout, or reinstall"
            )
        raise ImportError(
            f"conformance needs its own package {name!r}, but {origin} hides it; start with the `conformance` "
            f"script instead of `python -m`, or rename that module"
        )


_guard()
