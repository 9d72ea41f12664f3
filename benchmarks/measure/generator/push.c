/* The load generator of servers that send one client's message to many. Every client checks that it gets
 * every message, each speaker's in order, byte by byte; what they get are deliveries.
 *
 * It takes the commands of generator.c (grow, start, mark, stop, quit) and gives the same answers, in which
 * deliveries stand where confirmations do. Of the arguments (options.h) it knows host, port, size, window,
 * mode, rate, poisson, drain, sources, and
 *
 *   room=R    clients are in rooms of R, each of whom speaks: a client joins with the line `#NUMBER`, which is
 *             confirmed. room=0: all are in one room without a name, and the first of them speaks
 *   stuck=K   the last K clients read nothing from `start` on, and are not waited for. They first ask so much that
 *             the replies fill the kernel's buffers: what the server sends them from then on stays with it
 *
 * A speaker says `!` and a text of `size` bytes: 8 hexadecimal digits of its message's number, 8 of its own,
 * then letters. In mode closed everybody in a room speaks again once all of it have got all of the round.
 * In mode paced the first client speaks `rate` times a second, whether or not all was delivered.
 * `latency_us` runs from the time at which the round began, paced: at which the message was due.
 */
#define _GNU_SOURCE
#include <math.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include "cpu.h"
#include "histogram.h"
#include "options.h"
#include "stream.h"

enum state { CONNECTING, JOINING, OPEN, STUCK, DEAD };
enum failure { REFUSED, RESET, ENDED, MISMATCH, OTHER, UNANSWERED, FAILURES };
static const char *failure_names[] = {"refused", "reset", "ended", "mismatch", "other", "unanswered"};

#define BUFFER (1 << 18)
#define SLOT_NS 100000000ull
#define SLOTS 6000
#define FILL_LINE 60000          /* a stuck client's own messages, whose replies fill what the kernel buffers for it */
#define FILL (6 << 20)
#define RING 1024                /* rounds of a room under way at most */

typedef struct { uint64_t said, got, due; uint32_t first, members; uint64_t stamps[RING]; } group;
typedef struct {
    stream io;
    uint32_t id, have;           /* `have` bytes of the next delivery are in `part` */
    enum state state;
    char *part, *unsent;
    uint32_t unsent_bytes;
    uint64_t got;
    uint32_t *heard;             /* of each speaker in its room: the number of the next message */
} conn;

static conn **conns;
static group *groups;
static uint32_t count, capacity, group_count, grow_target, grow_opened, grow_done, unit;
static int epoll, running, stopping;
static uint64_t delivered, unsent, failures[FAILURES], grow_began, window_began, stop_at, random_state = 88172645463325252ull;
static double next_due;
static char *line, *input;
static histogram latency, service;
static uint32_t slots[SLOTS];

static uint32_t speakers(const group *g) { return room ? g->members : 1; }
static group *group_of(const conn *c) { return &groups[room ? c->id / room : 0]; }

static void fail(conn *c, enum failure why) {
    failures[why]++;
    if (c->state == CONNECTING || c->state == JOINING) grow_done++;
    stream_close(&c->io);
    c->state = DEAD;
}

/* Send, and keep what the socket does not take until it is writable. */
static void put(conn *c, const char *data, uint32_t n) {
    ssize_t sent = c->unsent_bytes ? 0 : stream_put(&c->io, data, n);
    if (sent < 0 && errno != EAGAIN) { fail(c, errno == ECONNRESET || errno == EPIPE ? RESET : OTHER); return; }
    if (sent < 0) sent = 0;
    if (sent == n) return;
    c->unsent = realloc(c->unsent, c->unsent_bytes + n - sent);
    memcpy(c->unsent + c->unsent_bytes, data + sent, n - sent);
    c->unsent_bytes += n - sent;
}

static void writable(conn *c) {
    ssize_t sent = stream_put(&c->io, c->unsent, c->unsent_bytes);
    if (sent <= 0) return;
    memmove(c->unsent, c->unsent + sent, c->unsent_bytes -= sent);
}

static void put_hex(char *text, uint32_t value) {
    for (int i = 7; i >= 0; i--, value >>= 4) text[i] = "0123456789abcdef"[value & 15];
}

static uint32_t hex(const char *text) {
    uint32_t value = 0;
    for (int i = 0; i < 8; i++) value = value << 4 | (uint32_t)(text[i] <= '9' ? text[i] - '0' : text[i] - 'a' + 10);
    return value;
}

/* Everybody in the room who speaks says the next message. */
static void say(group *g, uint64_t stamp) {
    uint32_t listeners = 0;
    for (uint32_t i = 0; i < g->members; i++) listeners += conns[g->first + i]->state == OPEN;
    g->stamps[g->said % RING] = stamp;
    g->due += (uint64_t)listeners * speakers(g);
    for (uint32_t i = 0; i < speakers(g); i++) {
        conn *c = conns[g->first + i];
        put_hex(line + 1, (uint32_t)g->said);
        put_hex(line + 9, c->id);
        if (c->state == OPEN) put(c, line, unit + 1);
    }
    g->said++;
}

