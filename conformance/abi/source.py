"""The C source of the module that joins Python and a library: written from the header and the plans.

Calls of numbers and texts, which are nearly all, go straight from C to Python's own interface and back. The few that
pass records or arrays go by cffi. Either way an environment call that failed leaves C by a jump to the way into the
entry point that it belongs to. Names of ours that end with an underscore stand beside those of the header's arguments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from conformance.abi.header import Function, Header
from conformance.abi.plan import Kind, Plan

Plans = Mapping[str, Plan]

WORLD = """
struct conformance_world {
	void *handle;	/* cffi's, of the Python object that is `live` */
	void *live;
	void *port;
	int raised;	/* an environment call failed: no other one does anything */
	int jumps;	/* C may be left */
};
"""
"""What `world` points to; cffi knows it too."""

_RUNTIME = """
#include <setjmp.h>
#include <string.h>

struct conformance_frame { jmp_buf at; };
static struct conformance_frame *conformance_inside;

static void conformance_failed(struct conformance_world *w, const char *name)
{
	PyObject *type, *error, *traceback, *done;

	PyErr_Fetch(&type, &error, &traceback);
	PyErr_NormalizeException(&type, &error, &traceback);
	if (traceback)
		PyException_SetTraceback(error, traceback);
	done = PyObject_CallMethod((PyObject *)w->live, "fail", "sO", name, error);
	if (!done)
		PyErr_Clear();
	w->raised = 1;
	Py_XDECREF(done);
	Py_XDECREF(type);
	Py_XDECREF(error);
	Py_XDECREF(traceback);
}

