/* Very many TCP clients in one process, without a socket: their ends of the connections live here, 10 bytes each.
 *
 * Two sockets for each connection, the server's and the client's, would need more of the kernel's memory than a
 * test machine has for millions. So this program speaks TCP itself, on a TUN device: what the server sends to the
 * clients' addresses comes out of the device as IP packets, and what is written to it, the server receives. The server's
 * side is the kernel's and real in every respect. This side does as little as it may: one segment under way at a
 * time, no options but the MSS, every segment acknowledged at once, lost ones sent again after a second.
 *
 * Client i has address FIRST + i / PORTS and port 1024 + i % PORTS. Lines on standard input tell it what to do; the
 * answer is a line of JSON:
 *
 *   open N     connect N more clients and have a message of each confirmed, byte for byte
 *   again      have another message of each client confirmed
 *   broadcast SECONDS
 *              have client 0 send a message that begins with `!`: what follows the `!` must come to each client once,
 *              byte for byte, and the sender has a confirmation as well, before or after it. `ns` and `latency_us` (a
 *              histogram) run from the sending to each delivery. It ends when all have come, or SECONDS after the last
 *              one: then the others are `missing`, as are those of clients whose connections are lost. What comes
 *              twice is counted in `duplicates`, and as a `mismatch`
 *   reset      reset all connections
 *
 * Arguments: device server-address server-port first-client-address window. At most `window` clients wait for the
 * server at a time.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include "histogram.h"

#define PORTS 60000
#define FIRST_PORT 1024
#define MESSAGE 32               /* bytes, with LF */
#define PREFIX "Received: "
#define REPLY (MESSAGE + 10)
#define PUSH (MESSAGE - 1)       /* what is broadcast: a message without its first byte */
#define RESEND_NS 1000000000ull
#define RING (1 << 20)           /* segments that may be sent again, with those answered behind one that is not */
#define PACKETS 256              /* read before more are sent */
enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };
enum state { CLOSED, CONNECTING, WAITING, IDLE, FAILED };
/* What a client has had: so many bytes of the message that comes, whether that is a confirmation, and whether the
 * push of the latest broadcast is whole. */
enum { TAKEN = 63, CONFIRMATION = 64, DELIVERED = 128 };

typedef struct {
    uint8_t version, service;
    uint16_t length, id, fragment;
    uint8_t ttl, protocol;
    uint16_t check;
    uint32_t from, to;
    uint16_t source, target;     /* TCP from here */
    uint32_t sequence, acknowledged;
    uint8_t offset, flags;
    uint16_t window, tcp_check, urgent;
} packet;

static int device;
static uint32_t server, first, count, capacity, window;
static uint16_t server_port;
static uint32_t *expected;       /* the server's next byte */
static uint8_t *states, *had;
static uint32_t *confirmations;
static uint32_t next, under_way, limit, confirmed, resets, ended, mismatches, resent;
static struct { uint32_t client, confirmations; enum state state; uint64_t due; } waiting[RING];  /* in the order sent */
static uint32_t oldest, newest;
static uint32_t deliveries, duplicates, lacking;   /* of this broadcast; clients that are still to get it */
static char pushed[MESSAGE];     /* the latest broadcast is what follows the first byte, which is 0 until there is one */
static histogram latency;
static enum { NOTHING, OPENING, AGAIN, BROADCAST } task;
static uint64_t began, last_delivery, patience;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static uint32_t sum(uint32_t total, const void *data, int n) {
    const uint8_t *bytes = data;
    for (; n > 1; n -= 2, bytes += 2) total += bytes[0] << 8 | bytes[1];
    return n ? total + (bytes[0] << 8) : total;
}

static uint16_t fold(uint32_t total) {
    while (total >> 16) total = (total & 0xffff) + (total >> 16);
    return htons(~total & 0xffff);
}

