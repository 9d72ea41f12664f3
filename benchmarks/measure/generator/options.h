/* The arguments, key=value, with their defaults. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum mode { CLOSED, PACED, CHURN, ARRIVALS };

/* mode closed: `depth` messages of `size` bytes under way on each connection. churn: `messages` each session.
   arrivals: the same sessions, `rate` a second of them on the schedule that paced has for messages.
   paced: `rate` messages a second over all connections, at even or (poisson=1) random intervals.
   grow: at most `window` connections not yet confirmed. Connection n, counted from id_base, comes from the
   address 127.0.0.(first_source + n % sources). stop: replies are awaited for `drain` seconds. push.c says what `room` and `stuck` are. */
static char host[64] = "127.0.0.1", exit_text[64] = "/exit\n", tls_ca[4096];
static int port, tls, poisson;
static uint32_t size = 32, depth = 1, sources = 1, first_source = 1, messages = 1, window = 64, id_base, room, stuck;
/* What is sent is send_head, the message where send_body is 1, and send_tail; what is expected likewise. */
static const char *send_head = "", *send_tail = "\n", *expect_head = "Received: ", *expect_tail = "\n";
static int send_body = 1, expect_body = 1;
static double rate = 1000, drain_seconds = 10;
static enum mode mode = CLOSED;

static int in_sessions(void) { return mode == CHURN || mode == ARRIVALS; }
static int on_schedule(void) { return mode == PACED || mode == ARRIVALS; }

static void set(const char *argument) {
    const char *value = strchr(argument, '=');
    if (!value++) { fprintf(stderr, "generator: expected key=value, got %s\n", argument); exit(2); }
#define KEY(name) (!strncmp(argument, name "=", sizeof name))
    if (KEY("host")) snprintf(host, sizeof host, "%s", value);
    else if (KEY("port")) port = atoi(value);
    else if (KEY("mode")) mode = !strcmp(value, "paced") ? PACED : !strcmp(value, "churn") ? CHURN :
                            !strcmp(value, "arrivals") ? ARRIVALS : CLOSED;
    else if (KEY("size")) size = strtoul(value, NULL, 10);
    else if (KEY("depth")) depth = strtoul(value, NULL, 10);
    else if (KEY("rate")) rate = strtod(value, NULL);
    else if (KEY("poisson")) poisson = atoi(value);
    else if (KEY("messages")) messages = strtoul(value, NULL, 10);
    else if (KEY("window")) window = strtoul(value, NULL, 10);
    else if (KEY("sources")) sources = strtoul(value, NULL, 10);
    else if (KEY("first_source")) first_source = strtoul(value, NULL, 10);
    else if (KEY("id_base")) id_base = strtoul(value, NULL, 10);
    else if (KEY("send_head")) send_head = value;
    else if (KEY("send_tail")) send_tail = value;
    else if (KEY("expect_head")) expect_head = value;
    else if (KEY("expect_tail")) expect_tail = value;
    else if (KEY("send_body")) send_body = atoi(value);
    else if (KEY("expect_body")) expect_body = atoi(value);
    else if (KEY("room")) room = strtoul(value, NULL, 10);
    else if (KEY("stuck")) stuck = strtoul(value, NULL, 10);
    else if (KEY("terminated")) exit_text[5] = atoi(value) ? '\n' : 0;   /* 0: /exit without LF */
    else if (KEY("drain")) drain_seconds = strtod(value, NULL);
    else if (KEY("tls")) tls = atoi(value);
    else if (KEY("tls_ca")) snprintf(tls_ca, sizeof tls_ca, "%s", value);
    else { fprintf(stderr, "generator: unknown argument %s\n", argument); exit(2); }
}

static void check_options(void) {
    if (size >= 1 && size <= 65536 && depth >= 1 && window >= 1 && sources >= 1) return;
    fprintf(stderr, "generator: size, depth, window or sources out of range\n");
    exit(2);
}
