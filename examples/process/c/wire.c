#include "wire.h"

#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXACT ((INT64_C(1) << 53) - 1) /* larger numbers are strings */
#define THREADS 2
#define INSTANCES 64

/* One line of the suite's, taken apart. */
struct message {
	char *line;
	struct wire_value type, name, value, args[WIRE_ARGS];
	size_t nargs;
	int64_t op, instance;
	size_t thread;
};

/* A thread, and the operation that it is in. */
struct thread {
	size_t number;
	pthread_t id;
	pthread_cond_t wake;
	struct message mail; /* what another thread read for this one */
	bool has_mail;
	struct frame *frame;
};

/* An operation that has begun; those below it on the same thread wait for it. */
struct frame {
	int64_t op;
	jmp_buf leave;
	struct frame *below;
};

static const struct wire_driver *driver;
static struct thread threads[THREADS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static size_t reader; /* the thread that runs */
static __thread struct thread *me;
static struct {
	int64_t number;
	void *instance;
} instances[INSTANCES];

static void fail(const char *what)
{
	fprintf(stderr, "wire: %s\n", what);
	exit(3);
}

/* -- Reading */

static char *skip(char *at)
{
	while (isspace((unsigned char)*at))
		at++;
	return at;
}

/* One value of the line, which stays in it; arrays and objects are passed over. */
static char *read_value(char *at, struct wire_value *value)
{
	memset(value, 0, sizeof(*value));
	at = skip(at);
	if (*at == '"') {
		value->text = ++at;
		while (*at && *at != '"')
			at += *at == '\\' && at[1] ? 2 : 1;
		if (!*at)
			fail("a string without an end");
		value->length = (size_t)(at - value->text);
		*at++ = '\0';
		if (!strncmp(value->text, "0x", 2))
			value->number = (int64_t)strtoull(value->text, NULL, 16);
		else if (!strncmp(value->text, "-0x", 3))
			value->number = (int64_t)-strtoull(value->text + 1, NULL, 16);
		return at;
	}
	if (*at == '[' || *at == '{') {
		int depth = 0;
		bool quoted = false;

		for (; *at; at++) {
			if (quoted && *at == '\\' && at[1])
				at++;
			else if (*at == '"')
				quoted = !quoted;
			else if (!quoted && (*at == '[' || *at == '{'))
				depth++;
			else if (!quoted && (*at == ']' || *at == '}') && --depth == 0)
				return at + 1;
		}
		fail("brackets without an end");
	}
	if (!strncmp(at, "true", 4)) {
		value->number = 1;
		return at + 4;
	}
	if (!strncmp(at, "false", 5))
		return at + 5;
	if (!strncmp(at, "null", 4))
		return at + 4;
	errno = 0;
	value->number = strtoll(at, &at, 10);
	return at;
}

static char *read_args(char *at, struct message *message)
{
	at = skip(at);
	if (*at++ != '[')
		fail("args is no array");
	for (at = skip(at); *at && *at != ']'; at = skip(at)) {
		if (message->nargs == WIRE_ARGS)
			fail("too many arguments");
		at = skip(read_value(at, &message->args[message->nargs++]));
		if (*at == ',')
			at++;
	}
	return *at ? at + 1 : at;
}

/* The next line, which is whole; false at the end. */
static bool read_message(struct message *message)
{
	size_t size = 0;
	struct wire_value key, number;
	char *at;

	memset(message, 0, sizeof(*message));
	if (getline(&message->line, &size, stdin) < 0) {
		free(message->line);
		return false;
	}
	at = skip(message->line);
	if (*at++ != '{')
		fail("a line that is no object");
	for (at = skip(at); *at && *at != '}'; at = skip(at)) {
		at = skip(read_value(at, &key));
		if (!key.text || *at++ != ':')
			fail("an object without keys");
		if (!strcmp(key.text, "args")) {
			at = read_args(at, message);
		} else if (!strcmp(key.text, "type")) {
			at = read_value(at, &message->type);
		} else if (!strcmp(key.text, "name")) {
			at = read_value(at, &message->name);
		} else if (!strcmp(key.text, "value")) {
			at = read_value(at, &message->value);
		} else {
			at = read_value(at, &number);
			if (!strcmp(key.text, "op"))
				message->op = number.number;
			else if (!strcmp(key.text, "instance"))
				message->instance = number.number;
			else if (!strcmp(key.text, "thread"))
				message->thread = (size_t)number.number;
		}
		at = skip(at);
		if (*at == ',')
			at++;
	}
	if (message->thread >= THREADS)
		fail("more threads than two");
	return true;
}

/* The next message for this thread. Whoever reads one for the other thread hands it over, and waits. */
static struct message next_message(void)
{
	struct message message;

	pthread_mutex_lock(&lock);
	for (;;) {
		if (me->has_mail) {
			me->has_mail = false;
			message = me->mail;
			break;
		}
		if (reader != me->number) {
			pthread_cond_wait(&me->wake, &lock);
			continue;
		}
		if (!read_message(&message))
			exit(0);
		if (message.thread == me->number)
			break;
		threads[message.thread].mail = message;
		threads[message.thread].has_mail = true;
		reader = message.thread;
		pthread_cond_signal(&threads[message.thread].wake);
	}
	pthread_mutex_unlock(&lock);
	return message;
}

/* -- Saying */

static void say_number(int64_t number)
{
	if (number > EXACT)
		printf("\"0x%llx\"", (unsigned long long)number);
	else if (number < -EXACT)
		printf("\"-0x%llx\"", -(unsigned long long)number);
	else
		printf("%lld", (long long)number);
}

static void say_end(const char *type, int64_t op)
{
	printf("{\"type\":\"%s\",\"op\":%lld}\n", type, (long long)op);
	fflush(stdout);
}

static void say_return(int64_t op, int64_t value)
{
	printf("{\"type\":\"return\",\"op\":%lld,\"value\":", (long long)op);
	say_number(value);
	printf("}\n");
	fflush(stdout);
}

static void say_hello(void)
{
	const struct wire_entry *entry;
	size_t i;

	printf("{\"type\":\"hello\",\"protocol\":1,\"name\":\"%s\",\"subsystem\":\"%s\",\"profile\":\"%s\",\"capabilities\":[",
	       driver->name, driver->subsystem, driver->profile);
	for (i = 0; driver->capabilities[i]; i++)
		printf("%s\"%s\"", i ? "," : "", driver->capabilities[i]);
	printf("],\"entries\":[");
	for (entry = driver->entries; entry->name; entry++)
		printf("%s\"%s\"", entry == driver->entries ? "" : ",", entry->name);
	printf("]}\n");
	fflush(stdout);
}

static void say_call(const char *call, const char *form, va_list args)
{
	printf("{\"type\":\"call\",\"op\":%lld,\"name\":\"%s\",\"args\":[", (long long)me->frame->op, call);
	for (size_t i = 0; form[i]; i++) {
		if (i)
			putchar(',');
		switch (form[i]) {
		case 'i':
			say_number(va_arg(args, int64_t));
			break;
		case 'u':
			printf("\"0x%llx\"", (unsigned long long)va_arg(args, uint64_t));
			break;
		case 'b':
			printf("%s", va_arg(args, int) ? "true" : "false");
			break;
		case 's':
			printf("\"%s\"", va_arg(args, const char *));
			break;
		default:
			printf("%s", va_arg(args, const char *));
		}
	}
	printf("]}\n");
	fflush(stdout);
}

/* -- Operations */

static void **slot(int64_t number)
{
	for (size_t i = 0; i < INSTANCES; i++)
		if (instances[i].number == number)
			return &instances[i].instance;
	fail(number ? "no such instance" : "too many instances");
	return NULL;
}

static int64_t create(int64_t number)
{
	void **instance = slot(0);

	*instance = driver->create();
	for (size_t i = 0; i < INSTANCES; i++)
		if (&instances[i].instance == instance)
			instances[i].number = number;
	return 0;
}

static int64_t destroy(int64_t number)
{
	void **instance = slot(number);

	driver->destroy(*instance);
	for (size_t i = 0; i < INSTANCES; i++)
		if (&instances[i].instance == instance)
			instances[i].number = 0;
	return 0;
}

static int64_t enter(const struct message *message)
{
	const struct wire_entry *entry;

	for (entry = driver->entries; entry->name; entry++)
		if (!strcmp(entry->name, message->name.text))
			return entry->function(*slot(message->instance), message->args);
	fail("no such entry point");
	return 0;
}

/* Begin an operation, and end it. */
static void operate(struct message *message)
{
	struct frame frame = {.op = message->op, .below = me->frame};
	int64_t value = 0;

	me->frame = &frame;
	if (setjmp(frame.leave)) {
		me->frame = frame.below;
		free(message->line);
		say_end("stopped", frame.op);
		return;
	}
	if (!strcmp(message->type.text, "create"))
		value = create(message->instance);
	else if (!strcmp(message->type.text, "destroy"))
		value = destroy(message->instance);
	else if (!strcmp(message->type.text, "enter"))
		value = enter(message);
	else
		fail("a message that begins nothing");
	me->frame = frame.below;
	free(message->line);
	say_return(frame.op, value);
}

/* The answer to a call; what is entered meanwhile on this thread is done first. */
static struct message answer(void)
{
	for (;;) {
		struct message message = next_message();

		if (message.op != me->frame->op) {
			operate(&message);
		} else if (!strcmp(message.type.text, "stop")) {
			free(message.line);
			longjmp(me->frame->leave, 1);
		} else {
			return message;
		}
	}
}

int64_t env(const char *call, const char *form, ...)
{
	va_list args;
	struct message message;

	va_start(args, form);
	say_call(call, form, args);
	va_end(args);
	message = answer();
	free(message.line);
	return message.value.number;
}

size_t env_bytes(void *to, size_t size, const char *call, const char *form, ...)
{
	unsigned char *byte = to;
	size_t n = 0;
	va_list args;
	struct message message;

	va_start(args, form);
	say_call(call, form, args);
	va_end(args);
	message = answer();
	for (; n < size && 2 * n + 1 < message.value.length; n++) {
		unsigned int two;

		if (sscanf(message.value.text + 2 * n, "%2x", &two) != 1)
			fail("bytes that are not hexadecimal");
		byte[n] = (unsigned char)two;
	}
	free(message.line);
	return n;
}

static void *serve(void *thread)
{
	me = thread;
	for (;;) {
		struct message message = next_message();

		if (!strcmp(message.type.text, "hello")) {
			free(message.line);
			say_hello();
		} else {
			operate(&message);
		}
	}
	return NULL;
}

int wire_serve(const struct wire_driver *served)
{
	driver = served;
	for (size_t i = 0; i < THREADS; i++) {
		threads[i].number = i;
		pthread_cond_init(&threads[i].wake, NULL);
	}
	if (pthread_create(&threads[1].id, NULL, serve, &threads[1]))
		return 3;
	serve(&threads[0]);
	return 0;
}