static void put_message(char *text, uint32_t client, uint32_t number) {
    memset(text, 'm', MESSAGE - 1);
    text[MESSAGE - 1] = '\n';
    if (task == BROADCAST) *text = '!';
    for (uint64_t i = 1, digits = (uint64_t)client << 32 | number; i < 17; i++, digits >>= 4) text[i] = "0123456789abcdef"[digits & 15];
}

static void transmit(uint32_t client, uint8_t flags, uint32_t sequence, const char *data, int n) {
    static uint16_t id;
    char buffer[sizeof(packet) + 4 + MESSAGE];
    packet *p = (packet *)buffer;
    int header = sizeof(packet) + (flags & SYN ? 4 : 0);
    memset(buffer, 0, header);
    p->version = 0x45;
    p->length = htons(header + n);
    p->id = id++;
    p->fragment = htons(0x4000);
    p->ttl = 64;
    p->protocol = 6;
    p->from = htonl(first + client / PORTS);
    p->to = server;
    p->source = htons(FIRST_PORT + client % PORTS);
    p->target = server_port;
    p->sequence = htonl(sequence);
    p->acknowledged = flags & ACK ? htonl(expected[client]) : 0;
    p->offset = (header - 20) << 2;
    p->flags = flags;
    p->window = htons(65535);
    if (flags & SYN) memcpy(buffer + sizeof(packet), "\2\4\5\xb4", 4);   /* MSS 1460 */
    memcpy(buffer + header, data, n);
    p->check = fold(sum(0, buffer, 20));
    p->tcp_check = fold(sum(sum(6 + header - 20 + n, &p->from, 8), &p->source, header - 20 + n));
    while (write(device, buffer, header + n) < 0) {
        if (errno != EAGAIN && errno != ENOBUFS && errno != EINTR) { perror("many_connections: write"); exit(1); }
        poll(&(struct pollfd){.fd = device, .events = POLLOUT}, 1, 10);
    }
}

/* A client's sequence numbers follow from what it has had confirmed: each message is MESSAGE bytes. */
static uint32_t sequence(uint32_t client, uint32_t messages) {
    return client * 2654435761u + 1 + messages * MESSAGE;
}

static void send_due(uint32_t client) {
    char text[MESSAGE];
    uint32_t done = confirmations[client];
    if (states[client] == CONNECTING) transmit(client, SYN, sequence(client, 0) - 1, NULL, 0);
    else {
        put_message(text, client, done);
        transmit(client, ACK | PSH, sequence(client, done), text, MESSAGE);
    }
    waiting[newest].client = client;
    waiting[newest].confirmations = done;
    waiting[newest].state = states[client];
    waiting[newest].due = now_ns() + RESEND_NS;
    newest = (newest + 1) % RING;
}

static void acknowledge(uint32_t client) {
    uint32_t sent = confirmations[client] + (states[client] == WAITING);
    transmit(client, ACK, sequence(client, sent), NULL, 0);
}

static void fail(uint32_t client, uint32_t *counter) {
    ++*counter;
    if (states[client] == CONNECTING || states[client] == WAITING) under_way--;
    if (task == BROADCAST && !(had[client] & DELIVERED)) lacking--;
    states[client] = FAILED;
}

static void confirm(uint32_t client) {
    states[client] = IDLE;
    confirmations[client]++;
    confirmed++;
    under_way--;
}

static void deliver(uint32_t client) {
    if (had[client] & DELIVERED) {
        duplicates++;
        mismatches++;
        return;
    }
    had[client] |= DELIVERED;
    last_delivery = now_ns();
    record(&latency, last_delivery - began);
    deliveries++;
    lacking--;
}