/* A whole delivery: is it the next one of its speaker? */
static int check(conn *c, const char *text, uint64_t now) {
    group *g = group_of(c);
    uint32_t number = hex(text), index = hex(text + 8) - g->first;
    if (index >= speakers(g) || number != c->heard[index] || memcmp(text + 16, line + 17, unit - 16)) return fail(c, MISMATCH), 0;
    c->heard[index]++;
    record(&latency, now - g->stamps[number % RING]);
    delivered++;
    uint64_t slot = (now - window_began) / SLOT_NS;
    if (slot < SLOTS) slots[slot]++;
    if (++g->got == g->due && mode == CLOSED && running && !stopping) say(g, now_ns());
    return 1;
}

static void deliveries(conn *c, const char *data, size_t n, uint64_t now) {
    while (n) {
        if (!c->have && n >= unit) {
            if (!check(c, data, now)) return;
            data += unit, n -= unit;
            continue;
        }
        size_t piece = unit - c->have < n ? unit - c->have : n;
        if (!c->part) c->part = malloc(unit);
        memcpy(c->part + c->have, data, piece);
        c->have += piece, data += piece, n -= piece;
        if (c->have < unit) return;
        c->have = 0;
        if (!check(c, c->part, now)) return;
    }
}

/* What a new client says first, without LF, and is confirmed. */
static int first_words(const conn *c, char *text) { return room ? sprintf(text, "#%u", c->id / room) : sprintf(text, "hello"); }

static void joined(conn *c, const char *data, size_t n) {
    char words[32], reply[48];
    first_words(c, words);
    size_t size = sprintf(reply, "Received: %s\n", words);
    if (n != size || memcmp(reply, data, n)) { fail(c, MISMATCH); return; }
    c->state = OPEN;
    grow_done++;
    delivered++;
}

static void readable(conn *c) {
    while (c->state == JOINING || c->state == OPEN) {
        ssize_t n = stream_get(&c->io, input, BUFFER);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) { fail(c, n == 0 ? ENDED : errno == ECONNRESET ? RESET : OTHER); return; }
        if (c->state == JOINING) joined(c, input, n);
        else deliveries(c, input, n, now_ns());
        if (n < BUFFER) return;
    }
}

static void handle(conn *c, uint32_t events) {
    if (c->state == STUCK && c->unsent_bytes && (events & EPOLLOUT)) writable(c);
    if (c->state == DEAD || c->state == STUCK) return;
    if (c->state == CONNECTING) {
        int error = 0;
        socklen_t n = sizeof error;
        getsockopt(c->io.fd, SOL_SOCKET, SO_ERROR, &error, &n);
        if (error) { fail(c, error == ECONNREFUSED ? REFUSED : OTHER); return; }
        if (!(events & EPOLLOUT)) return;
        char words[32];
        int size = first_words(c, words);
        words[size++] = '\n';
        c->state = JOINING;
        put(c, words, size);
    }
    if (c->unsent_bytes && (events & EPOLLOUT)) writable(c);
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) readable(c);
}

static void print_counts(void) {
    uint32_t open = 0;
    for (uint32_t i = 0; i < count; i++) open += conns[i]->state == OPEN;
    printf(", \"confirmed\": %llu, \"sessions\": 0, \"unsent\": %llu, \"open\": %u, \"errors\": {",
           (unsigned long long)delivered, (unsigned long long)unsent, open);
    const char *comma = "";
    for (int i = 0; i < FAILURES; i++)
        if (failures[i]) printf("%s\"%s\": %llu", comma, failure_names[i], (unsigned long long)failures[i]), comma = ", ";
    printf("}");
}

static void grow_more(void) {
    while (grow_opened < grow_target && grow_opened - grow_done < window) {
        conn *c = calloc(1, sizeof *c);
        if (count == capacity) conns = realloc(conns, (capacity = capacity ? 2 * capacity : 1024) * sizeof *conns);
        c->id = count;
        if (count == 0 || (room && count % room == 0)) {
            groups = realloc(groups, (group_count + 1) * sizeof *groups);
            groups[group_count++] = (group){.first = count};
        }
        groups[group_count - 1].members++;
        c->heard = calloc(room ? room : 1, sizeof *c->heard);
        conns[count++] = c;
        grow_opened++;
        if (stream_connect(&c->io, host, port, sources > 1 ? first_source + c->id % sources : 0) < 0) { fail(c, OTHER); continue; }
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
        epoll_ctl(epoll, EPOLL_CTL_ADD, c->io.fd, &event);
    }
    if (grow_done < grow_target) return;
    printf("{\"event\": \"grown\", \"ns\": %llu", (unsigned long long)(now_ns() - grow_began));
    print_counts();
    printf("}\n");
    grow_target = 0;
}

