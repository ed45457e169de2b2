"""A trace as a program in C, which is linked with the user's driver and needs no Python."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from conformance.abi.header import header, members
from conformance.abi.plan import Kind, Plan, Value, fields, of_subsystem
from conformance.candidates.load import load
from conformance.model.step import Parallel
from conformance.repro.events import Call, Entry, recorded, recorded_job
from conformance.repro.python import Case
from conformance.repro.reference import is_plain
from conformance.runs.describe import is_ours
from conformance.runs.replaying import Replay
from conformance.runs.workers import Died, Jobs
from conformance.subsystem import subsystem
from conformance.verdict import UsageError

RUNTIME = Path(__file__).parent / "runtime.c.in"
ROOM = 8192
"""Bytes or records that a result of an entry point may have."""


def program(case: Case) -> str:
    """The source.

    Raises:
        UsageError  it cannot be said in C what is wrong
    """
    return _Program(case).text()


class _Program:
    """One program in the making."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.of = subsystem(case.trace.subsystem)
        self.calls, self.entries = of_subsystem(header(self.of.name), self.of)
        self.functions: list[str] = []
        """One for each entry."""
        self.answers: list[str] = []
        if case.taken is None:
            raise UsageError("no shipped candidate takes this trace as it should, so there is nothing to answer with")
        if any(step.step.during or isinstance(step.step.op, Parallel) for step in case.taken):
            raise UsageError("two things at once cannot be told by a table of answers; take --lang pytest")

    def text(self) -> str:
        """All of it."""
        case, of = self.case, self.of
        right = recorded(of, case.trace, load(case.right, of).factory)
        steps = [[self._enter(number, entry) for entry in entries] for number, entries in enumerate(right)]
        runtime = RUNTIME.read_text()
        sentence = "A trace that must conform." if case.clause is None else f"{case.clause.id}: {case.clause.text}"
        source = "" if case.clause is None else f"\n *\n * Source: {case.clause.source}"
        build = "cc -I ABI -o repro repro.c driver.c && ./repro"
        for name, value in {
            "HEAD": _wrapped(sentence) + source,
            "BUILD": build,
            "SUBSYSTEM": of.name,
            "LAST": str(len(right) - 1),
        }.items():
            runtime = runtime.replace(f"@{name}@", value)
        return "\n".join([runtime, *self._stubs(), *self.functions, *self._tables(right), *self._main(steps)]) + "\n"

    # -- the environment

    def _stubs(self) -> Iterator[str]:
        """One function for each environment call, and the table of them."""
        found = members(self.of.name, "env")
        for member in found:
            yield f"static {member.result} env_{member.name}({member.arguments})"
            yield from ("{", *self._stub(self.calls[member.name], member.result), "}", "")
        yield f"static const struct {self.of.name}_env env = {{"
        yield from (f"\t.{member.name} = env_{member.name}," for member in found)
        yield from ("};", "")

    def _stub(self, plan: Plan, result: str) -> Iterator[str]:
        yield "\tstruct answer *answer;"
        yield ""
        yield "\t(void)world;"
        for value in plan.arguments:
            yield from _put(value, value.name)
        yield f'\tanswer = answered("{plan.name}");'
        yield "\t(void)answer;"
        for number, value in enumerate(plan.outs):
            yield from _stored(value, number)
        if result != "void":
            yield "\treturn answer->result;"

    def _answer(self, step: int, call: Call) -> None:
        plan = self.calls[call.name]
        inner = self._inner([self._enter(step, entry) for entry in call.entries])
        if plan.is_optional:
            returned, parts = int(bool(call.result)), [call.result]
        else:
            parts = list(call.result) if plan.is_tuple else [call.result]
            returned = parts.pop(0) if plan.returned is not None else 0
        outs = ", ".join(map(_out, parts)) if plan.outs else ""
        given = _quoted(_arguments(plan, call.args))
        result = f"0x{int(returned or 0) & 2**64 - 1:x}ULL"
        self.answers.append(f'\t{{ {step}, "{call.name}", {given}, {result}, {{ {outs or "NULL"} }}, {inner}, 0 }},')

    def _inner(self, made: Sequence[str]) -> str:
        """One function for what happens in the middle of a call."""
        if len(made) < 2:
            return made[0] if made else "NULL"
        name = f"inner_{len(self.functions)}"
        self.functions.append("\n".join([f"static void {name}(void)", "{", *(f"\t{one}();" for one in made), "}", ""]))
        return name

    # -- entries

    def _enter(self, step: int, entry: Entry) -> str:
        """A function that makes one entry and looks at what comes back; its name."""
        for call in entry.calls:
            self._answer(step, call)
        name, plan = f"enter_{len(self.functions)}", self.entries[entry.name]
        allowed = self._allowed(step, entry)
        lines = [f"static void {name}(void)", "{", f"\tstatic const char *const allowed[] = {{ {allowed}NULL }};"]
        given = ["self", *(_literal(value, arg) for value, arg in zip(plan.arguments, entry.args, strict=True))]
        for value in plan.outs:
            many = value.kind in (Kind.BYTES, Kind.MANY)
            size = f"[{ROOM}]" if many else ""
            lines.append(f"\tstatic {value.ctype.cname} {value.name}{size};")
            lines += [f"\tsize_t {value.name}_len = {ROOM};"] if many else []
            given.append(value.name if many else f"&{value.name}")
            given += [f"&{value.name}_len"] if many else []
        called = f"{self.of.name}_driver.{entry.name}({', '.join(given)})"
        if plan.returned is None:
            lines += ["", f"\t{called};"]
        else:
            lines += [f"\t{plan.returned.ctype.cname} result;", "", f"\tresult = {called};"]
            lines += ["\targs[0] = 0;", "\tput_number(result);"]
        for value in plan.outs:
            lines += _put(value, value.name)
        lines += [f'\texpect("{entry.name}", allowed);', "}", ""]
        self.functions.append("\n".join(lines))
        return name

    def _allowed(self, step: int, entry: Entry) -> str:
        """The results that may come back, as C strings; none where that is left to the specification."""
        plan = self.entries[entry.name]
        taken = self.case.taken[step - 1] if step and self.case.taken is not None else None
        results = [entry.result]
        if taken is not None and taken.result == entry.result:
            results = list(taken.allowed) or ([] if taken.step.faults else [entry.result])
        texts = []
        for result in results:
            parts = list(result) if plan.is_tuple else [] if plan.returned is None else [result]
            if not is_plain(tuple(parts)):
                return ""
            texts.append(_quoted("".join(map(_told, parts))))
        return "".join(f"{text}, " for text in dict.fromkeys(texts))

    # -- what must and must not be called

    def _tables(self, right: Sequence[Sequence[Entry]]) -> Iterator[str]:
        yield "struct answer answers[] = {"
        yield from self.answers
        yield from ("\t{ 0, NULL, NULL, 0, { NULL }, NULL, 0 },", "};", "")
        yield "struct limit limits[] = {"
        yield from self._limits(right)
        yield from ("\t{ NULL, NULL, 0, 0, 0 },", "};", "")

    def _limits(self, right: Sequence[Sequence[Entry]]) -> Iterator[str]:
        """Calls of the last step that the failing candidate made too often, or not at all."""
        case = self.case
        if case.failure is None or case.failure.kind in ("result", "crash", "hang", "type"):
            return
        bad = self._failing()
        if len(bad) != len(right):
            raise UsageError("the candidate fails before the last step of the trace; replay it, and take that trace")
        good_calls, bad_calls = (Counter(self._made(steps[-1])) for steps in (right, bad))
        differ = good_calls != bad_calls
        named, of_bad = (Counter(name for name, _ in calls.elements()) for calls in (good_calls, bad_calls))
        if named != of_bad:
            for name in sorted(named.keys() | of_bad.keys()):
                if named[name] < of_bad[name]:
                    yield f'\t{{ "{name}", NULL, 0, {named[name]}, 0 }},'
                elif named[name] > of_bad[name]:
                    yield f'\t{{ "{name}", NULL, {named[name]}, 1 << 30, 0 }},'
        elif differ:
            for (name, given), count in sorted((bad_calls - good_calls).items()):
                yield f'\t{{ "{name}", {_quoted(given)}, 0, {good_calls[name, given]}, 0 }},  /* not {count} more */'
        else:
            raise UsageError("the calls are right, but not their order or moment; take --lang pytest")

    def _made(self, entries: Sequence[Entry]) -> Iterator[tuple[str, str]]:
        """The calls of these entries, those of entries in their middle too."""
        for entry in entries:
            for call in entry.calls:
                yield call.name, _arguments(self.calls[call.name], call.args)
                yield from self._made(call.entries)

    def _failing(self) -> list[list[Entry]]:
        job = Replay(self.case.spec, self.case.trace)
        jobs = Jobs(recorded_job, [job], 1, lambda *_: None, apart=not is_ours(job.spec), limit=60.0)
        for _, answer in jobs.run():
            if isinstance(answer, Died):
                raise UsageError(f"{self.case.spec}: {answer.how}")
            steps: list[list[Entry]] = answer
            return steps
        raise KeyboardInterrupt

    def _main(self, steps: Sequence[Sequence[str]]) -> Iterator[str]:
        clause = "the trace" if self.case.clause is None else self.case.clause.id
        yield from ("int main(void)", "{", "\tstruct limit *limit;", "")
        yield f"\tself = {self.of.name}_driver.create(&env, NULL);"
        for number, entries in enumerate(steps):
            if number:
                yield f"\tstep = {number};"
            yield from (f"\t{name}();" for name in entries)
        yield f"""\tfor (limit = limits; limit->name; limit++) {{
\t\tif (limit->seen < limit->least || limit->seen > limit->most) {{
\t\t\tprintf("step %d: %s is called %d times, expected %s%d\\n", step, limit->name, limit->seen,
\t\t\t       limit->seen < limit->least ? "" : "at most ",
\t\t\t       limit->seen < limit->least ? limit->least : limit->most);
\t\t\tfailed = 1;
\t\t}}
\t}}
\tprintf("%s: {clause}\\n", failed ? "broken" : "holds here");
\treturn failed;
}}"""


