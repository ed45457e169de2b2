"""A program to begin with, that speaks JSON lines and needs nothing of ours: Python's standard library alone."""

from __future__ import annotations

from typing import Any, get_args, get_origin

from conformance.scaffold.parts import TEMPLATES, Plan
from conformance.scaffold.python import driver, pytest_file
from conformance.wire.messages import PROTOCOL

SPEC = "cmd:python3 driver.py"
HEAD = '''"""A candidate for {subsystem}: every entry point answers "not implemented". It needs nothing but Python.

conformance doctor {subsystem} --candidate 'cmd:python3 driver.py'
conformance run {subsystem} --candidate 'cmd:python3 driver.py'
"""

from __future__ import annotations

from wire import Port, serve

ENOSYS = 38
'''


def files(of: Plan) -> dict[str, str]:
    """Contents by path."""
    entries = {name: [shape(kind) for kind in m.parameters.values()] for name, m in of.entries.items()}
    calls = {name: shape(m.result) for name, m in of.calls.items() if not _is_plain(shape(m.result))}
    tail = [
        "",
        "",
        "# Arguments of entry points and results of environment calls, where they are more than numbers.",
        *_literal("ENTRIES", {n: s for n, s in entries.items() if not all(map(_is_plain, s))}),
        *_literal("CALLS", calls),
        "",
        'if __name__ == "__main__":',
        f'    serve(Driver, "{of.of.name}", {sorted(of.entries)!r}, ENTRIES, CALLS)'.replace("'", '"'),
    ]
    wire = (TEMPLATES / "wire.py.in").read_text().replace("$PROTOCOL", str(PROTOCOL))
    before = "HERE = pathlib.Path(__file__).parent\n\n"
    given = 'f"cmd:{sys.executable} {HERE}/driver.py"'
    return {
        "driver.py": driver(of, HEAD) + "\n".join(tail) + "\n",
        "wire.py": wire,
        "test_driver.py": pytest_file(of, given, imports="import pathlib\nimport sys\n\n", before=before),
    }


def shape(kind: Any) -> Any:
    """A type as plain data: its name, [one of many] or (each of several)."""
    if get_origin(kind) is not tuple:
        return "None" if kind is type(None) else kind.__name__
    inner = get_args(kind)
    if inner and inner[-1] is Ellipsis:
        return [shape(inner[0])]
    return tuple(shape(each) for each in inner)


def _is_plain(of: Any) -> bool:
    return "bytes" not in str(of) and not isinstance(of, list | tuple)


def _literal(name: str, of: dict[str, Any]) -> list[str]:
    if not of:
        return [f"{name} = {{}}"]
    return [f"{name} = {{", *(f'    "{key}": {value!r},'.replace("'", '"') for key, value in of.items()), "}"]
