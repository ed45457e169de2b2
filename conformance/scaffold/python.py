"""A Python class to begin with."""

from __future__ import annotations

from conformance.candidates.promised import asked_for
from conformance.scaffold.parts import Plan, filled, not_implemented, type_text, wrapped
from conformance.wire.values import Method

SPEC = "driver.py:Driver"
WIDTH = 110


def files(of: Plan) -> dict[str, str]:
    """Contents by path."""
    return {
        "driver.py": driver(of, HEAD),
        "test_driver.py": pytest_file(of, "Driver", local="from driver import Driver\n"),
    }


HEAD = '''"""A candidate for {subsystem}: every entry point answers "not implemented".

conformance doctor {subsystem} --candidate driver.py:Driver
conformance run {subsystem} --candidate driver.py:Driver
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conformance.specs.{subsystem} import Port

ENOSYS = 38
'''


def driver(of: Plan, head: str) -> str:
    """The module with the class `Driver`."""
    declared = ", ".join(f'"{name}"' for name in sorted(of.capabilities))
    lines = [
        head.format(subsystem=of.of.name),
        "",
        "class Driver:",
        *_docstring(of.of.candidate.__doc__ or "", "    "),
        "",
        f'    profile = "{of.of.default_profile}"',
        f"    capabilities = frozenset({{{declared}}})" if declared else "    capabilities = frozenset()",
    ]
    others = [name for name in of.of.capabilities if name not in of.capabilities]
    for name in others:
        needs = asked_for(of.of, name)
        text = f'"{name}": {of.of.capabilities[name]}' + (f"; needs {', '.join(needs)}" if needs else "")
        lines += [f"    # {line}" for line in wrapped(text, WIDTH)]
    lines += [
        "",
        "    def __init__(self, port: Port) -> None:",
        '        """`port` has a method for each environment call."""',
    ]
    lines += ["        self.port = port", ""]
    for name, method in of.entries.items():
        lines += [*_entry(name, method), ""]
    return "\n".join(lines).rstrip() + "\n"


def _entry(name: str, method: Method) -> list[str]:
    arguments = "".join(f", {parameter}: {type_text(kind)}" for parameter, kind in method.parameters.items())
    head = f"    def {name}(self{arguments}) -> {type_text(method.result)}:"
    if len(head) > WIDTH + 10:
        inner = [f"        {p}: {type_text(kind)}," for p, kind in method.parameters.items()]
        head = "\n".join([f"    def {name}(", "        self,", *inner, f"    ) -> {type_text(method.result)}:"])
    answer = not_implemented(method.result)
    body = "        return" if answer == "None" else f"        return {answer}"
    return [head, *_docstring(method.doc, "        "), body]


def _docstring(doc: str, indent: str) -> list[str]:
    lines = [line.replace("\\", "\\\\") for line in wrapped(doc, WIDTH, indent)]
    if not lines:
        return []
    lines[0] = f'{indent}"""{lines[0].strip()}'
    return [*lines, f'{indent}"""'] if len(lines) > 1 else [lines[0] + '"""']


def pytest_file(of: Plan, given: str, *, imports: str = "", local: str = "", before: str = "") -> str:
    """The test file for pytest."""
    named = {"imports": imports, "local": local, "before": before, "given": given}
    return filled("test_driver.py.in", subsystem=of.of.name, **named)