def _stored(value: Value, number: int) -> Iterator[str]:
    """Code that stores a result of an environment call."""
    name = value.name
    match value.kind:
        case Kind.BYTES:
            yield f"\tout_bytes(answer, {number}, {name}, {name}_len);"
        case Kind.ONE:
            for at, (field, _) in enumerate(fields(value.ctype)):
                yield f"\t{name}->{field} = out_at(answer, {number}, {at});"
        case Kind.MANY:
            inner = [f".{field}" for field, _ in fields(value.ctype)] if value.ctype.kind == "struct" else [""]
            yield f"\t{{\n\t\tsize_t i, room = *{name}_len, count = out_count(answer, {number}) / {len(inner)};\n"
            yield "\t\tfor (i = 0; i < count && i < room; i++) {"
            for at, field in enumerate(inner):
                yield f"\t\t\t{name}[i]{field} = out_at(answer, {number}, {len(inner)} * i + {at});"
            yield f"\t\t}}\n\t\t*{name}_len = count;\n\t}}"
        case _:
            yield f"\t*{name} = out_at(answer, {number}, 0);"


def _out(part: Any) -> str:
    """A result of an environment call in the table."""
    if isinstance(part, bytes):
        return f'"#{part.hex()}"'
    return f'"{"".join(_numbers(part))}"'


