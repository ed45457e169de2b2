"""`python -m conformance.abi SUBSYSTEM`: what a compiler is told, to make a library of a driver.

    cc $(python -m conformance.abi uio_msi) -o driver.so driver.c

With `--shim` also the thin kernel look-alikes, their sources included, for subsystems that have them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from conformance.abi.header import FOLDER
from conformance.subsystem import NAMES
from conformance.verdict import UsageError

SHIM = FOLDER / "shim"


def flags(name: str, *, shim: bool = False) -> list[str]:
    """Arguments of a compiler.

    Raises:
        UsageError  there is no such subsystem, or no shim for it
    """
    if name not in NAMES:
        raise UsageError(f"there is no subsystem {name!r}; it has {', '.join(NAMES)}")
    given = ["-shared", "-fPIC", f"-I{FOLDER}"]
    if shim:
        source = SHIM / f"shim_{name}.c"
        if not source.is_file():
            there = ", ".join(path.stem.removeprefix("shim_") for path in sorted(SHIM.glob("shim_*.c")))
            raise UsageError(f"there are no kernel look-alikes for {name}, only for {there}")
        given += ["-std=gnu11", f"-I{SHIM}", str(source), str(SHIM / "statics.c")]
    return given


def compile_example(name: str, to: Path, *further: str) -> Path:
    """Compile the driver in `examples/c` of a checkout, as strictly as the suite's own tests do."""
    source = FOLDER.parents[1] / "examples" / "c" / name / f"{name}.c"
    strict = ["-O2", "-g", "-Wall", "-Wextra", "-Werror"]
    command = ["cc", *strict, *further, "-o", str(to), str(source), *flags(name, shim=True)]
    subprocess.run(command, check=True)  # noqa: S603 - our own example
    return to


def main(arguments: list[str]) -> int:
    """Print the flags; 2 where that cannot be done."""
    names = [argument for argument in arguments if not argument.startswith("-")]
    unknown = [argument for argument in arguments if argument.startswith("-") and argument != "--shim"]
    try:
        if len(names) != 1 or unknown:
            raise UsageError("usage: python -m conformance.abi SUBSYSTEM [--shim]")
        print(" ".join(flags(names[0], shim="--shim" in arguments)))
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