static void begin(void) {
    int small = 4096;
    static char fill[FILL_LINE + 1];
    memset(fill, 'f', FILL_LINE);
    fill[FILL_LINE] = '\n';
    for (uint32_t i = count > stuck ? count - stuck : 0; i < count; i++) {
        if (conns[i]->state != OPEN) continue;
        setsockopt(conns[i]->io.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
        for (int sent = 0; sent < FILL && conns[i]->state == OPEN; sent += FILL_LINE + 1) put(conns[i], fill, FILL_LINE + 1);
        if (conns[i]->state == OPEN) conns[i]->state = STUCK;
    }
    running = 1;
    next_due = now_ns();
    if (mode == CLOSED)
        for (uint32_t i = 0; i < group_count; i++) say(&groups[i], now_ns());
}

static void pace(void) {
    group *g = &groups[0];
    uint64_t due_each = g->said ? g->due / g->said : 0;
    while (running && !stopping && group_count && next_due <= now_ns()) {
        if (due_each && g->due - g->got >= due_each * (RING - 1)) return;   /* it stays due, and its latency tells */
        say(g, (uint64_t)next_due);
        random_state ^= random_state << 13, random_state ^= random_state >> 7, random_state ^= random_state << 17;
        next_due += 1e9 / rate * (poisson ? -log(((random_state >> 11) + 1) / 9007199254740993.0) : 1.0);
    }
}

static int wait_for_events(struct epoll_event *events, int most) {
    if (mode != PACED || !running || stopping) return epoll_wait(epoll, events, most, stopping ? 10 : -1);
    double left = (next_due - now_ns()) / 1e6;
    return epoll_wait(epoll, events, most, left < 0 ? 0 : (int)ceil(left));
}

static void command(char *text) {
    if (!strncmp(text, "grow ", 5)) {
        grow_target = strtoul(text + 5, NULL, 10);
        grow_opened = grow_done = 0;
        grow_began = now_ns();
        grow_more();
    } else if (!strcmp(text, "start")) {
        begin();
        printf("{\"event\": \"started\"}\n");
    } else if (!strncmp(text, "mark", 4)) {
        memset(&latency, 0, sizeof latency);
        memset(slots, 0, sizeof slots);
        delivered = 0;
        getrusage(RUSAGE_SELF, &usage_at_mark);
        window_began = now_ns();
        printf("{\"event\": \"marked\", \"ns\": %llu", (unsigned long long)window_began);
        print_cpu(text + 4);
        printf("}\n");
    } else if (!strncmp(text, "stop", 4)) {
        uint64_t now = now_ns();
        unsent = 0;
        if (mode == PACED && running)
            for (double due = next_due; due < now; due += 1e9 / rate, unsent++) record(&latency, now - due);
        printf("{\"event\": \"stopped\", \"ns\": %llu", (unsigned long long)(now - window_began));
        print_cpu(text + 4);
        printf(", \"confirmed_in_window\": %llu, \"slots\": [", (unsigned long long)delivered);
        for (uint64_t i = 0; i < (now - window_began) / SLOT_NS && i < SLOTS; i++) printf("%s%u", i ? ", " : "", slots[i]);
        printf("]");
        stopping = 1;
        stop_at = now + (uint64_t)(drain_seconds * 1e9);
    } else if (!strcmp(text, "quit")) exit(0);
    else printf("{\"event\": \"unknown command\"}\n");
}

/* After `stop`: once all is delivered (or time is up) finish the line that `stop` began. */
static void finish_if_drained(void) {
    uint64_t due = 0;
    for (uint32_t i = 0; i < group_count; i++) due += groups[i].due - groups[i].got;
    if (due && now_ns() < stop_at) return;
    failures[UNANSWERED] += due;
    print_counts();
    print_histogram("latency_us", &latency);
    print_histogram("service_us", &service);
    printf("}\n");
    stopping = running = 0;
}

int main(int argc, char **argv) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    for (int i = 1; i < argc; i++) set(argv[i]);
    check_options();
    if (size < 16) { fprintf(stderr, "push: a message has at least 16 bytes\n"); return 2; }
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    unit = size + 1;
    line = malloc(unit + 1);
    memset(line, 'p', unit + 1);
    line[0] = '!';
    line[unit] = '\n';
    input = malloc(BUFFER);
    epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[512];
    epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &event);
    static char text[65536];
    size_t filled = 0;
    for (;;) {
        int n = wait_for_events(events, 512);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr) { handle(events[i].data.ptr, events[i].events); continue; }
            ssize_t got = read(0, text + filled, sizeof text - filled - 1);
            if (got <= 0) return 0;
            text[filled += got] = 0;
            for (char *end; (end = strchr(text, '\n'));) {
                *end = 0;
                command(text);
                filled -= end + 1 - text;
                memmove(text, end + 1, filled + 1);
            }
        }
        if (grow_target) grow_more();
        if (mode == PACED) pace();
        if (stopping) finish_if_drained();
        fflush(stdout);
    }
}
