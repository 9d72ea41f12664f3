/* Preloaded into a server, this counts the system calls that send: a shared counter in the file that
 * BENCHMARKS_SENDS names. What a server writes to files and pipes is counted too; it is next to nothing. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

static uint64_t nowhere, *sends = &nowhere;

__attribute__((constructor)) static void open_counter(void) {
    const char *path = getenv("BENCHMARKS_SENDS");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *page = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *sends, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page != MAP_FAILED) sends = page;
    if (fd >= 0) close(fd);
}

#define COUNTED(result, name, parameters, ...)                                      \
    result name parameters {                                                        \
        static result(*real) parameters;                                            \
        if (!real) real = (result(*) parameters)dlsym(RTLD_NEXT, #name);            \
        __atomic_fetch_add(sends, 1, __ATOMIC_RELAXED);                             \
        return real(__VA_ARGS__);                                                   \
    }

COUNTED(ssize_t, send, (int fd, const void *data, size_t n, int flags), fd, data, n, flags)
COUNTED(ssize_t, sendto, (int fd, const void *data, size_t n, int flags, const struct sockaddr *to, socklen_t size), fd, data, n, flags, to, size)
COUNTED(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags), fd, message, flags)
COUNTED(ssize_t, write, (int fd, const void *data, size_t n), fd, data, n)
COUNTED(ssize_t, writev, (int fd, const struct iovec *parts, int n), fd, parts, n)