/* Compare what has come with what is due. Several messages may come in one segment, and one in several. */
static void take(uint32_t client, const char *data, int n) {
    char reply[REPLY];
    while (n > 0) {
        int taken = had[client] & TAKEN;
        if (!taken) had[client] = (had[client] & DELIVERED) | (*data == *PREFIX ? CONFIRMATION : 0);
        int confirms = had[client] & CONFIRMATION, whole = confirms ? REPLY : PUSH;
        int part = n < whole - taken ? n : whole - taken;
        if (confirms) {
            memcpy(reply, PREFIX, REPLY - MESSAGE);
            put_message(reply + REPLY - MESSAGE, client, confirmations[client]);
        }
        const char *due = confirms ? reply : pushed + 1;
        if ((confirms ? states[client] != WAITING : !*pushed) || memcmp(data, due + taken, part)) {
            fail(client, &mismatches);
            return;
        }
        data += part;
        n -= part;
        had[client] += part;
        if (taken + part < whole) return;
        had[client] &= DELIVERED;
        if (confirms) confirm(client);
        else deliver(client);
    }
}

static void receive(const char *data, int n) {
    const packet *p = (const packet *)data;
    if (n < (int)sizeof *p || p->version != 0x45 || p->protocol != 6 || p->source != server_port) return;
    uint64_t client = (uint64_t)(ntohl(p->to) - first) * PORTS + ntohs(p->target) - FIRST_PORT;
    if (client >= count || ntohs(p->target) < FIRST_PORT || states[client] == CLOSED || states[client] == FAILED) return;
    int header = 20 + (p->offset >> 4) * 4, size = ntohs(p->length) - header;
    uint32_t at = ntohl(p->sequence);
    if (p->flags & RST) { fail(client, &resets); return; }
    if (states[client] == CONNECTING) {
        if ((p->flags & (SYN | ACK)) != (SYN | ACK) || ntohl(p->acknowledged) != sequence(client, 0)) return;
        expected[client] = at + 1;
        states[client] = WAITING;
        send_due(client);
        return;
    }
    int64_t known = (int32_t)(expected[client] - at);
    /* One before it is missing, it was sent again, or is a probe whether this client is alive. */
    if (known < 0 || (known && known >= size) || p->flags & SYN) {
        acknowledge(client);
        return;
    }
    if (size > 0) {
        expected[client] = at + size;
        take(client, data + header + known, size - known);
        if (states[client] == FAILED) return;
        acknowledge(client);
    }
    if (p->flags & FIN) fail(client, &ended);
}

static void finish(const char *event) {
    uint64_t until = task == BROADCAST ? last_delivery : now_ns();
    printf("{\"event\": \"%s\", \"ns\": %llu, \"confirmed\": %u, ", event, (unsigned long long)(until - began), confirmed);
    printf("\"reset\": %u, \"ended\": %u, \"mismatch\": %u, \"duplicates\": %u, \"resent\": %u", resets, ended, mismatches, duplicates, resent);
    if (task == BROADCAST) {
        printf(", \"deliveries\": %u, \"missing\": %u", deliveries, count - deliveries);
        print_histogram("latency_us", &latency);
    }
    printf("}\n");
    fflush(stdout);
    confirmed = 0;
    task = NOTHING;
}

static void broadcast(uint64_t seconds) {
    memset(&latency, 0, sizeof latency);
    deliveries = lacking = 0;
    for (uint32_t client = 0; client < count; client++) {
        if (had[client] & TAKEN && states[client] == IDLE) fail(client, &mismatches);   /* of the broadcast before */
        had[client] = 0;
        lacking += states[client] == IDLE;
    }
    task = BROADCAST;
    patience = seconds * 1000000000ull;
    began = last_delivery = now_ns();
    if (!count || states[0] != IDLE) {   /* nobody is there to send it */
        lacking = 0;
        return;
    }
    put_message(pushed, 0, confirmations[0]);
    states[0] = WAITING;
    under_way++;
    send_due(0);
}

