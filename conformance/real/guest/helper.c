/* The suite's hand inside a guest: executes one system call, or one access to memory, for each line it is sent.
 *
 * All policy stays outside. A request is one line of words, the answer one line: a number, then buffers in hex.
 * A number may be said as @K or @K+N: what the K-th request before this one gave, and N more, so that a request can use
 * what one before it made before anybody outside knows.
 *
 *   s NR ARG...       a system call; ARG is a number, #HEX a buffer that comes back, or =TEXT a string
 *   r ADDR LEN        memory            w ADDR HEX        store bytes
 *   l ADDR            read 32 bits      p ADDR VALUE      store 32 bits, each as one access
 *   u ADDR OLD MS     wait until 32 bits are not OLD any more: 1, or 0 where it takes longer than that
 *   t FD CPU          begin KVM_RUN on its own thread, on that processor; the answer is the thread's number
 *   d N               1 if that KVM_RUN has ended, else 0
 *   x N               signal the thread, so that KVM_RUN ends
 *   j N               wait for the thread and give the result of KVM_RUN
 *   c PATH            content of a file, 4 KiB at most
 *   e PATH HEX        write to a file
 *   n PATH            number of entries of a folder
 *   q PATH MS         run a program: its exit code, or 128 and the signal that ended it, and what it printed, 4 KiB
 *                     at most; one that takes longer is killed
 *
 * A negative number is an errno of the call; -10000 says that the request is not understood.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LINE (1 << 18)
#define THREADS 64
#define RESULTS 256
#define KVM_RUN 0xAE80
#define NOT_UNDERSTOOD -10000L

struct runner {
	pthread_t thread;
	int fd, used;
	volatile int done;
	long result;
};

static struct runner runners[THREADS];
static char line[LINE], answer[LINE], *out;
static unsigned char buffers[6][LINE / 8];
static long results[RESULTS];
static unsigned long requests;

static void nothing(int signal) { (void)signal; }

static void *run(void *data)
{
	struct runner *r = data;

	r->result = ioctl(r->fd, KVM_RUN, 0);
	if (r->result < 0)
		r->result = -errno;
	__sync_synchronize();
	r->done = 1;
	return NULL;
}

static int digit(int c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static size_t unhex(const char *text, unsigned char *to, size_t most)
{
	size_t n = 0;

	for (; n < most && digit(text[0]) >= 0 && digit(text[1]) >= 0; text += 2)
		to[n++] = digit(text[0]) << 4 | digit(text[1]);
	return n;
}

static void hex(const unsigned char *from, size_t n)
{
	static const char digits[] = "0123456789abcdef";

	*out++ = ' ';
	for (; n--; from++) {
		*out++ = digits[*from >> 4];
		*out++ = digits[*from & 15];
	}
}

static void number(long value)
{
	results[requests++ % RESULTS] = value;
	out += sprintf(out, "%ld", value);
}

static char *word(char **rest)
{
	char *at = *rest, *end;

	if (!at || !*at)
		return NULL;
	end = strchr(at, ' ');
	if (end)
		*end++ = 0;
	*rest = end;
	return at;
}

static unsigned long said(const char *text)
{
	char *end;
	unsigned long ago;

	if (*text != '@')
		return strtoull(text, NULL, 0);
	ago = strtoul(text + 1, &end, 10);
	return results[(requests - ago) % RESULTS] + (*end == '+' ? strtoull(end + 1, NULL, 0) : 0);
}

static unsigned long value(char **rest)
{
	char *text = word(rest);

	return text ? said(text) : 0;
}

static void system_call(char *rest)
{
	unsigned long args[6] = { 0 };
	size_t sizes[6] = { 0 };
	long nr = value(&rest), result;
	char *text;
	int i;

	for (i = 0; i < 6 && (text = word(&rest)); i++) {
		if (*text == '#') {
			sizes[i] = unhex(text + 1, buffers[i], sizeof(buffers[i]));
			args[i] = (unsigned long)buffers[i];
		} else if (*text == '=') {
			args[i] = (unsigned long)(text + 1);
		} else {
			args[i] = said(text);
		}
	}
	result = syscall(nr, args[0], args[1], args[2], args[3], args[4], args[5]);
	number(result == -1 ? -errno : result);
	for (i = 0; i < 6; i++)
		if (sizes[i])
			hex(buffers[i], sizes[i]);
}

static void start(int fd, int cpu)
{
	pthread_attr_t attributes;
	cpu_set_t cpus;
	int i;

	for (i = 0; i < THREADS && runners[i].used; i++)
		;
	if (i == THREADS) {
		number(-EAGAIN);
		return;
	}
	memset(&runners[i], 0, sizeof(runners[i]));
	runners[i].fd = fd;
	runners[i].used = 1;
	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	pthread_attr_init(&attributes);
	pthread_attr_setaffinity_np(&attributes, sizeof(cpus), &cpus);
	if (pthread_create(&runners[i].thread, &attributes, run, &runners[i])) {
		runners[i].used = 0;
		i = -EAGAIN;
	}
	pthread_attr_destroy(&attributes);
	number(i);
}

static void thread(char what, unsigned long n)
{
	if (n >= THREADS || !runners[n].used) {
		number(-ESRCH);
	} else if (what == 'd') {
		number(runners[n].done);
	} else if (what == 'x') {
		number(-pthread_kill(runners[n].thread, SIGUSR1));
	} else {
		pthread_join(runners[n].thread, NULL);
		runners[n].used = 0;
		number(runners[n].result);
	}
}

static void file(char what, char *rest)
{
	static unsigned char content[4096];
	char *path = word(&rest);
	int fd = path ? open(path, what == 'c' ? O_RDONLY : O_WRONLY) : -1;
	ssize_t n;

	if (fd < 0) {
		number(path ? -errno : -EINVAL);
		return;
	}
	if (what == 'c')
		n = read(fd, content, sizeof(content));
	else
		n = write(fd, content, rest ? unhex(rest, content, sizeof(content)) : 0);
	number(n < 0 ? -errno : n);
	if (what == 'c' && n > 0)
		hex(content, n);
	close(fd);
}

static void entries(char *rest)
{
	char *path = word(&rest);
	DIR *folder = path ? opendir(path) : NULL;
	struct dirent *entry;
	long n = 0;

	if (!folder) {
		number(-errno);
		return;
	}
	while ((entry = readdir(folder)))
		n += entry->d_name[0] != '.';
	closedir(folder);
	number(n);
}

static long now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec * 1000 + at.tv_nsec / 1000000;
}

static void until(char *rest)
{
	volatile uint32_t *at = (volatile uint32_t *)value(&rest);
	uint32_t old = value(&rest);
	long end = now() + value(&rest);

	while (*at == old && now() < end)
		usleep(20);
	number(*at != old);
}

static void program(char *rest)
{
	static unsigned char printed[4096];
	char *path = word(&rest), *const argv[] = { path, NULL };
	long end = now() + value(&rest);
	size_t n = 0;
	int ends[2], status;
	pid_t pid;

	if (!path || pipe2(ends, O_CLOEXEC)) {
		number(path ? -errno : -EINVAL);
		return;
	}
	pid = fork();
	if (!pid) {
		dup2(ends[1], 1);
		dup2(ends[1], 2);
		execv(path, argv);
		_exit(127);
	}
	close(ends[1]);
	while (pid > 0) {
		struct pollfd more = { .fd = ends[0], .events = POLLIN };
		int left = end - now();
		ssize_t got;

		if (left <= 0 || poll(&more, 1, left) <= 0) {
			if (now() >= end)
				break;
			continue;
		}
		got = read(ends[0], printed + n, sizeof(printed) - n);
		if (got <= 0)
			break;
		n += got;
	}
	if (pid > 0 && now() >= end)
		kill(pid, SIGKILL);
	close(ends[0]);
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		number(-errno);
	else
		number(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	if (n)
		hex(printed, n);
}

static void execute(char *text)
{
	char *rest = text, *command = word(&rest);
	unsigned char *at;
	size_t n;
	int fd;

	out = answer;
	switch (command ? *command : 0) {
	case 's':
		system_call(rest);
		break;
	case 'r':
		at = (unsigned char *)value(&rest);
		n = value(&rest);
		number(0);
		hex(at, n < LINE / 4 ? n : LINE / 4);
		break;
	case 'w':
		at = (unsigned char *)value(&rest);
		number(rest ? unhex(rest, at, LINE) : 0);
		break;
	case 'l':
		number(*(volatile uint32_t *)value(&rest));
		break;
	case 'p':
		at = (unsigned char *)value(&rest);
		*(volatile uint32_t *)at = value(&rest);
		number(0);
		break;
	case 'u':
		until(rest);
		break;
	case 't':
		fd = value(&rest);
		start(fd, value(&rest));
		break;
	case 'd':
	case 'x':
	case 'j':
		thread(*command, value(&rest));
		break;
	case 'c':
	case 'e':
		file(*command, rest);
		break;
	case 'n':
		entries(rest);
		break;
	case 'q':
		program(rest);
		break;
	default:
		number(NOT_UNDERSTOOD);
	}
	*out++ = '\n';
}

static void send_answer(int channel)
{
	char *at = answer;

	while (at < out) {
		ssize_t n = write(channel, at, out - at);

		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return;
		if (n > 0)
			at += n;
	}
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = nothing };
	size_t have = 0;
	int channel;

	sigaction(SIGUSR1, &action, NULL);
	sigaction(SIGALRM, &action, NULL);
	channel = open(argc > 1 ? argv[1] : "/dev/vport0p1", O_RDWR | O_CLOEXEC);
	if (channel < 0)
		return 1;
	for (;;) {
		ssize_t n = read(channel, line + have, sizeof(line) - 1 - have);
		char *begin = line, *end;

		if (n <= 0) {
			usleep(1000);
			continue;
		}
		have += n;
		while ((end = memchr(begin, '\n', line + have - begin))) {
			*end = 0;
			execute(begin);
			send_answer(channel);
			begin = end + 1;
		}
		have -= begin - line;
		memmove(line, begin, have);
		if (have == sizeof(line) - 1)
			have = 0;
	}
}
