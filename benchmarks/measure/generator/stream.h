/* A non-blocking connection, plain or TLS. With TLS, built only where OpenSSL's headers are, `get` and
 * `put` return what recv(2) and send(2) would: -1 with EAGAIN where the other side must act first. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#ifdef WITH_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
static SSL_CTX *tls_context;
#endif

typedef struct {
    int fd;
#ifdef WITH_TLS
    SSL *ssl;
#endif
} stream;

/* Begin to connect; `source` n binds to 127.0.0.n first, 0 leaves the address to the kernel. */
static int stream_connect(stream *s, const char *host, int port, uint32_t source) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1;
    inet_pton(AF_INET, host, &to.sin_addr);
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s->fd < 0) return -1;
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (source) {   /* the port is chosen by connect: each pair of addresses has the whole range of ports */
        struct sockaddr_in from = {.sin_family = AF_INET};
        from.sin_addr.s_addr = htonl(INADDR_LOOPBACK - 1 + source);
        setsockopt(s->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (bind(s->fd, (struct sockaddr *)&from, sizeof from) < 0) return -1;
    }
    return connect(s->fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS ? -1 : 0;
}

static void stream_close(stream *s) {
#ifdef WITH_TLS
    if (s->ssl) SSL_free(s->ssl), s->ssl = NULL;
#endif
    if (s->fd >= 0) close(s->fd);
    s->fd = -1;
}

#ifdef WITH_TLS
static int tls_error(stream *s, int result) {
    int error = SSL_get_error(s->ssl, result);
    ERR_clear_error();
    errno = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? EAGAIN : ECONNRESET;
    return error == SSL_ERROR_ZERO_RETURN ? 0 : -1;
}

static void tls_prepare(const char *ca) {
    tls_context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    if (!*ca) return;
    if (!SSL_CTX_load_verify_locations(tls_context, ca, NULL)) {
        fprintf(stderr, "generator: cannot read %s\n", ca);
        exit(2);
    }
    SSL_CTX_set_verify(tls_context, SSL_VERIFY_PEER, NULL);
}
#endif

/* After connect: 1 once the stream can be used, 0 while TLS still shakes hands, -1 if it failed. */
static int stream_handshake(stream *s, int tls) {
#ifdef WITH_TLS
    if (tls && !s->ssl) {
        s->ssl = SSL_new(tls_context);
        SSL_set_fd(s->ssl, s->fd);
        SSL_set_connect_state(s->ssl);
    }
    if (s->ssl) {
        int result = SSL_do_handshake(s->ssl);
        if (result == 1) return 1;
        return tls_error(s, result) < 0 && errno == EAGAIN ? 0 : -1;
    }
#else
    (void)s, (void)tls;
#endif
    return 1;
}

static ssize_t stream_put(stream *s, const char *data, size_t n) {
#ifdef WITH_TLS
    if (s->ssl) {
        int result = SSL_write(s->ssl, data, n);
        return result > 0 ? result : tls_error(s, result);
    }
#endif
    return send(s->fd, data, n, MSG_NOSIGNAL);
}

static ssize_t stream_get(stream *s, char *data, size_t n) {
#ifdef WITH_TLS
    if (s->ssl) {
        int result = SSL_read(s->ssl, data, n);
        return result > 0 ? result : tls_error(s, result);
    }
#endif
    return recv(s->fd, data, n, 0);
}

/* Whether a read that took less than was asked for leaves nothing behind: TLS may hold more. */
static int stream_short_read_is_all(const stream *s) {
#ifdef WITH_TLS
    return !s->ssl;
#else
    (void)s;
    return 1;
#endif
}
