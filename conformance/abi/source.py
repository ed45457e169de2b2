"""The C source of the module that joins Python and a library: written from the header and the plans.

Calls of numbers and texts, which are nearly all, go straight from C to Python's own interface and back. The few that
pass records or arrays go by cffi. Either way an environment call that failed leaves C by a jump to the way into the
entry point that it belongs to. Names of ours that end with an underscore stand beside those of the header's arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from conformance.abi.header import Function, Header
from conformance.abi.plan import Kind, Plan, Value, fields

Plans = Mapping[str, Plan]

WORLD = """
struct conformance_world {
	void *live;
	void *port;
	int raised;	/* an environment call failed: no other one does anything */
	int jumps;	/* C may be left */
};
"""
"""What `world` points to, with two Python objects; cffi knows it too."""

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

/* A method as it was found last: that of the port's class, as long as the class stays what it is. */
struct conformance_method {
	PyObject *name, *function;
	PyTypeObject *type;
	unsigned int version;
};

static PyObject *conformance_found(struct conformance_method *m, PyTypeObject *type)
{
	PyObject *function = PyObject_GetAttr((PyObject *)type, m->name);

	Py_CLEAR(m->function);
	Py_XDECREF(m->type);
	m->type = NULL;
	PyErr_Clear();
	if (function && PyFunction_Check(function) && type->tp_version_tag) {
		Py_INCREF(type);
		m->type = type;
		m->version = type->tp_version_tag;
		m->function = function;
	} else {
		Py_XDECREF(function);
	}
	return m->function;
}

static PyObject *conformance_ask(struct conformance_world *w, struct conformance_method *m, const char *text,
	PyObject **given, size_t count)
{
	PyObject *returned = NULL, *function;
	PyTypeObject *type = Py_TYPE((PyObject *)w->port);
	size_t all = (count + 1) | PY_VECTORCALL_ARGUMENTS_OFFSET, i;

	given[0] = (PyObject *)w->port;
	for (i = 1; i <= count; i++)
		if (!given[i])
			goto done;
	if (!m->name)
		m->name = PyUnicode_InternFromString(text);
	function = m->type == type && m->version == type->tp_version_tag ? m->function : conformance_found(m, type);
	if (function) {
		Py_INCREF(function);
		returned = PyObject_Vectorcall(function, given, all, NULL);
		Py_DECREF(function);
	} else {
		returned = PyObject_VectorcallMethod(m->name, given, all, NULL);
	}
done:
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
/* One driver. What its world points to belongs to the Python object that has the functions. */
struct conformance_driver {{
	const struct {name}_driver *table;
	void *self;
	struct conformance_world world;
}};

static PyObject *conformance_ended(struct conformance_driver *d, PyObject *result)
{{
	PyObject *error;

	if (!d->world.raised)
		return result;
	Py_XDECREF(result);
	error = PyObject_GetAttrString((PyObject *)d->world.live, "raised");
	if (error)
		PyErr_SetObject((PyObject *)Py_TYPE(error), error);
	Py_XDECREF(error);
	return NULL;
}}

static PyObject *conformance_narrow(struct conformance_driver *d, const char *name)
{{
	PyErr_Clear();
	return PyObject_CallMethod((PyObject *)d->world.live, "narrow", "s", name);
}}
"""

