/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Static data of the library that this is linked into, one copy for each driver that lives.
 *
 * A module's static data is as its source says when it is loaded. A library is loaded once and
 * makes many drivers, so each gets a copy of what the writable segment held at first, which is put
 * in place while it is entered. Source code need not know.
 */
#define _GNU_SOURCE
#include <link.h>
#include <stdlib.h>

#include "kernel.h"

struct shim_statics {
	u64 *copy;
};

/* All that must outlive an exchange of the segment in which this stands. */
struct shim_segment {
	u64 *start;
	size_t words;
	u64 *pristine;
	struct shim_statics *inside;
};

static struct shim_segment segment;

/* Word by word, and not by memcpy: the segment holds red zones of the address sanitizer too. */
__attribute__((no_sanitize("address", "undefined"), noinline)) static void copy(volatile u64 *to, const volatile u64 *from,
										size_t words)
{
	for (size_t i = 0; i < words; i++)
		to[i] = from[i];
}

/* The writable segment of the object in which `segment` stands, without what is read-only by now. */
static int find(struct dl_phdr_info *info, size_t size, void *unused)
{
	uintptr_t here = (uintptr_t)&segment, start = 0, end = 0, relro = 0;

	(void)size;
	(void)unused;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *header = &info->dlpi_phdr[i];
		uintptr_t first = info->dlpi_addr + header->p_vaddr;

		if (header->p_type == PT_LOAD && first <= here && here < first + header->p_memsz) {
			start = first;
			end = first + header->p_memsz;
		}
		if (header->p_type == PT_GNU_RELRO)
			relro = first + header->p_memsz;
	}
	if (!start)
		return 0;
	if (relro > start && relro <= end)
		start = ALIGN(relro, (uintptr_t)0x1000) < end ? ALIGN(relro, (uintptr_t)0x1000) : end;
	segment.start = (u64 *)ALIGN(start, (uintptr_t)8);
	segment.words = (end - (uintptr_t)segment.start) / 8;
	return 1;
}

static u64 *words(void)
{
	u64 *memory = malloc(segment.words * 8 + 8);

	if (!memory)
		abort();
	return memory;
}

struct shim_statics *shim_statics_new(void)
{
	struct shim_statics *statics = malloc(sizeof(*statics));

	if (!statics)
		abort();
	if (!segment.pristine) {
		dl_iterate_phdr(find, NULL);
		segment.pristine = words();
		copy(segment.pristine, segment.start, segment.words);
	}
	statics->copy = words();
	copy(statics->copy, segment.pristine, segment.words);
	return statics;
}

void shim_statics_enter(struct shim_statics *statics)
{
	struct shim_segment kept = segment;

	if (kept.inside == statics)
		return;
	if (kept.inside)
		copy(kept.inside->copy, kept.start, kept.words);
	copy(kept.start, statics->copy, kept.words);
	kept.inside = statics;
	segment = kept;
}

void shim_statics_free(struct shim_statics *statics)
{
	if (segment.inside == statics)
		segment.inside = NULL;
	free(statics->copy);
	free(statics);
}
