"""Whether two checkouts give the same verdicts: signatures, traces, counts and their order, times apart.

For changes that must not change any behaviour:

    python tests/same_verdicts.py record BEFORE.json --checkout OLD
    python tests/same_verdicts.py record AFTER.json --checkout NEW
    python tests/same_verdicts.py compare BEFORE.json AFTER.json

`record` runs the gate on every shipped candidate, and the strength report of every zoo; with
`--defects N` the whole gate on N defects instead, spread evenly over the zoos. A recording that
was interrupted goes on where its file ends. Where only one subsystem changed: `--subsystem cet`, for `compare` too.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

TIMES = frozenset({"seconds", "elapsed", "suite", "python", "microseconds in them"})
"""Fields that differ from run to run."""

Job = tuple[str, ...]
"""Arguments of one command, without the report."""


def main() -> int:
    """Record or compare, as the command line says; 1 when two recordings differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    recorder = commands.add_parser("record")
    recorder.add_argument("file", type=Path)
    recorder.add_argument("--checkout", type=Path, default=Path(__file__).parents[1])
    recorder.add_argument("--python", default=sys.executable, help="an interpreter that has the dependencies")
    recorder.add_argument("--subsystem", action="append", default=[])
    recorder.add_argument("--defects", type=int, default=0, help="run the whole gate on that many defects")
    recorder.add_argument("-n", dest="workers", type=int, default=2)
    comparer = commands.add_parser("compare")
    comparer.add_argument("before", type=Path)
    comparer.add_argument("after", type=Path)
    comparer.add_argument("--subsystem", action="append", default=[])
    args = parser.parse_args()
    if args.command == "compare":
        before, after = (_read(path, args.subsystem) for path in (args.before, args.after))
        return _compare(before, after)
    _record(args)
    return 0


def _record(args: argparse.Namespace) -> None:
    """Run every command of the checkout, side by side, and keep what their reports say."""
    found: dict[str, Any] = json.loads(args.file.read_text()) if args.file.exists() else {}
    jobs = [job for job in _jobs(args) if " ".join(job) not in found]
    with ThreadPoolExecutor(args.workers) as pool:
        for job, lines in zip(jobs, pool.map(lambda job: _report(args, job), jobs), strict=True):
            found[" ".join(job)] = lines
            args.file.write_text(json.dumps(found, indent=0))
    print(f"{len(found)} reports, {sum(map(len, found.values()))} lines")


def _jobs(args: argparse.Namespace) -> Iterator[Job]:
    listed = json.loads(_run(args, "list", "--json"))["subsystems"]
    chosen = [s for s in listed if not args.subsystem or s["name"] in args.subsystem]
    if not args.defects:
        for entry in chosen:
            yield ("strength", entry["name"])
            yield from (("run", entry["name"], "--candidate", candidate) for candidate in entry["candidates"])
        return
    zoo = [(entry["name"], defect) for entry in chosen for defect in _defects(args, entry["name"])]
    for at in range(args.defects):
        name, defect = zoo[at * len(zoo) // args.defects]
        yield ("run", name, "--candidate", f"builtin:{defect}")


def _defects(args: argparse.Namespace, name: str) -> list[str]:
    """The defects of a zoo that can be run."""
    [listed] = json.loads(_run(args, "list", name, "--json"))["subsystems"]
    return [defect["id"] for defect in listed["zoo"] if not defect["why_not"]]


def _report(args: argparse.Namespace, job: Job) -> list[Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "report.jsonl")
        extra = ("--traces", str(Path(folder, "traces"))) if job[0] == "run" else ()
        _run(args, *job, "-n", "1", "--report", f"json:{path}", *extra)
        return [_timeless(json.loads(line)) for line in path.read_text().splitlines()]


def _run(args: argparse.Namespace, *words: str) -> str:
    """One command of the checkout; its exit code is in its report."""
    command = [args.python, "-m", "conformance", *words]
    done = subprocess.run(command, cwd=args.checkout, capture_output=True, text=True, check=False, errors="replace")
    if done.returncode in (2, 3):
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def _read(path: Path, subsystems: list[str]) -> dict[str, Any]:
    """A recording, or what it says of some subsystems."""
    found = json.loads(path.read_text())
    return {job: lines for job, lines in found.items() if not subsystems or job.split()[1] in subsystems}


def _timeless(value: Any) -> Any:
    match value:
        case dict():
            return {key: _timeless(inner) for key, inner in value.items() if key not in TIMES}
        case list():
            return [_timeless(inner) for inner in value]
        case str():
            return re.sub(r"\bat \w+\.py:\d+", "at its line", value)
        case _:
            return value


def _compare(before: dict[str, Any], after: dict[str, Any]) -> int:
    """Print each line that differs; only what both have is held against one another, the rest is named."""
    differing = 0
    for job in before | after:
        if job not in before or job not in after:
            print(f"{job}: only {'after' if job in after else 'before'}")
            differing += 1
            continue
        old, new = before[job], after[job]
        if old == new:
            continue
        differing += 1
        print(f"{job}: differs")
        for a, b in zip(old, new, strict=False):
            if a != b:
                print(f"  before {json.dumps(a)[:1000]}\n  after  {json.dumps(b)[:1000]}")
                break
        else:
            print(f"  {len(old)} lines before, {len(new)} after")
    print(f"{differing} of {len(before | after)} reports differ")
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main())
