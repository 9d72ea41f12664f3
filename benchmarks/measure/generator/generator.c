/* The load generator: one epoll loop that drives many connections and checks every reply, byte by byte.
 *
 * It is told what to do by lines on standard input and answers with one line of JSON each:
 *
 *   grow N         open N more connections, each confirmed once, at most `window` unconfirmed at a time
 *   start          put the load of `mode` on every open connection
 *   mark [PID...]  forget what was counted so far; the window of measurement begins here
 *   stop [PID...]  it ends here: counters are read at once, then the replies still due are awaited
 *   rate R         paced: from the next start on, R messages a second
 *   quit           (or end of input) close everything and exit
 *
 * mark and stop read the CPU time of the server's processes (PID...) at the very moment at which the
 * counters are read, so that nanoseconds per message is exact.
 *
 * Modes: `closed` keeps `depth` messages under way on each connection: sends them in one write, waits
 * for all replies, goes on. `paced` sends `rate` messages a second in all on a fixed (or Poisson)
 * schedule, whether or not earlier ones were answered; latency counts from the intended time.
 * `churn` opens, sends `messages` messages one by one, says /exit, awaits the end of stream, reopens.
 * `arrivals` does so on a schedule: `rate` sessions a second begin, whether or not earlier ones have ended.
 *
 * A message is `size` bytes: 16 hexadecimal digits of its number and its connection's, then letters. What goes
 * before and after it, and before and after it in the reply, is the confirm protocol's unless options say otherwise.
 * Arguments are key=value (options.h). The answer to stop has what was confirmed in each tenth of
 * a second, and histograms: `latency_us` (paced: from the intended time), `service_us` (paced: from the
 * time of sending; churn: a whole session; arrivals: a whole session from the intended time).
 */
#define _GNU_SOURCE
#include <math.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include "cpu.h"
#include "histogram.h"
#include "options.h"
#include "stream.h"

enum state { CONNECTING, HANDSHAKE, OPEN, LEAVING, DEAD };
enum failure { REFUSED, RESET, ENDED, MISMATCH, ERROR_REPLY, OTHER, UNANSWERED, FAILURES };
static const char *failure_names[] = {"refused", "reset", "ended", "mismatch", "error-reply", "other", "unanswered"};

#define RING 64                  /* paced: messages under way on one connection at most */
#define BUFFER (1 << 18)
#define SLOT_NS 100000000ull     /* confirmations are counted by tenths of a second, for ten minutes */
#define SLOTS 6000

typedef struct {
    stream io;
    uint32_t id;
    enum state state;
    char growing;                /* counts for the running `grow` */
    uint32_t out_offset, in_offset; /* bytes done of message `sent` and of the reply to message `got` */
    uint64_t want, sent, got;    /* messages to send up to, sent, and answered; numbered from 0 */
    uint64_t stamp, opened;      /* closed: when the batch was sent; when connect was called */
    uint64_t base;               /* churn: `got` when this connection was opened */
    uint64_t *due;               /* paced: RING intended times, then RING times of sending */
} conn;

static conn **conns;
static uint32_t count, capacity, grow_target, grow_confirmed, grow_opened, next_paced;
static int epoll, running, stopping;
static uint64_t confirmed, sessions, unsent, failures[FAILURES], grow_began, window_began, stop_at, random_state = 88172645463325252ull;
static double next_due;
static char *message, *reply, *input, *output;
static uint32_t message_size, message_at, reply_size, reply_at;   /* where in them the number stands */
static histogram latency, service;   /* service: paced, from the real time of sending; else a whole session */
static uint32_t slots[SLOTS];

/* Write the number of message `number` of connection `id` over the digits of `text`. The lowest digits
   of the number come first, so that short messages, which have room for some of them only, differ too. */
static void put_number(char *text, uint32_t id, uint64_t number) {
    uint64_t digits = (uint64_t)id << 32 | (number & 0xffffffff);
    uint32_t room = size < 16 ? size : 16;
    for (uint32_t i = 0; i < room; i++, digits >>= 4)
        text[i] = "0123456789abcdef"[digits & 15];
}

static void close_conn(conn *c) {
    stream_close(&c->io);
    c->state = DEAD;
}

static void fail(conn *c, enum failure why);

static void open_conn(conn *c) {
    c->opened = now_ns();
    c->want = c->sent = c->got;
    c->base = c->got;
    c->out_offset = c->in_offset = 0;
    c->state = CONNECTING;
    int use_source = sources > 1 || first_source > 1;
    if (stream_connect(&c->io, host, port, use_source ? first_source + c->id % sources : 0) < 0) {
        fail(c, errno == ECONNREFUSED ? REFUSED : OTHER);
        return;
    }
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
    epoll_ctl(epoll, EPOLL_CTL_ADD, c->io.fd, &event);
}

