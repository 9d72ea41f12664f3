/* C, one thread, epoll: about the least that a server on sockets can cost. One recv and one send for
 * what a client has sent. Level-triggered: what one recv does not take comes up again, so the call
 * that would say EAGAIN is saved. A client owns memory only while it has an unfinished line or unsent
 * replies.
 *
 * With --push, `#NAME` puts a client into a room (and is confirmed), and `!TEXT` sends TEXT to everybody in
 * the speaker's room, or to all clients where it is in none: a loop of sends over bytes made once.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { LIMIT = 65536, READ = 1 << 16, WRITE = 24 * (LIMIT + READ) + 256 };
struct room;
typedef struct { int fd, leaving; char *rest, *unsent; size_t rest_size, unsent_size; struct room *room; uint32_t place, room_place; } client;
typedef struct room { char *name; client **members; uint32_t count, capacity; struct room *next; } room;

static const char TOO_LONG[] = "Error: message-too-long: a message is limited to 65536 bytes\n";
static const char NOT_UTF8[] = "Error: invalid-utf8: the message is not UTF-8\n";
static char input[LIMIT + 2 + READ], output[WRITE];
static int epoll, push;
static long busy_ns;
static room everybody, *rooms;

/* Whether the bytes are UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, at most U+10FFFF. */
static int is_utf8(const unsigned char *s, size_t n) {
    size_t i = 0;
    for (uint64_t word; i + 8 <= n; i += 8) {
        memcpy(&word, s + i, 8);
        if (word & 0x8080808080808080ull) break;
    }
    while (i < n) {
        unsigned char c = s[i];
        int more = c < 0x80 ? 0 : c >= 0xC2 && c <= 0xDF ? 1 : (c & 0xF0) == 0xE0 ? 2 : c >= 0xF0 && c <= 0xF4 ? 3 : -1;
        if (more < 0 || i + more >= n) return 0;
        for (int k = 1; k <= more; k++)
            if ((s[i + k] & 0xC0) != 0x80) return 0;
        if ((c == 0xE0 && s[i + 1] < 0xA0) || (c == 0xED && s[i + 1] > 0x9F) || (c == 0xF0 && s[i + 1] < 0x90) || (c == 0xF4 && s[i + 1] > 0x8F)) return 0;
        i += more + 1;
    }
    return 1;
}

static int is_exit(const char *s, size_t n) {
    while (n && strchr(" \t\r\n\v\f", *s)) s++, n--;
    while (n && strchr(" \t\r\n\v\f", s[n - 1])) n--;
    return n == 5 && !strncasecmp(s, "/exit", 5);
}

static void enter(room *r, client *c, uint32_t *place) {
    if (r->count == r->capacity) r->members = realloc(r->members, (r->capacity = r->capacity ? 2 * r->capacity : 16) * sizeof *r->members);
    *place = r->count;
    r->members[r->count++] = c;
}

static void go(room *r, uint32_t place) {
    client *last = r->members[--r->count];
    r->members[place] = last;
    *(r == &everybody ? &last->place : &last->room_place) = place;
}

static void leave(client *c) {
    if (push) go(&everybody, c->place);
    if (c->room) go(c->room, c->room_place);
    close(c->fd);
    free(c->rest);
    free(c->unsent);
    free(c);
}

/* Listen for input, or, while replies wait for the client to read, for room only. */
static void await(client *c, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
}

/* Send, and keep what the socket does not take. A client that fails is left to its own event. */
static void post(client *c, const char *data, size_t n) {
    ssize_t sent = c->unsent ? 0 : send(c->fd, data, n, MSG_NOSIGNAL);
    if ((size_t)sent == n) return;
    if (sent < 0 && errno != EAGAIN) { shutdown(c->fd, SHUT_RDWR); return; }
    if (sent < 0) sent = 0;
    if (!c->unsent) await(c, EPOLLOUT), c->unsent_size = 0;
    c->unsent = realloc(c->unsent, c->unsent_size + n - sent);
    memcpy(c->unsent + c->unsent_size, data + sent, n - sent);
    c->unsent_size += n - sent;
}

static void tell(room *r, const char *data, size_t n) {
    for (uint32_t i = 0; i < r->count; i++) post(r->members[i], data, n);
}

static void join(client *c, const char *name, size_t n) {
    room *r = rooms;
    while (r && (strncmp(r->name, name, n) || r->name[n])) r = r->next;
    if (!r) {
        r = calloc(1, sizeof *r);
        r->name = strndup(name, n);
        r->next = rooms;
        rooms = r;
    }
    if (c->room) go(c->room, c->room_place);
    c->room = r;
    enter(r, c, &c->room_place);
}

