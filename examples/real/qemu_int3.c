/*
 * QEMU-1: a processor of QEMU's TCG runs a breakpoint of the kernel's text patching that is gone.
 *
 * For a guest of several processors under TCG. Turning the scheduler's statistics on and off patches jumps in the
 * scheduler's text: INT3 first, then the rest, then the first byte, and after each all processors are told. Threads on
 * all of them sleep and wake, and pass there all the time. A right processor meets INT3 only while the kernel knows of
 * it; where one runs it later, the kernel panics with "Oops: int3".
 *
 *     cc -O1 -static -pthread -o qemu_int3 qemu_int3.c && ./qemu_int3
 *
 * Exit code: 0 the kernel still runs after 20 seconds, 77 it has no such statistics; otherwise the machine has gone.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define SECONDS 20

static void *pass(void *cpu)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET((long)cpu, &one);
	sched_setaffinity(0, sizeof(one), &one);
	for (;;)
		usleep(100);
	return NULL;
}

int main(void)
{
	int fd = open("/proc/sys/kernel/sched_schedstats", O_WRONLY | O_CLOEXEC);
	long cpus = sysconf(_SC_NPROCESSORS_ONLN), cpu, patched = 0;
	struct sched_param first = { .sched_priority = 1 };
	time_t end = time(NULL) + SECONDS;
	pthread_t thread;

	if (fd < 0) {
		perror("/proc/sys/kernel/sched_schedstats");
		return 77;
	}
	for (cpu = 0; cpu < 2 * cpus; cpu++)
		if (pthread_create(&thread, NULL, pass, (void *)(cpu % cpus)))
			return 77;
	sched_setscheduler(0, SCHED_FIFO, &first);
	for (; time(NULL) < end; patched++)
		if (pwrite(fd, patched & 1 ? "0" : "1", 1, 0) != 1) {
			perror("write");
			return 77;
		}
	printf("the kernel has patched itself %ld times on %ld processors, and still runs\n", patched, cpus);
	return 0;
}
