"""A shared library in C to begin with, against the headers of the ABI, which are copied beside it."""

from __future__ import annotations

import re

from conformance.abi.header import FOLDER, Member, members
from conformance.candidates.promised import asked_for
from conformance.scaffold.parts import Plan, filled
from conformance.scaffold.python import pytest_file

SPEC = "lib:./driver.so"
BUILD = "import pathlib\nimport subprocess\n\n"
MAKE = 'HERE = pathlib.Path(__file__).parent\nsubprocess.run(["make", "-s", "-C", HERE], check=True)\n\n'


def files(of: Plan) -> dict[str, str]:
    """Contents by path."""
    name = of.of.name
    headers = ("types.h", f"{name}.h", f"{name}_constants.h")
    return {
        "driver.c": driver(of),
        "Makefile": filled("Makefile.in", subsystem=name, headers=" ".join(f"abi/{header}" for header in headers)),
        "test_driver.py": pytest_file(of, 'f"lib:{HERE}/driver.so"', imports=BUILD, before=MAKE),
        **{f"abi/{header}": (FOLDER / header).read_text() for header in headers},
    }


def driver(of: Plan) -> str:
    """The source, with one function for each entry point."""
    name = of.of.name
    wanted = [member for member in members(name, "driver") if member.name in of.entries]
    capabilities = " ".join(sorted(of.capabilities))
    return filled(
        "driver.c.in",
        subsystem=name,
        SUBSYSTEM=name.upper(),
        profile=of.of.default_profile,
        capabilities=capabilities,
        others=_others(of),
        functions="\n\n".join(_function(member) for member in wanted),
        table="\n".join(f"\t.{member.name} = driver_{member.name}," for member in wanted),
    )


def _others(of: Plan) -> str:
    """What it does not declare yet, as a comment."""
    lines = []
    for name, sentence in of.of.capabilities.items():
        if name not in of.capabilities:
            needs = asked_for(of.of, name)
            lines.append(f"\t *   {name}: {sentence}" + (f"; needs {', '.join(needs)}" if needs else ""))
    return "\n".join(lines) or "\t *   none"


def _function(member: Member) -> str:
    """The function that does nothing: all results are zero but the errno."""
    comment = re.sub(r"(?m)^\t", "", member.comment)
    lines = [comment, f"static {member.result} driver_{member.name}({member.arguments})", "{"]
    arguments = [argument.strip() for argument in member.arguments.split(",")]
    named = [re.sub(r"^.*?(\w+)$", r"\1", argument) for argument in arguments]
    lengths = [name for name in named if name.endswith("_len") and f"size_t *{name}" in member.arguments]
    for argument, name in zip(arguments, named, strict=True):
        if "*" not in argument or argument.startswith(("const ", "void ")) or f"{name}_len" in lengths:
            lines.append("\t(void)$name;".replace("$name", name))
        else:
            lines.append(f"\tmemset({name}, 0, sizeof(*{name}));")
    if member.result != "void":
        lines.append("\treturn -ENOSYS;" if member.result in ("int", "s64", "s32") else "\treturn 0;")
    return "\n".join([*lines, "}"])