/* Count the failure and open the connection anew, unless so many failed that the server must be gone. */
static void fail(conn *c, enum failure why) {
    uint64_t sum = 0;
    failures[why]++;
    for (int i = 0; i < FAILURES; i++) sum += failures[i];
    c->got = c->want;            /* what was under way is lost */
    close_conn(c);
    int again = mode != ARRIVALS || c->growing;   /* an arrival that failed is over */
    if (sum < 1000 && why != OTHER && why != REFUSED && !stopping && again) open_conn(c);
    else if (c->growing) c->growing = 0, grow_confirmed++;
}

/* Send what is due, as far as the socket takes it; the rest goes when it is writable again. */
static void flush_conn(conn *c) {
    uint32_t unit = message_size;
    while (c->sent < c->want) {
        uint32_t filled = 0;
        for (uint64_t n = c->sent; n < c->want && filled + unit <= BUFFER; n++) {
            memcpy(output + filled, message, unit);
            if (send_body) put_number(output + filled + message_at, c->id, n);
            filled += unit;
        }
        ssize_t done = stream_put(&c->io, output + c->out_offset, filled - c->out_offset);
        if (done <= 0) {
            if (done == 0) fail(c, ENDED);
            else if (errno != EAGAIN) fail(c, errno == ECONNRESET || errno == EPIPE ? RESET : OTHER);
            return;
        }
        uint64_t at = c->out_offset + (uint64_t)done;
        c->sent += at / unit;
        c->out_offset = at % unit;
    }
}

static void send_batch(conn *c, uint32_t n, uint64_t now) {
    c->want += n;
    c->stamp = now;
    flush_conn(c);
}

static void say_exit(conn *c) {
    c->state = LEAVING;
    if (stream_put(&c->io, exit_text, strlen(exit_text)) < 0) fail(c, RESET);
}

static void print_counts(void) {
    printf(", \"confirmed\": %llu, \"sessions\": %llu, \"unsent\": %llu, \"open\": ", (unsigned long long)confirmed,
           (unsigned long long)sessions, (unsigned long long)unsent);
    uint32_t open = 0;
    for (uint32_t i = 0; i < count; i++) open += conns[i]->state == OPEN;
    printf("%u, \"errors\": {", open);
    const char *comma = "";
    for (int i = 0; i < FAILURES; i++)
        if (failures[i]) printf("%s\"%s\": %llu", comma, failure_names[i], (unsigned long long)failures[i]), comma = ", ";
    printf("}");
}

static void grown(void) {
    printf("{\"event\": \"grown\", \"ns\": %llu", (unsigned long long)(now_ns() - grow_began));
    print_counts();
    printf("}\n");
    grow_target = 0;
}

static void grow_more(void) {
    while (grow_opened < grow_target && grow_opened - grow_confirmed < window) {
        conn *c = calloc(1, sizeof *c);
        if (count == capacity) conns = realloc(conns, (capacity = capacity ? 2 * capacity : 1024) * sizeof *conns);
        c->id = id_base + count;
        c->growing = 1;
        conns[count++] = c;
        grow_opened++;
        open_conn(c);
    }
    if (grow_target && grow_confirmed == grow_target) grown();
}

/* All that was sent on this connection is answered: what next? */
static void answered(conn *c, uint64_t now) {
    if (c->growing) {
        c->growing = 0;
        grow_confirmed++;
        if (!running) return;
    }
    if (!running || stopping) return;
    if (mode == CLOSED) send_batch(c, depth, now);
    else if (in_sessions()) {
        if (c->got - c->base < messages) send_batch(c, 1, now);
        else say_exit(c);
    }
}

/* Compare what came with the replies due, in order; false where it differs. */
static int check(conn *c, const char *data, size_t n, uint64_t now) {
    while (n) {
        if (c->got == c->want) return fail(c, MISMATCH), 0;   /* nobody asked for this */
        if (expect_body) put_number(reply + reply_at, c->id, c->got);
        size_t piece = reply_size - c->in_offset < n ? reply_size - c->in_offset : n;
        if (memcmp(reply + c->in_offset, data, piece)) {
            fail(c, c->in_offset == 0 && n > 6 && !memcmp(data, "Error:", 6) ? ERROR_REPLY : MISMATCH);
            return 0;
        }
        data += piece, n -= piece;
        if ((c->in_offset += piece) < reply_size) return 1;
        c->in_offset = 0;
        if (c->due) {
            if (running) {
                record(&latency, now - c->due[c->got % RING]);
                record(&service, now - c->due[RING + c->got % RING]);
            }
        } else record(&latency, now - c->stamp);
        c->got++;
        confirmed++;
        uint64_t slot = (now - window_began) / SLOT_NS;
        if (slot < SLOTS) slots[slot]++;
    }
    return 1;
}

