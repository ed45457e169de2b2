/*
 * The driver's end of the conversation with `conformance --candidate 'cmd:...'` (docs/wire.md), on POSIX threads and
 * without any library.
 *
 * The driver gives entry points and a table of them; wire_serve() reads messages until there are no more. In the middle
 * of an entry point env() asks for an environment call and waits for its result. The second of two operations at once
 * runs on a thread of its own; only one of the two runs at a time, and it is the one that reads.
 */
#ifndef WIRE_H
#define WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_ARGS 12 /* arguments of an entry point at most */

/* A value that came in: a number (whole, null counts as 0), a truth value, or a string, which bytes are as well. */
struct wire_value {
	int64_t number;
	const char *text; /* NULL unless it is a string; without quotes, and not unescaped */
	size_t length;
};

/* What the driver is. */
struct wire_driver {
	const char *name;
	const char *subsystem;
	const char *profile;
	const char *const *capabilities; /* up to NULL */
	void *(*create)(void);
	void (*destroy)(void *instance);
	const struct wire_entry {
		const char *name; /* NULL ends the table */
		int64_t (*function)(void *instance, const struct wire_value *args);
	} *entries;
};

/* Serve until nobody asks any more; returns the exit code. */
int wire_serve(const struct wire_driver *driver);

/*
 * Make an environment call. `form` says what follows, a letter for each argument:
 *   i  int64_t, also for tokens and addresses
 *   u  uint64_t, where 2^63 and more may come
 *   b  int, a truth value
 *   s  const char *, plain ASCII
 *   j  const char *, JSON as it is
 * The result's number is returned. Does not return when the operation is to be left.
 */
int64_t env(const char *call, const char *form, ...);

/* As env(), for a call that gives bytes: at most `size` go to `to`, and how many is returned. */
size_t env_bytes(void *to, size_t size, const char *call, const char *form, ...);

#endif
