/* The clock, and what CPU time the server's processes and this one have used. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

static struct rusage usage_at_mark;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void print_cpu(const char *arguments) {
    struct rusage usage;
    uint64_t server = 0;
    char *end;
    for (long pid; (pid = strtol(arguments, &end, 10)) > 0; arguments = end) {
        struct timespec t;   /* a process's CPU clock: ~pid << 3 | CPUCLOCK_SCHED, as clock_getcpuclockid() makes it */
        if (clock_gettime((clockid_t)(~(unsigned)pid << 3 | 2), &t) == 0) server += t.tv_sec * 1000000000ull + t.tv_nsec;
    }
    getrusage(RUSAGE_SELF, &usage);
#define MICROSECONDS(t) ((t).tv_sec * 1000000ll + (t).tv_usec)
    printf(", \"server_cpu_ns\": %llu, \"user_us\": %lld, \"system_us\": %lld", (unsigned long long)server,
           MICROSECONDS(usage.ru_utime) - MICROSECONDS(usage_at_mark.ru_utime),
           MICROSECONDS(usage.ru_stime) - MICROSECONDS(usage_at_mark.ru_stime));
}