static PyObject *conformance_ask(struct conformance_world *w, PyObject **name, const char *text, PyObject **given,
	size_t count)
{
	PyObject *returned = NULL;
	size_t i;

	if (!*name)
		*name = PyUnicode_InternFromString(text);
	given[0] = (PyObject *)w->port;
	for (i = 1; i <= count; i++)
		if (!given[i])
			break;
	if (i > count)
		returned = PyObject_VectorcallMethod(*name, given, (count + 1) | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
	for (i = 1; i <= count; i++)
		Py_XDECREF(given[i]);
	return returned;
}

static PyObject *conformance_text(const char *text)
{
	if (text)
		return PyUnicode_DecodeUTF8(text, strlen(text), "replace");
	if (!PyErr_Occurred())
		PyErr_SetString(PyExc_RuntimeError, "a text is NULL");
	return NULL;
}

static long long conformance_signed(PyObject *number, long long least, long long most)
{
	long long value = PyLong_AsLongLong(number);

	if ((value < least || value > most) && !PyErr_Occurred())
		PyErr_SetString(PyExc_OverflowError, "it does not fit");
	return value;
}

static unsigned long long conformance_unsigned(PyObject *number, unsigned long long most)
{
	unsigned long long value = PyLong_AsUnsignedLongLong(number);

	if (value > most && !PyErr_Occurred())
		PyErr_SetString(PyExc_OverflowError, "it does not fit");
	return value;
}

static void conformance_bytes(PyObject *returned, void *to, size_t *length)
{
	char *bytes;
	Py_ssize_t count;

	if (PyBytes_AsStringAndSize(returned, &bytes, &count))
		return;
	memcpy(to, bytes, (size_t)count < *length ? (size_t)count : *length);
	*length = (size_t)count;
}
"""

_FUNCTIONS = """
struct conformance_driver {{
	const struct {name}_driver *table;
	void *self;
	struct conformance_world *world;
	PyObject *held;
}};

static PyObject *conformance_ended(struct conformance_driver *d, PyObject *result)
{{
	PyObject *error;

	if (!d->world->raised)
		return result;
	Py_XDECREF(result);
	error = PyObject_GetAttrString((PyObject *)d->world->live, "raised");
	if (error)
		PyErr_SetObject((PyObject *)Py_TYPE(error), error);
	Py_XDECREF(error);
	return NULL;
}}

static PyObject *conformance_narrow(struct conformance_driver *d, const char *name)
{{
	PyErr_Clear();
	return PyObject_CallMethod((PyObject *)d->world->live, "narrow", "s", name);
}}
"""

_MAKE = """
static void conformance_forget(PyObject *capsule)
{{
	struct conformance_driver *d = PyCapsule_GetPointer(capsule, NULL);

	Py_DECREF(d->held);
	PyMem_Free(d);
}}

/* The entry points of one driver as Python functions, in the order of the table; None for those that it lacks. */
PyObject *conformance_functions(PyObject *held, void *table, void *self, void *world)
{{
	struct conformance_driver *d = PyMem_Malloc(sizeof(*d));
	PyObject *capsule, *functions;

	if (!d)
		return PyErr_NoMemory();
	d->table = table;
	d->self = self;
	d->world = world;
	d->held = held;
	Py_INCREF(held);
	capsule = PyCapsule_New(d, NULL, conformance_forget);
	functions = PyTuple_New({count});
	if (!capsule || !functions)
		return NULL;
{fill}
	Py_DECREF(capsule);
	return functions;
}}
"""


_CREATE = "void *conformance_create(const struct {name}_driver *driver, const struct {name}_env *env, void *world)"


def declarations(found: Header, calls: Plans) -> str:
    """What cffi is told beside the header."""
    name = found.subsystem
    python = _by_cffi(found, calls)
    leading = f"const struct {name}_driver *driver, void *self"
    enter = [_prototype(f"conformance_enter_{entry}", leading, f) for entry, f in found.driver.items()]
    return "\n".join(
        [
            found.text,
            _plain(WORLD),
            'extern "Python" {',
            *(f"{head};" for head in python),
            "}",
            *(f"{head};" for head in enter),
            f"{_CREATE.format(name=name)};",
            f"extern struct {name}_env conformance_env;",
        ]
    )


def source(found: Header, calls: Plans, entries: Plans) -> str:
    """The module's own part of the source."""
    name = found.subsystem
    leading = f"const struct {name}_driver *driver, void *self"
    parts = [f'#include "{name}.h"', WORLD, _RUNTIME]
    parts += [f"static {head};" for head in _by_cffi(found, calls)]
    parts += [_outward(call, calls[call]) for call in found.env]
    for entry, f in found.driver.items():
        parts.append(f"static {_prototype(f'conformance_enter_{entry}', leading, f)}\n{_inward(f)}")
    create = Function("create", ("env", "world"), (), found.driver[next(iter(found.driver))].result)
    parts.append(f"static {_CREATE.format(name=name)}\n{_inward(create, 'void *', '')}")
    parts.append(_FUNCTIONS.format(name=name))
    direct = [entry for entry, plan in entries.items() if plan.is_simple]
    parts += [_method(entries[entry]) for entry in direct]
    parts.append("static PyMethodDef conformance_methods[] = {")
    parts += [
        f'\t{{"{entry}", (PyCFunction)(void (*)(void))conformance_direct_{entry}, METH_FASTCALL, NULL}},'
        for entry in direct
    ]
    parts.append("};")
    parts.append(_MAKE.format(count=len(entries), fill="\n".join(_fill(list(entries), direct))))
    parts.append(f"static struct {name}_env conformance_env = {{")
    parts += [f"\t.{call} = conformance_call_{call}," for call in found.env]
    parts.append("};")
    return "\n".join(parts)


def _by_cffi(found: Header, calls: Plans) -> list[str]:
    """Prototypes of the environment calls that are not direct."""
    return [
        _prototype(f"conformance_{call}", "void *world", f)
        for call, f in found.env.items()
        if not is_direct(calls[call])
    ]


def _fill(entries: list[str], direct: list[str]) -> Iterator[str]:
    """Statements that fill in the tuple of functions."""
    none = "(Py_INCREF(Py_None), Py_None)"
    for at, entry in enumerate(entries):
        made = none
        if entry in direct:
            made = f"d->table->{entry} ? PyCFunction_New(&conformance_methods[{direct.index(entry)}], capsule) : {none}"
        yield f"\tPyTuple_SET_ITEM(functions, {at}, {made});"


def _plain(text: str) -> str:
    """Without comments, for cffi."""
    return "\n".join(line.split("/*")[0] for line in text.splitlines())


def _prototype(name: str, leading: str, function: Function) -> str:
    arguments = [leading]
    for parameter, ctype in zip(function.parameters, function.arguments, strict=True):
        arguments.append(f"{ctype.cname} {parameter}")
    return f"{function.result.cname} {name}({', '.join(arguments)})"


def is_direct(plan: Plan) -> bool:
    """Whether an environment call needs nothing of cffi."""
    plain = all(value.kind in (Kind.NUMBER, Kind.FLAG, Kind.TEXT) for value in plan.arguments)
    of_bytes = plan.returned is None and [out.kind for out in plan.outs] == [Kind.BYTES]
    return plain and not plan.is_tuple and not plan.is_optional and (not plan.outs or of_bytes)


def _outward(call: str, plan: Plan) -> str:
    """An environment call: on to Python, and out of the entry point if that says so."""
    function = plan.function
    result = function.result.cname
    lines = [
        f"static {_prototype(f'conformance_call_{call}', 'void *world', function)}\n{{",
        "\tstruct conformance_world *w_ = world;",
        "\tstruct conformance_frame *mine_ = conformance_inside;",
    ]
    if result != "void":
        lines.append(f"\t{result} result_ = {refusal(plan)};")
    if is_direct(plan):
        lines += _direct(call, plan)
    else:
        keep = "" if result == "void" else "result_ = "
        lines.append(f"\t{keep}conformance_{call}({', '.join(['world', *function.parameters])});")
    lines += ["\tconformance_inside = mine_;", "\tif (w_->raised && w_->jumps)\n\t\tlongjmp(mine_->at, 1);"]
    if result != "void":
        lines.append("\treturn result_;")
    return "\n".join([*lines, "}"])


def _direct(call: str, plan: Plan) -> Iterator[str]:
    count = len(plan.arguments)
    yield "\tif (!w_->raised) {"
    yield f"\t\tstatic PyObject *name_;\n\t\tPyObject *slots_[{count + 2}] = {{ NULL }}, *returned_;"
    yield "\t\tPyGILState_STATE gil_ = PyGILState_Ensure();\n"
    for at, value in enumerate(plan.arguments):
        yield f"\t\tslots_[{at + 2}] = {_to_python(value.kind, value.ctype, value.name)};"
    yield f'\t\treturned_ = conformance_ask(w_, &name_, "{call}", slots_ + 1, {count});'
    yield "\t\tif (returned_) {"
    if plan.outs:
        out = plan.outs[0].name
        yield f"\t\t\tconformance_bytes(returned_, {out}, {out}_len);"
    elif plan.returned is not None:
        yield f"\t\t\tresult_ = {_from_python(plan.returned.kind, plan.returned.ctype, 'returned_')};"
    yield "\t\t\tPy_DECREF(returned_);\n\t\t}"
    yield f'\t\tif (PyErr_Occurred())\n\t\t\tconformance_failed(w_, "{call}");'
    yield "\t\tPyGILState_Release(gil_);\n\t}"
    if plan.outs:
        yield f"\tif (w_->raised && {plan.outs[0].name}_len)\n\t\t*{plan.outs[0].name}_len = 0;"
    if plan.returned is not None:
        yield f"\tif (w_->raised)\n\t\tresult_ = {refusal(plan)};"


def refusal(plan: Plan) -> int:
    """What an environment call returns once nothing counts any more."""
    assert plan.returned is not None
    return -5 if _is_signed(plan.returned.ctype) else 0


def _is_signed(ctype: Any) -> bool:
    return not (ctype.cname.startswith("u") or ctype.cname in ("size_t", "_Bool"))


def _to_python(kind: Kind, ctype: Any, value: str) -> str:
    if kind is Kind.TEXT:
        return f"conformance_text({value})"
    if kind is Kind.FLAG:
        return f"PyBool_FromLong({value})"
    return f"PyLong_From{'' if _is_signed(ctype) else 'Unsigned'}LongLong({value})"


def _from_python(kind: Kind, ctype: Any, value: str) -> str:
    if kind is Kind.FLAG:
        return f"PyObject_IsTrue({value}) == 1"
    bits = 8 * _SIZES[ctype.cname]
    if _is_signed(ctype):
        most = 2 ** (bits - 1) - 1
        return f"({ctype.cname})conformance_signed({value}, -{most}LL - 1, {most}LL)"
    return f"({ctype.cname})conformance_unsigned({value}, {2**bits - 1}ULL)"


_SIZES = {f"{sign}int{bits}_t": bits // 8 for sign in ("", "u") for bits in (8, 16, 32, 64)} | {"int": 4, "size_t": 8}


def _inward(function: Function, result: str = "", leading: str = "self") -> str:
    """The body of the way into an entry point."""
    passed = ", ".join([*leading.split(), *function.parameters])
    result = result or function.result.cname
    is_void = result == "void"
    declared, keep, back = ("", "", "") if is_void else (f"\t{result} result = 0;\n", "result = ", "\treturn result;\n")
    return (
        f"{{\n\tstruct conformance_frame mine, *outer = conformance_inside;\n{declared}"
        f"\tconformance_inside = &mine;\n\tif (!_setjmp(mine.at))\n\t\t{keep}driver->{function.name}({passed});\n"
        f"\tconformance_inside = outer;\n{back}}}"
    )


def _method(plan: Plan) -> str:
    """An entry point of numbers as a Python function."""
    name, count = plan.name, len(plan.arguments)
    lines = [
        f"static PyObject *conformance_direct_{name}(PyObject *capsule, PyObject *const *given, Py_ssize_t count)",
        "{\n\tstruct conformance_driver *d = PyCapsule_GetPointer(capsule, NULL);",
    ]
    lines += [f"\t{value.ctype.cname} a{at} = 0;" for at, value in enumerate(plan.arguments)]
    if plan.returned is not None:
        lines.append(f"\t{plan.returned.ctype.cname} result;")
    lines.append(f'\tif (count != {count})\n\t\treturn conformance_narrow(d, "{name}");')
    for at, value in enumerate(plan.arguments):
        lines.append(f"\ta{at} = {_from_python(value.kind, value.ctype, f'given[{at}]')};")
    if count:
        lines.append(f'\tif (PyErr_Occurred())\n\t\treturn conformance_narrow(d, "{name}");')
    passed = ", ".join(["d->table", "d->self", *(f"a{at}" for at in range(count))])
    if plan.returned is None:
        lines.append(f"\tconformance_enter_{name}({passed});")
        lines.append("\tPy_INCREF(Py_None);\n\treturn conformance_ended(d, Py_None);")
    else:
        lines.append(f"\tresult = conformance_enter_{name}({passed});")
        lines.append(f"\treturn conformance_ended(d, {_to_python(plan.returned.kind, plan.returned.ctype, 'result')});")
    return "\n".join([*lines, "}"])