static void readable(conn *c) {
    for (;;) {
        ssize_t n = stream_get(&c->io, input, BUFFER);
        uint64_t now = now_ns();
        if (n > 0) {
            if (!check(c, input, n, now)) return;
            if (c->got == c->want && c->state == OPEN) answered(c, now);
            if (c->state == DEAD || c->state == CONNECTING) return;
            if (n < BUFFER && stream_short_read_is_all(&c->io)) return;   /* edge-triggered: nothing is left */
        } else if (n == 0) {
            if (c->state == LEAVING) {
                sessions++;
                record(&service, now - c->opened);
                close_conn(c);
                if (!stopping && mode == CHURN) open_conn(c);
            } else fail(c, ENDED);
            return;
        } else {
            if (errno != EAGAIN) fail(c, errno == ECONNRESET || errno == EPIPE ? RESET : OTHER);
            return;
        }
    }
}

static void opened(conn *c) {
    c->state = OPEN;
    if (mode == PACED && !c->due) c->due = calloc(2 * RING, sizeof *c->due);
    if (c->due) c->due[c->want % RING] = c->due[RING + c->want % RING] = c->opened;
    if (mode == PACED && running) return;
    send_batch(c, c->growing || in_sessions() ? 1 : depth, c->opened);   /* its first latency has the connect in it */
}

static void handle(conn *c, uint32_t events) {
    if (c->state == DEAD) return;
    if (c->state == CONNECTING) {
        int error = 0;
        socklen_t n = sizeof error;
        getsockopt(c->io.fd, SOL_SOCKET, SO_ERROR, &error, &n);
        if (error) { fail(c, error == ECONNREFUSED ? REFUSED : error == ECONNRESET ? RESET : OTHER); return; }
        if (!(events & EPOLLOUT)) return;
        c->state = HANDSHAKE;
    }
    if (c->state == HANDSHAKE) {
        int ready = stream_handshake(&c->io, tls);
        if (ready < 0) fail(c, OTHER);
        if (ready <= 0) return;
        opened(c);
        if (c->state != OPEN) return;
    }
    if (c->sent < c->want && (events & EPOLLOUT)) flush_conn(c);
    if (c->state != DEAD && (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))) readable(c);
}

/* Paced, arrivals: send every message, or begin every session, whose time has come. */
static void pace(uint64_t now) {
    int burst = 0;
    while (running && !stopping && next_due <= now && burst++ < 64) {
        conn *c = NULL;
        for (int tries = 0; tries < 16 && !c; tries++) {
            conn *candidate = conns[next_paced++ % count];
            if (mode == ARRIVALS ? candidate->state == DEAD :
                candidate->state == OPEN && candidate->want - candidate->got < RING) c = candidate;
        }
        if (!c) break;   /* every connection is full: the message stays due, and its latency tells */
        if (mode == ARRIVALS) {
            open_conn(c);
            c->opened = (uint64_t)next_due;
        } else {
            c->due[c->want % RING] = (uint64_t)next_due;
            c->due[RING + c->want % RING] = now_ns();
            c->want++;
            flush_conn(c);
        }
        random_state ^= random_state << 13, random_state ^= random_state >> 7, random_state ^= random_state << 17;
        next_due += 1e9 / rate * (poisson ? -log(((random_state >> 11) + 1) / 9007199254740993.0) : 1.0);
    }
}

/* Wait for events, when pacing no longer than until the next message is due. epoll_pwait2 (Linux 5.11) takes
   nanoseconds; an older kernel gets whole milliseconds, rounded down, and so spins for the last one. */
static int wait_for_events(struct epoll_event *events, int most) {
    static int coarse;
    if (!on_schedule() || !running || stopping) return epoll_wait(epoll, events, most, stopping ? 10 : -1);
    double left = next_due - now_ns();
    if (left < 0) left = 0;
    if (!coarse) {
        struct timespec timeout = {(time_t)(left / 1e9), (long)fmod(left, 1e9)};
        int n = syscall(SYS_epoll_pwait2, epoll, events, most, &timeout, NULL, 0);
        if (n >= 0 || errno != ENOSYS) return n;
        coarse = 1;
    }
    return epoll_wait(epoll, events, most, (int)(left / 1e6));
}

static void begin(void) {
    uint64_t now = now_ns();
    running = 1;
    next_due = now;
    for (uint32_t i = 0; i < count; i++) {
        conn *c = conns[i];
        if (c->state != OPEN || c->got != c->want) continue;
        if (mode == CLOSED) send_batch(c, depth, now_ns());
        else if (in_sessions()) say_exit(c);   /* the connections that `grow` opened leave: from here on all are new */
    }
}