/* Send as many first messages as may be under way, and again what has not been answered for a second. */
static void go_on(void) {
    if (task == NOTHING) return;
    while (next < limit && under_way < window && (newest - oldest) % RING < RING - 2 * window) {
        uint32_t client = next++;
        if (task == AGAIN && states[client] != IDLE) continue;
        states[client] = task == OPENING ? CONNECTING : WAITING;
        under_way++;
        send_due(client);
    }
    for (uint64_t now = now_ns(); oldest != newest; oldest = (oldest + 1) % RING) {
        uint32_t client = waiting[oldest].client;
        if (states[client] != waiting[oldest].state || confirmations[client] != waiting[oldest].confirmations) continue;
        if (waiting[oldest].due > now) break;
        resent++;
        send_due(client);
    }
    if (task == BROADCAST) {
        if (!(lacking || under_way) || now_ns() - last_delivery > patience) finish("delivered");
    } else if (next == limit && !under_way) finish(task == OPENING ? "opened" : "done");
}

static void reset_all(void) {
    for (uint32_t client = 0; client < count; client++) {
        if (states[client] < CONNECTING || states[client] > IDLE) continue;
        transmit(client, RST | ACK, sequence(client, confirmations[client] + (states[client] == WAITING)), NULL, 0);
        states[client] = CLOSED;
    }
    finish("reset");
}

static void command(char *line) {
    unsigned more;
    if (task != NOTHING) return;
    began = now_ns();
    if (sscanf(line, "open %u", &more) == 1) {
        limit = count + more;
        if (limit > capacity) {
            expected = realloc(expected, limit * sizeof *expected);
            confirmations = realloc(confirmations, limit * sizeof *confirmations);
            states = realloc(states, limit);
            had = realloc(had, limit);
            if (!expected || !confirmations || !states || !had) { fprintf(stderr, "many_connections: out of memory\n"); exit(1); }
            memset(confirmations + capacity, 0, (limit - capacity) * sizeof *confirmations);
            memset(states + capacity, CLOSED, limit - capacity);
            memset(had + capacity, 0, limit - capacity);
            capacity = limit;
        }
        next = count;
        count = limit;
        task = OPENING;
    } else if (!strcmp(line, "again")) next = 0, limit = count, task = AGAIN;
    else if (sscanf(line, "broadcast %u", &more) == 1) broadcast(more);
    else if (!strcmp(line, "reset")) reset_all();
}

int main(int argc, char **argv) {
    if (argc != 6) { fprintf(stderr, "usage: many_connections DEVICE SERVER PORT FIRST-CLIENT WINDOW\n"); return 2; }
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    snprintf(request.ifr_name, IFNAMSIZ, "%s", argv[1]);
    device = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
    if (device < 0 || ioctl(device, TUNSETIFF, &request) < 0) { perror("many_connections: /dev/net/tun"); return 1; }
    server = inet_addr(argv[2]);
    server_port = htons(atoi(argv[3]));
    first = ntohl(inet_addr(argv[4]));
    window = atoi(argv[5]);
    if (window < 1 || window > RING / 4) { fprintf(stderr, "many_connections: window out of range\n"); return 2; }
    static char line[4096], data[65536];
    size_t filled = 0;
    setpriority(PRIO_PROCESS, 0, -20);   /* it stands for the network: hundreds of workers must not make packets wait */
    printf("{\"event\": \"ready\"}\n");
    fflush(stdout);
    for (;;) {
        struct pollfd polled[] = {{.fd = device, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
        poll(polled, 2, task == NOTHING ? 1000 : 50);
        for (int i = 0; i < PACKETS; i++) {
            ssize_t n = read(device, data, sizeof data);
            if (n <= 0) break;
            receive(data, n);
        }
        if (polled[1].revents) {
            ssize_t n = read(0, line + filled, sizeof line - filled - 1);
            if (n <= 0) return 0;
            line[filled += n] = 0;
            for (char *end; (end = strchr(line, '\n')); memmove(line, end + 1, filled + 1)) {
                *end = 0;
                filled -= end + 1 - line;
                command(line);
            }
        }
        go_on();
    }
}
