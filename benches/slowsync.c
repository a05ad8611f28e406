/* Makes fsync and fdatasync SYNC_US microseconds slower, to model a slower disk for the load program:
 *   cc -shared -fPIC -o target/slowsync.so benches/slowsync.c -ldl
 *   SYNC_US=170 LD_PRELOAD=$PWD/target/slowsync.so target/release/annals-benches sqlite-append
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

static int slowly(const char *name, int file)
{
	int (*sync)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
	const char *delay = getenv("SYNC_US");
	long us = delay ? atol(delay) : 0;
	struct timespec time = { us / 1000000, us % 1000000 * 1000 };
	int done = sync(file);

	/* Without this, the kernel may sleep up to 50 microseconds longer. */
	prctl(PR_SET_TIMERSLACK, 1000UL);
	nanosleep(&time, NULL);
	prctl(PR_SET_TIMERSLACK, 0UL);
	return done;
}

int fsync(int file) { return slowly("fsync", file); }
int fdatasync(int file) { return slowly("fdatasync", file); }