/* Append the answer to one line to `out`; NULL if the line ends the connection. */
static char *answer(char *out, const char *line, size_t n) {
    if (n && line[n - 1] == '\r') n--;
    if (is_exit(line, n)) return NULL;
    if (!is_utf8((const unsigned char *)line, n)) return memcpy(out, NOT_UTF8, sizeof NOT_UTF8 - 1), out + sizeof NOT_UTF8 - 1;
    memcpy(out, "Received: ", 10);
    memcpy(out + 10, line, n);
    out[10 + n] = '\n';
    return out + 11 + n;
}

static void finish_sending(client *c, const char *data, size_t n) {
    ssize_t sent = n ? send(c->fd, data, n, MSG_NOSIGNAL) : 0;
    if (sent < 0 && errno != EAGAIN) { leave(c); return; }
    if (sent < 0) sent = 0;
    if ((size_t)sent == n) {
        int was_waiting = c->unsent != NULL;
        free(c->unsent);
        c->unsent = NULL;
        if (c->leaving) leave(c);
        else if (was_waiting) await(c, EPOLLIN);
        return;
    }
    char *left = malloc(n - sent);
    memcpy(left, data + sent, c->unsent_size = n - sent);
    free(c->unsent);
    c->unsent = left;
    await(c, EPOLLOUT);
}

static void readable(client *c) {
    if (c->rest_size) memcpy(input, c->rest, c->rest_size);
    ssize_t n = recv(c->fd, input + c->rest_size, READ, 0);
    if (n < 0) {
        if (errno != EAGAIN) leave(c);
        return;
    }
    if (busy_ns) {
        struct timespec from, now;
        clock_gettime(CLOCK_MONOTONIC, &from);
        do clock_gettime(CLOCK_MONOTONIC, &now);
        while ((now.tv_sec - from.tv_sec) * 1000000000l + now.tv_nsec - from.tv_nsec < busy_ns);
    }
    char *line = input, *end = input + c->rest_size + n, *lf, *out = output;
    while (line < end && (lf = memchr(line, '\n', end - line))) {
        size_t size = lf - line;
        char *next = NULL;
        if (push && size && size <= LIMIT && *line == '!' && is_utf8((const unsigned char *)line, size)) {
            if (out > output) post(c, output, out - output), out = output;   /* its own replies first */
            if (lf[-1] == '\r') lf[-1] = '\n', size--;
            tell(c->room ? c->room : &everybody, line + 1, size);
            line = lf + 1;
            continue;
        }
        if (push && size && *line == '#') join(c, line + 1, size - 1);
        if (size - (size && lf[-1] == '\r') > LIMIT) out = mempcpy(out, TOO_LONG, sizeof TOO_LONG - 1);
        else next = answer(out, line, size);
        if (!next) { c->leaving = 1; break; }
        out = next;
        line = lf + 1;
    }
    size_t rest = end - line;
    if (!c->leaving && rest - (rest && end[-1] == '\r') > LIMIT) {
        out = mempcpy(out, TOO_LONG, sizeof TOO_LONG - 1);
        c->leaving = 1;
    }
    if (!c->leaving && n == 0) {   /* end of stream: bytes that no LF closed are a last message */
        char *next = rest ? answer(out, line, rest) : NULL;
        if (next) out = next;
        c->leaving = 1;
    }
    if (c->leaving) rest = 0;
    if (rest) {
        c->rest = realloc(c->rest, rest);
        memcpy(c->rest, line, rest);
    } else if (c->rest) {
        free(c->rest);
        c->rest = NULL;
    }
    c->rest_size = rest;
    if (c->unsent) {   /* a broadcast of its own has filled the socket: behind it */
        if (out > output) post(c, output, out - output);
        return;
    }
    if (out > output || c->leaving) finish_sending(c, output, out - output);
}

int main(int argc, char **argv) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    struct rlimit files;
    char text[64] = "127.0.0.1";
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--host")) snprintf(text, sizeof text, "%s", argv[i + 1]);
        else if (!strcmp(argv[i], "--port")) address.sin_port = htons(atoi(argv[i + 1]));
        else if (!strcmp(argv[i], "--busy-ns")) busy_ns = atol(argv[i + 1]);
        else if (!strcmp(argv[i], "--push")) push = atoi(argv[i + 1]);
    }
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    inet_pton(AF_INET, text, &address.sin_addr);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 4096) < 0) { perror("c_epoll"); return 1; }
    getsockname(listener, (struct sockaddr *)&address, &length);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[512];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    printf("ready tcp://%s:%d\n", text, ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int n = epoll_wait(epoll, events, 512, -1);
        for (int i = 0; i < n; i++) {
            client *c = events[i].data.ptr;
            if (!c) {
                for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    c = calloc(1, sizeof *c);
                    c->fd = fd;
                    if (push) enter(&everybody, c, &c->place);
                    event.data.ptr = c;
                    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
                }
            } else if (c->unsent) finish_sending(c, c->unsent, c->unsent_size);
            else readable(c);
        }
    }
}
