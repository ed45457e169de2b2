/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What holds for the C ABI of all five subsystems. S.h is that of subsystem S, S_constants.h has
 * the numbers that it speaks of. They are plain C99, and need nothing but the compiler.
 *
 * The library exports one table of entry points, `S_driver`; the suite calls them. It is given one
 * table of environment calls, `struct S_env`; these it calls for whatever a kernel would do for it.
 * The suite is told nothing else: what passes neither way does not exist.
 *
 * Context pointers. `create(env, world)` returns the driver's own pointer, which every entry point
 * gets first, as `self`. `world` goes first into every environment call. `env` and `world` are the
 * suite's, and stay valid until `destroy`.
 *
 * Lengths. `NAME_len` belongs to the pointer `NAME` and counts its elements: bytes of a `u8 *`,
 * records of a `struct x *`. With length 0 the pointer may be NULL. Where NAME is for a result, the
 * length is a pointer: whoever calls stores the room in it, and finds the length of the result
 * there; if that is more than the room, no more than the room was stored.
 *
 * Several results. Where a comment speaks of a pair or a tuple, its first part is what the function
 * returns, unless it returns void; the others go where the pointers behind the arguments point.
 * These are never NULL. A function with one result that may be missing, written (), returns whether
 * it is there.
 *
 * Ownership. What a pointer points to belongs to whoever passes it, and may be used until the call
 * returns; copy what you keep. Handles, addresses of the simulated kernel and physical addresses
 * are plain numbers, u64; NULL is 0. They must never be dereferenced.
 *
 * Errors. An errno is negative. The first breach of a clause ends the driver in the middle of the
 * environment call that committed it: C is left there by a jump, nothing more of it is executed, and
 * `destroy` is not called. Where the suite has no compiler and calls by cffi's callbacks, C cannot
 * be left: then every later environment call does nothing and returns -EIO, or 0 where its type is
 * unsigned, with all lengths 0; nothing that the driver does then counts.
 *
 * Threads. One entry point may be called while another one is at an environment call: in the middle
 * of it, as an interrupt is, or on a second thread that goes on there. They switch at environment
 * calls and nowhere else. They share one thread of the operating system and take turns on its stack;
 * so no thread may use a variable on the other one's stack, thread-local data is the same for both,
 * and no lock of the C library may be kept across an environment call: locks are environment calls.
 * With lib:PATH.so?threads each has a thread, a stack and thread-local data of its own, and they take
 * turns in the same places.
 *
 * Numbers: `int` has 32 bits. Text is UTF-8 that ends with a NUL.
 */
#ifndef CONFORMANCE_TYPES_H
#define CONFORMANCE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;

#endif