_MAKE = """
static int conformance_is_ending(void)
{{
#if PY_VERSION_HEX >= 0x030D0000
	return Py_IsFinalizing();
#else
	return _Py_IsFinalizing();
#endif
}}

/* The last function is gone. A driver that was left in the middle of something is let be. */
static void conformance_forget(PyObject *capsule)
{{
	struct conformance_driver *d = PyCapsule_GetPointer(capsule, NULL);

	if (d->self && !(d->world.raised && d->world.jumps) && !conformance_is_ending()) {{
		d->world.raised = 1;
		d->world.jumps = 0;
		d->table->destroy(d->self);
	}}
	PyMem_Free(d);
}}

static void conformance_give(PyObject *dict, PyObject **name, PyMethodDef *method, PyObject *capsule)
{{
	PyObject *function = PyCFunction_New(method, capsule);

	if (!*name)
		*name = PyUnicode_InternFromString(method->ml_name);
	if (function)
		PyDict_SetItem(dict, *name, function);
	Py_XDECREF(function);
}}

/*
 * (live, port, address of the table, whether it may be left, dict) -> address of a new driver. The dict is given its
 * entry points of numbers, by name, but for those that it lacks.
 */
static PyObject *conformance_new(PyObject *unused, PyObject *const *given, Py_ssize_t count)
{{
	static PyObject *names[{count}];
	struct conformance_driver *d = PyMem_Calloc(1, sizeof(*d));
	PyObject *capsule, *dict = given[4];

	(void)unused;
	if (!d)
		return PyErr_NoMemory();
	capsule = PyCapsule_New(d, NULL, conformance_forget);
	if (!capsule || count != 5)
		return NULL;
	d->world.live = given[0];
	d->world.port = given[1];
	d->table = PyLong_AsVoidPtr(given[2]);
	d->world.jumps = PyObject_IsTrue(given[3]);
	d->self = conformance_create(d->table, &conformance_env, &d->world);
	PyDict_SetItemString(dict, "kept", capsule);
{fill}
	Py_DECREF(capsule);
	return PyErr_Occurred() ? NULL : PyLong_FromVoidPtr(d->self);
}}

/* Address of a world -> its live. */
static PyObject *conformance_live(PyObject *unused, PyObject *address)
{{
	struct conformance_world *w = PyLong_AsVoidPtr(address);

	(void)unused;
	Py_INCREF((PyObject *)w->live);
	return w->live;
}}

static PyMethodDef conformance_maker = {{
	"new", (PyCFunction)(void (*)(void))conformance_new, METH_FASTCALL, NULL
}};

static PyMethodDef conformance_finder = {{ "live", conformance_live, METH_O, NULL }};

/* Both functions, as a pair. */
PyObject *conformance_start(void)
{{
	return Py_BuildValue(
		"(NN)", PyCFunction_New(&conformance_maker, NULL), PyCFunction_New(&conformance_finder, NULL));
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
            f"extern struct {name}_env conformance_env;",
        ]
    )


def source(found: Header, calls: Plans, entries: Plans) -> str:
    """The module's own part of the source."""
    name = found.subsystem
    leading = f"const struct {name}_driver *driver, void *self"
    parts = [f'#include "{name}.h"', WORLD, _RUNTIME]
    parts += [f"static {head};" for head in _by_cffi(found, calls)]
    parts += _makers(plan for plan in calls.values() if is_direct(plan))
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
    parts.append(f"static struct {name}_env conformance_env = {{")
    parts += [f"\t.{call} = conformance_call_{call}," for call in found.env]
    parts.append("};")
    parts.append(_MAKE.format(count=len(entries), fill="\n".join(_fill(direct))))
    return "\n".join(parts)


def _by_cffi(found: Header, calls: Plans) -> list[str]:
    """Prototypes of the environment calls that are not direct."""
    return [
        _prototype(f"conformance_{call}", "void *world", f)
        for call, f in found.env.items()
        if not is_direct(calls[call])
    ]