def _numbers(part: Any) -> Iterator[str]:
    """The numbers in it, one after the other."""
    if isinstance(part, tuple):
        for item in part:
            yield from _numbers(item)
    elif isinstance(part, int):
        yield f"{int(part) & 2**64 - 1:x},"
    else:
        raise UsageError("an answer of the environment is a record with text in it; take --lang pytest")


def _arguments(plan: Plan, args: Sequence[Any]) -> str:
    """Arguments of a call as the program writes them."""
    told = zip(plan.arguments, args, strict=False)
    return "".join("" if value.kind is Kind.ONE else _told(arg) for value, arg in told)


def _put(value: Value, name: str) -> Iterator[str]:
    """Code that adds one value to `args`."""
    match value.kind:
        case Kind.NUMBER | Kind.FLAG:
            yield f"\tput_number({name});"
        case Kind.TEXT:
            yield f"\tput_text({name});"
        case Kind.BYTES:
            yield f"\tput_bytes({name}, {name}_len);"
        case Kind.MANY:
            yield f"\t(void){name};\n\tput_number({name}_len);"
        case Kind.ONE:
            yield f"\t(void){name};"


def _told(value: Any) -> str:
    """The same of a recorded value."""
    if isinstance(value, bool | int):
        return f"{int(value) & 2**64 - 1:x},"
    if isinstance(value, str):
        return f"'{value}',"
    if isinstance(value, bytes):
        return f"#{value.hex()},"
    if isinstance(value, tuple):
        return f"{len(value):x},"
    return ""


def _literal(value: Value, arg: Any) -> str:
    """An argument of an entry point in C."""
    match value.kind:
        case Kind.FLAG:
            return "true" if arg else "false"
        case Kind.NUMBER:
            text = f"0x{arg & 2**64 - 1:x}ULL"
            return f"ours({text})" if arg >= 4096 else f"({value.ctype.cname}){text}"
        case Kind.TEXT:
            return _quoted(arg)
        case Kind.BYTES | Kind.MANY:
            return _array(value.ctype, arg)
        case Kind.ONE:
            return f"&(const {value.ctype.cname}){_element(value.ctype, arg)}"


def _array(ctype: Any, items: Sequence[Any]) -> str:
    """A pointer to these, and how many they are."""
    inner = ", ".join(_element(ctype, item) for item in items) or ("{ 0 }" if ctype.kind == "struct" else "0")
    return f"(const {ctype.cname}[]){{ {inner} }}, {len(items)}"


def _element(ctype: Any, item: Any) -> str:
    """A number or a record."""
    if ctype.kind != "struct":
        return f"0x{int(item) & 2**64 - 1:x}ULL"
    kinds, parts = dict(ctype.fields), []
    for (name, kind), part in zip(fields(ctype), item, strict=True):
        match kind:
            case Kind.TEXT:
                parts.append(_quoted(part))
            case Kind.BYTES | Kind.MANY:
                parts.append(_array(kinds[name].type.item, part))
            case _:
                parts.append(_element(kinds[name].type, part))
    return f"{{ {', '.join(parts)} }}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _wrapped(text: str) -> str:
    import textwrap

    return "\n * ".join(textwrap.wrap(text.replace("*/", "* /"), 100))