static void print_slots(uint64_t full) {
    printf(", \"slots\": [");
    for (uint64_t i = 0; i < full && i < SLOTS; i++) printf("%s%u", i ? ", " : "", slots[i]);
    printf("]");
}

static void command(char *line) {
    if (!strncmp(line, "grow ", 5)) {
        grow_target = strtoul(line + 5, NULL, 10);
        grow_opened = grow_confirmed = 0;
        grow_began = now_ns();
        if (grow_target) grow_more();
        else grown();
    } else if (!strcmp(line, "start")) {
        begin();
        printf("{\"event\": \"started\"}\n");
    } else if (!strncmp(line, "mark", 4)) {
        memset(&latency, 0, sizeof latency);
        memset(&service, 0, sizeof service);
        memset(slots, 0, sizeof slots);
        confirmed = sessions = 0;
        getrusage(RUSAGE_SELF, &usage_at_mark);
        window_began = now_ns();
        printf("{\"event\": \"marked\", \"ns\": %llu", (unsigned long long)window_began);
        print_cpu(line + 4);
        printf("}\n");
    } else if (!strncmp(line, "stop", 4)) {
        uint64_t now = now_ns();
        unsent = 0;
        if (on_schedule() && running)   /* what should have been sent by now has waited at least so long */
            for (double due = next_due; due < now; due += 1e9 / rate, unsent++) record(&latency, now - due);
        printf("{\"event\": \"stopped\", \"ns\": %llu", (unsigned long long)(now - window_began));
        print_cpu(line + 4);
        printf(", \"confirmed_in_window\": %llu", (unsigned long long)confirmed);
        print_slots((now - window_began) / SLOT_NS);
        stopping = 1;
        stop_at = now + (uint64_t)(drain_seconds * 1e9);
    } else if (!strncmp(line, "rate ", 5)) rate = strtod(line + 5, NULL);
    else if (!strcmp(line, "quit")) exit(0);
    else printf("{\"event\": \"unknown command\"}\n");
}

/* After `stop`: once all is answered (or time is up) finish the line that `stop` began. */
static void finish_if_drained(void) {
    uint64_t due = 0;
    for (uint32_t i = 0; i < count; i++)
        if (conns[i]->state != DEAD) due += (conns[i]->want - conns[i]->got) + (conns[i]->state == LEAVING);
    if (due && now_ns() < stop_at) return;
    failures[UNANSWERED] += due;
    print_counts();
    print_histogram("latency_us", &latency);
    print_histogram("service_us", &service);
    printf("}\n");
    stopping = running = 0;
}

/* What a message or a reply looks like, with letters where its number will be. */
static char *framed(const char *head, int body, const char *tail, uint32_t *total, uint32_t *at) {
    size_t head_size = strlen(head), tail_size = strlen(tail), body_size = body ? size : 0;
    char *text = malloc(head_size + body_size + tail_size + 1);
    memcpy(text, head, head_size);
    memset(text + head_size, 'm', body_size);
    memcpy(text + head_size + body_size, tail, tail_size);
    *at = head_size;
    *total = head_size + body_size + tail_size;
    return text;
}

int main(int argc, char **argv) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, SIG_IGN);     /* Ctrl-C is for the runner, which then says stop */
    prctl(PR_SET_TIMERSLACK, 1);
    for (int i = 1; i < argc; i++) set(argv[i]);
    check_options();
#ifdef WITH_TLS
    if (tls) tls_prepare(tls_ca);
#else
    if (tls) { fprintf(stderr, "generator: built without OpenSSL\n"); return 2; }
#endif
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    message = framed(send_head, send_body, send_tail, &message_size, &message_at);
    reply = framed(expect_head, expect_body, expect_tail, &reply_size, &reply_at);
    input = malloc(BUFFER);
    output = malloc(BUFFER);
    epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &event);
    static char line[65536];
    size_t filled = 0;
    struct epoll_event events[512];
    for (;;) {
        int n = wait_for_events(events, 512);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == NULL) {
                ssize_t got = read(0, line + filled, sizeof line - filled - 1);
                if (got <= 0) return 0;
                line[filled += got] = 0;
                for (char *end; (end = strchr(line, '\n')); ) {
                    *end = 0;
                    command(line);
                    filled -= end + 1 - line;
                    memmove(line, end + 1, filled + 1);
                }
            } else handle(events[i].data.ptr, events[i].events);
        }
        if (grow_target) grow_more();
        if (on_schedule() && running && !stopping) pace(now_ns());
        if (stopping) finish_if_drained();
        fflush(stdout);
    }
}