def _fill(direct: list[str]) -> Iterator[str]:
    """Statements that fill in the dict of functions."""
    for at, entry in enumerate(direct):
        yield f"\tif (d->table->{entry})"
        yield f"\t\tconformance_give(dict, &names[{at}], &conformance_methods[{at}], capsule);"


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
    of_bytes = plan.returned is None and [out.kind for out in plan.outs] == [Kind.BYTES]
    records = [value.ctype for value in plan.arguments if value.kind in (Kind.MANY, Kind.ONE)]
    nested = any(kind is Kind.MANY for ctype in records if ctype.kind == "struct" for _, kind in fields(ctype))
    return not plan.is_tuple and not plan.is_optional and (not plan.outs or of_bytes) and not nested


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
    yield f"\t\tstatic struct conformance_method method_;\n\t\tPyObject *slots_[{count + 2}] = {{ NULL }}, *returned_;"
    # Whoever came by one of our own functions still holds the interpreter's lock; to look is cheaper than to take it.
    yield "\t\tint holds_ = PyGILState_Check();"
    yield "\t\tPyGILState_STATE gil_ = holds_ ? PyGILState_LOCKED : PyGILState_Ensure();\n"
    for at, value in enumerate(plan.arguments):
        yield f"\t\tslots_[{at + 2}] = {_argument(value)};"
    yield f'\t\treturned_ = conformance_ask(w_, &method_, "{call}", slots_ + 1, {count});'
    yield "\t\tif (returned_) {"
    if plan.outs:
        out = plan.outs[0].name
        yield f"\t\t\tconformance_bytes(returned_, {out}, {out}_len);"
    elif plan.returned is not None:
        yield f"\t\t\tresult_ = {_from_python(plan.returned.kind, plan.returned.ctype, 'returned_')};"
    yield "\t\t\tPy_DECREF(returned_);\n\t\t}"
    yield f'\t\tif (PyErr_Occurred())\n\t\t\tconformance_failed(w_, "{call}");'
    yield "\t\tif (!holds_)\n\t\t\tPyGILState_Release(gil_);\n\t}"
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


def _argument(value: Value) -> str:
    """An expression that makes an argument a Python object."""
    name = value.name
    match value.kind:
        case Kind.BYTES:
            return f"PyBytes_FromStringAndSize((const char *){name}, (Py_ssize_t){name}_len)"
        case Kind.MANY:
            return f"{_array_name(value.ctype)}({name}, {name}_len)"
        case Kind.ONE:
            return f"{_record_name(value.ctype)}({name})"
        case _:
            return _to_python(value.kind, value.ctype, name)


def _record_name(ctype: Any) -> str:
    return f"conformance_record_{ctype.cname.replace(' ', '_')}"


def _array_name(ctype: Any) -> str:
    return f"conformance_array_{ctype.cname.replace(' ', '_')}"


def _makers(plans: Iterable[Plan]) -> Iterator[str]:
    """Functions that make a tuple of a record, and of an array, for each type that is passed so."""
    values = [value for plan in plans for value in plan.arguments if value.kind in (Kind.MANY, Kind.ONE)]
    records = {value.ctype.cname: value.ctype for value in values if value.ctype.kind == "struct"}
    for ctype in records.values():
        parts = list(fields(ctype))
        yield f"static PyObject *{_record_name(ctype)}(const {ctype.cname} *record)\n{{"
        yield f"\tPyObject *tuple = PyTuple_New({len(parts)}), *part;\n\n\tif (!tuple)\n\t\treturn NULL;"
        kinds = dict(ctype.fields)
        for at, (name, kind) in enumerate(parts):
            made = _to_python(kind, kinds[name].type, f"record->{name}")
            if kind is Kind.BYTES:
                made = f"PyBytes_FromStringAndSize((const char *)record->{name}, (Py_ssize_t)record->{name}_len)"
            yield f"\tpart = {made};\n\tif (!part)\n\t\tgoto failed;\n\tPyTuple_SET_ITEM(tuple, {at}, part);"
        yield "\treturn tuple;\nfailed:\n\tPy_DECREF(tuple);\n\treturn NULL;\n}"
    for ctype in {value.ctype.cname: value.ctype for value in values if value.kind is Kind.MANY}.values():
        is_record = ctype.kind == "struct"
        made = f"{_record_name(ctype)}(array + at)" if is_record else _to_python(Kind.NUMBER, ctype, "array[at]")
        yield f"static PyObject *{_array_name(ctype)}(const {ctype.cname} *array, size_t length)\n{{"
        yield "\tPyObject *tuple = PyTuple_New((Py_ssize_t)length), *part;\n\tsize_t at;\n"
        yield f"\tfor (at = 0; tuple && at < length; at++) {{\n\t\tpart = {made};"
        yield "\t\tif (part)\n\t\t\tPyTuple_SET_ITEM(tuple, (Py_ssize_t)at, part);\n\t\telse\n\t\t\tPy_CLEAR(tuple);"
        yield "\t}\n\treturn tuple;\n}"


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
