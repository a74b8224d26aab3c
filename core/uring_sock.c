/* core/uring_sock.c - addresses and plain sockets: what of the seam needs no ring.
 *
 * Listening sockets carry the options that their connections inherit, so that none of these costs a
 * call of its own later.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/err.h"
#include "core/uring.h"

#define LISTEN_BACKLOG 65535

static int parse_port(const char *text, uint16_t *ret_port)
{
    char *end;
    unsigned long port = strtoul(text, &end, 10);

    if (*text < '0' || *text > '9' || *end != '\0' || port > 65535)
        return RH_EINVAL;
    *ret_port = htons((uint16_t)port);
    return RH_OK;
}

int rh_addr_parse(const char *text, struct rh_addr *ret_addr)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)&ret_addr->at;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&ret_addr->at;
    const char *colon = strrchr(text, ':');
    char host[INET6_ADDRSTRLEN];
    size_t len = colon ? (size_t)(colon - text) : 0;
    bool six = len > 2 && text[0] == '[' && text[len - 1] == ']';

    memset(ret_addr, 0, sizeof(*ret_addr));
    if (six) {
        text++;
        len -= 2;
    }
    if (len == 0 || len >= sizeof(host))
        return RH_EINVAL;
    memcpy(host, text, len);
    host[len] = '\0';
    if (six) {
        v6->sin6_family = AF_INET6;
        ret_addr->len = sizeof(*v6);
        return inet_pton(AF_INET6, host, &v6->sin6_addr) == 1
                   ? parse_port(colon + 1, &v6->sin6_port)
                   : RH_EINVAL;
    }
    v4->sin_family = AF_INET;
    ret_addr->len = sizeof(*v4);
    return inet_pton(AF_INET, host, &v4->sin_addr) == 1 ? parse_port(colon + 1, &v4->sin_port)
                                                        : RH_EINVAL;
}

void rh_addr_print(const struct rh_addr *addr, char dst[RH_ADDR_TEXT])
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&addr->at;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&addr->at;
    char host[INET6_ADDRSTRLEN] = "?";

    if (addr->at.ss_family == AF_INET6) {
        inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host));
        snprintf(dst, RH_ADDR_TEXT, "[%s]:%u", host, ntohs(v6->sin6_port));
        return;
    }
    if (addr->at.ss_family == AF_INET)
        inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host));
    snprintf(dst, RH_ADDR_TEXT, "%s:%u", host, ntohs(v4->sin_port));
}

bool rh_addr_loopback(const struct rh_addr *addr)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&addr->at;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&addr->at;

    if (addr->at.ss_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
    return addr->at.ss_family == AF_INET && (ntohl(v4->sin_addr.s_addr) >> 24) == 127;
}

static void set_option(int fd, int level, int option, int value)
{
    /* What an old kernel does not know is left out: all of these only improve. */
    (void)!setsockopt(fd, level, option, &value, sizeof(value));
}

/* Accepted connections inherit these, so that none costs a call of its own. */
static void set_inherited(int fd)
{
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 120);
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 30);
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 4);
}

static int bind_fault(struct rh_fault *fault, const char *what, const struct rh_addr *addr, int err)
{
    char text[RH_ADDR_TEXT];

    rh_addr_print(addr, text);
    if (err == EADDRINUSE)
        return rh_fault_set(fault, RH_EADDRINUSE,
                            "%s is in use by another process: stop it, or listen elsewhere "
                            "(--listen 127.0.0.1:PORT)",
                            text);
    return rh_fault_set(fault, RH_EIO, "cannot %s %s: %s", what, text, strerror(err));
}

/* Another process's SO_REUSEPORT socket of the same user would share the port with us unnoticed;
 * binding once without the option finds it. */
static int probe_port(const struct rh_addr *addr, struct rh_fault *fault)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&addr->at;
    int fd, rc = RH_OK;

    if (v4->sin_port == 0)
        return RH_OK;
    fd = socket(addr->at.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return bind_fault(fault, "open a socket for", addr, errno);
    set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (addr->at.ss_family == AF_INET6)
        set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    if (bind(fd, (const struct sockaddr *)&addr->at, addr->len) < 0)
        rc = bind_fault(fault, "listen on", addr, errno);
    close(fd);
    return rc;
}

int rh_sock_listen(struct rh_addr *addr, bool probe, int *ret_fd, struct rh_fault *fault)
{
    int rc = probe ? probe_port(addr, fault) : RH_OK;
    int fd;

    if (rc < 0)
        return rc;
    fd = socket(addr->at.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return bind_fault(fault, "open a socket for", addr, errno);
    set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (addr->at.ss_family == AF_INET6)
        set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    set_inherited(fd);
    if (bind(fd, (struct sockaddr *)&addr->at, addr->len) < 0 || listen(fd, LISTEN_BACKLOG) < 0) {
        rc = bind_fault(fault, "listen on", addr, errno);
        close(fd);
        return rc;
    }
    addr->len = sizeof(addr->at);
    getsockname(fd, (struct sockaddr *)&addr->at, &addr->len);
    *ret_fd = fd;
    return RH_OK;
}

int rh_sock_client(int family, const struct rh_addr *source, int *ret_fd, struct rh_fault *fault)
{
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return rh_fault_set(fault, RH_EIO, "cannot open a socket: %s", strerror(errno));
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (source) {
        set_option(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
        if (bind(fd, (const struct sockaddr *)&source->at, source->len) < 0) {
            int rc = bind_fault(fault, "bind to", source, errno);

            close(fd);
            return rc;
        }
    }
    *ret_fd = fd;
    return RH_OK;
}

void rh_sock_close(int fd)
{
    close(fd);
}
