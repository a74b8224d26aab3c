/* tests/core/test_uring_check.c - where a ring cannot be had, in words; addresses, plain sockets.
 *
 * What forbids io_uring elsewhere is made here by hand: a seccomp filter as container runtimes
 * have one, limits, an exhausted descriptor table. Check gives each test a process of its own, so
 * a filter or a lost privilege ends with it; the machine's own settings stay as they are.
 */
#include "core/uring.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base.h"
#include "core/mem.h"
#include "tests/rh_test.h"

#define NOBODY 65534

static const struct rh_uring_opts small = {8, 16, 4, 64, 0};

static unsigned descriptors(void)
{
    unsigned count = 0;

    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

#define LAST_DESCRIPTOR 63

/* Takes all descriptors up to the last one, and allows no more. */
static void exhaust_descriptors(void)
{
    struct rlimit limit;
    int fd;

    RH_EQ_INT(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = LAST_DESCRIPTOR + 1;
    RH_EQ_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
    do
        fd = dup(STDERR_FILENO);
    while (fd >= 0);
    RH_EQ_INT(errno, EMFILE);
}

static void expect_words(const struct rh_fault *fault, const char *words)
{
    if (!strstr(fault->text, words) || strchr(fault->text, '\n'))
        RH_FAIL("no \"%s\" in \"%s\"", words, fault->text);
}

/* ---- the self-test ---- */

RH_TEST(uring_check, the_self_test_passes_here_and_leaves_nothing)
{
    unsigned before = descriptors();
    struct rh_fault fault = {""};

    for (unsigned i = 0; i < 20; i++)
        if (rh_uring_selftest(&fault) != RH_OK)
            RH_FAIL("%s", fault.text);
    RH_EQ_STR(fault.text, "");
    RH_EQ_INT(rh_uring_selftest(NULL), RH_OK);
    RH_EQ_INT(descriptors(), before);
}

static void *selftest_on_thread(void *arg)
{
    *(int *)arg = rh_uring_selftest(NULL);
    return NULL;
}

RH_TEST(uring_check, the_self_test_runs_on_any_thread)
{
    for (unsigned i = 0; i < 4; i++) {
        pthread_t thread;
        int rc = 1;

        RH_EQ_INT(pthread_create(&thread, NULL, selftest_on_thread, &rc), 0);
        pthread_join(thread, NULL);
        RH_EQ_INT(rc, RH_OK);
    }
}

/* From now on the system call `nr` fails with `err` in this process. */
static void forbid(int nr, unsigned err)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)nr, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | err),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {RH_COUNT(code), code};

    RH_EQ_INT(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    RH_EQ_INT(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter), 0);
}

static void expect_forbidden(int nr, unsigned err)
{
    unsigned before = descriptors();
    struct rh_fault fault = {""};

    forbid(nr, err);
    RH_EQ_INT(rh_uring_selftest(&fault), RH_EUNSUPPORTED);
    if (err == ENOSYS) {
        expect_words(&fault, "no io_uring");
        expect_words(&fault, "Linux 6.1");
    } else {
        expect_words(&fault, "a seccomp filter forbids io_uring");
        expect_words(&fault, "io_uring_setup, io_uring_enter and io_uring_register");
    }
    RH_EQ_INT(descriptors(), before);
}

RH_TEST(uring_check, a_filter_that_forbids_setup_is_explained)
{
    expect_forbidden(SYS_io_uring_setup, EPERM);
}

RH_TEST(uring_check, a_filter_that_hides_setup_is_explained)
{
    expect_forbidden(SYS_io_uring_setup, ENOSYS);
}

RH_TEST(uring_check, a_filter_that_allows_setup_but_forbids_enter_is_explained)
{
    expect_forbidden(SYS_io_uring_enter, EPERM);
}

RH_TEST(uring_check, a_filter_that_allows_setup_but_hides_enter_is_explained)
{
    expect_forbidden(SYS_io_uring_enter, ENOSYS);
}

RH_TEST(uring_check, a_filter_that_allows_setup_but_forbids_register_is_explained)
{
    expect_forbidden(SYS_io_uring_register, EPERM);
}

RH_TEST(uring_check, a_filter_that_allows_setup_but_hides_register_is_explained)
{
    expect_forbidden(SYS_io_uring_register, ENOSYS);
}

RH_TEST(uring_check, another_refusal_is_told_by_its_name)
{
    struct rh_fault fault;

    forbid(SYS_io_uring_setup, ENXIO);
    RH_EQ_INT(rh_uring_selftest(&fault), RH_EIO);
    expect_words(&fault, strerror(ENXIO));
}

RH_TEST(uring_check, an_old_kernel_is_named)
{
    struct rh_fault fault;
    struct utsname host;

    forbid(SYS_io_uring_setup, EINVAL); /* what one says that does not know the flags */
    RH_EQ_INT(rh_uring_selftest(&fault), RH_EUNSUPPORTED);
    uname(&host);
    expect_words(&fault, "too old");
    expect_words(&fault, host.release);
}

RH_TEST(uring_check, without_descriptors_each_step_says_so)
{
    unsigned used, left = 0;
    struct rh_fault fault;
    int rc;

    exhaust_descriptors();
    used = descriptors();
    while ((rc = rh_uring_selftest(&fault)) != RH_OK) {
        RH_EQ_INT(rc, RH_EIO);
        expect_words(&fault, "no file descriptor left");
        RH_EQ_INT(descriptors(), used - left);
        close(LAST_DESCRIPTOR - (int)left++);
        RH_OK_IF(left < 8);
    }
    RH_EQ_INT(left, 4); /* a ring, an eventfd, a pair of sockets */
}

/* ---- creating ---- */

RH_TEST(uring_check, create_explains_a_filter_as_the_self_test_does)
{
    struct rh_uring *u = NULL;
    unsigned before = descriptors();
    struct rh_fault fault;

    forbid(SYS_io_uring_register, EPERM);
    RH_EQ_INT(rh_uring_create(&small, &u, &fault), RH_EUNSUPPORTED);
    expect_words(&fault, "a seccomp filter");
    forbid(SYS_io_uring_setup, ENOSYS);
    RH_EQ_INT(rh_uring_create(&small, &u, &fault), RH_EUNSUPPORTED);
    expect_words(&fault, "no io_uring");
    RH_OK_IF(!u);
    RH_EQ_INT(descriptors(), before);
}

RH_TEST(uring_check, a_ring_that_the_kernel_refuses_to_run_is_eio)
{
    struct rh_uring *u;

    RH_EQ_INT(rh_uring_create(&small, &u, NULL), RH_OK);
    RH_EQ_INT(rh_uring_enter(u, 0), RH_OK);
    forbid(SYS_io_uring_enter, EPERM);
    RH_EQ_INT(rh_uring_enter(u, 0), RH_EIO);
    rh_uring_destroy(u);
}

static void create_once(void *arg)
{
    struct rh_uring *u = arg;
    unsigned before = descriptors();
    struct rh_fault fault = {""};
    int rc = rh_uring_create(&small, &u, &fault);

    if (rc < 0) {
        RH_EQ_INT(rc, RH_ENOMEM);
        expect_words(&fault, "memory");
        RH_OK_IF(u == arg);
    } else {
        rh_uring_destroy(u);
    }
    RH_EQ_INT(descriptors(), before);
}

RH_TEST(uring_check, create_without_memory_leaves_nothing)
{
    rh_test_fail_each_alloc(create_once, NULL);
    rh_uring_destroy(NULL);
}

RH_TEST(uring_check, create_without_descriptors_leaves_nothing)
{
    struct rh_uring *u = NULL;
    struct rh_fault fault;
    unsigned before;

    exhaust_descriptors();
    before = descriptors();
    RH_EQ_INT(rh_uring_create(&small, &u, &fault), RH_EIO);
    expect_words(&fault, "no file descriptor left");
    close(LAST_DESCRIPTOR); /* one for the ring, none for its wake-up */
    RH_EQ_INT(rh_uring_create(&small, &u, &fault), RH_EIO);
    expect_words(&fault, "no file descriptor left");
    RH_EQ_INT(descriptors(), before - 1);
    close(LAST_DESCRIPTOR - 1);
    RH_EQ_INT(rh_uring_create(&small, &u, &fault), RH_OK);
    rh_uring_destroy(u);
    RH_EQ_INT(descriptors(), before - 2);
}

/* Lowers the limit of lockable memory, and the rank: only without privileges it counts. */
static bool become_nobody(rlim_t memlock)
{
    struct rlimit limit = {memlock, memlock};

    if (geteuid() != 0) {
        printf("# not run: needs root, to become a user with a small limit\n");
        return false;
    }
    RH_EQ_INT(setrlimit(RLIMIT_MEMLOCK, &limit), 0);
    RH_EQ_INT(setresgid(NOBODY, NOBODY, NOBODY), 0);
    RH_EQ_INT(setresuid(NOBODY, NOBODY, NOBODY), 0);
    RH_EQ_INT(prctl(PR_SET_DUMPABLE, 1), 0); /* the leak check looks at its own process */
    return true;
}

/* Since 6.14 (and before 5.12) rings count as locked memory. */
static bool rings_are_locked_memory(void)
{
    struct utsname host;
    unsigned major = 0, minor = 0;

    uname(&host);
    RH_EQ_INT(sscanf(host.release, "%u.%u", &major, &minor), 2);
    return major > 6 || (major == 6 && minor >= 14);
}

RH_TEST(uring_check, too_little_lockable_memory_is_told_with_limit_and_need)
{
    static const struct rh_uring_opts large = {4096, 65536, 4096, 64, 0};
    struct rh_uring *u = NULL;
    struct rh_fault fault;
    unsigned before;

    if (!become_nobody(64 * 1024))
        return;
    if (!rings_are_locked_memory()) {
        printf("# not run: this kernel does not count rings as locked memory\n");
        return;
    }
    before = descriptors();
    RH_EQ_INT(rh_uring_create(&large, &u, &fault), RH_ENOMEM);
    expect_words(&fault, "RLIMIT_MEMLOCK is 64 KiB");
    expect_words(&fault, "needs about 1345 KiB"); /* 64 * 4096 + 16 * 65536 + 16 * 4096 bytes */
    expect_words(&fault, "LimitMEMLOCK=infinity");
    RH_OK_IF(!u);
    RH_EQ_INT(descriptors(), before);
}

RH_TEST(uring_check, the_self_test_needs_no_privileges)
{
    struct rh_fault fault;

    if (!become_nobody(8 << 20)) /* what distributions give */
        return;
    if (rh_uring_selftest(&fault) != RH_OK)
        RH_FAIL("%s", fault.text);
}

/* ---- direct descriptors ---- */

RH_TEST(uring_check, direct_descriptors_work_here_and_the_test_leaves_nothing)
{
    unsigned before = descriptors();
    struct rh_fault fault = {""};

    for (unsigned i = 0; i < 20; i++)
        if (rh_uring_selftest_direct(&fault) != RH_OK)
            RH_FAIL("%s", fault.text);
    RH_EQ_STR(fault.text, "");
    RH_EQ_INT(descriptors(), before);
}

RH_TEST(uring_check, a_kernel_without_direct_descriptors_is_explained)
{
    unsigned before = descriptors();
    struct rh_fault fault = {""};

    forbid(SYS_io_uring_register, EINVAL);
    RH_EQ_INT(rh_uring_selftest_direct(&fault), RH_EUNSUPPORTED);
    expect_words(&fault, "cannot have a table of descriptors");
    expect_words(&fault, "6.8 or newer is needed, or io.descriptors: ordinary");
    RH_EQ_INT(descriptors(), before);
}

RH_TEST(uring_check, a_lack_of_descriptors_is_no_lack_of_the_kernels)
{
    struct rh_fault fault = {""};

    exhaust_descriptors();
    for (int fd = LAST_DESCRIPTOR; fd > LAST_DESCRIPTOR - 5; fd--) {
        RH_EQ_INT(rh_uring_selftest_direct(&fault), RH_EIO);
        expect_words(&fault, "no file descriptor left");
        close(fd);
    }
    RH_EQ_INT(rh_uring_selftest_direct(&fault), RH_OK);
}

RH_TEST(uring_check, a_table_above_the_limit_of_descriptors_is_refused)
{
    struct rh_uring_opts opts = {8, 16, 4, 64, 128};
    struct rh_fault fault = {""};
    struct rlimit limit = {100, 100};
    struct rh_uring *ring = NULL;
    unsigned before = descriptors();

    RH_EQ_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
    RH_EQ_INT(rh_uring_create(&opts, &ring, &fault), RH_EIO);
    expect_words(&fault, "no file descriptor left");
    RH_EQ_INT(descriptors(), before);
    opts.files = 100;
    RH_EQ_INT(rh_uring_create(&opts, &ring, &fault), RH_OK);
    rh_uring_destroy(ring);
}

/* ---- addresses ---- */

RH_TEST(uring_addr, good_texts_are_read_and_printed_the_same)
{
    static const struct {
        const char *text;
        bool loopback;
    } cases[] = {
        {"127.0.0.1:8080", true},
        {"127.255.255.255:1", true},
        {"0.0.0.0:0", false},
        {"128.0.0.1:80", false},
        {"126.255.255.255:80", false},
        {"255.255.255.255:65535", false},
        {"10.1.2.3:443", false},
        {"[::1]:8080", true},
        {"[::]:0", false},
        {"[::2]:80", false},
        {"[2001:db8::1]:65535", false},
        {"[1:2:3:4:5:6:7:8]:9", false},
        {"[fe80::1:2:3:4]:80", false},
        {"[::ffff:10.1.2.3]:80", false},
        {"[1111:2222:3333:4444:5555:6666:7777:8888]:65535", false},
    };

    for (unsigned i = 0; i < RH_COUNT(cases); i++) {
        struct rh_addr addr;
        char text[RH_ADDR_TEXT];

        memset(&addr, 0xff, sizeof(addr));
        RH_EQ_INT(rh_addr_parse(cases[i].text, &addr), RH_OK);
        RH_EQ_INT(addr.at.ss_family, *cases[i].text == '[' ? AF_INET6 : AF_INET);
        rh_addr_print(&addr, text);
        RH_EQ_STR(text, cases[i].text);
        RH_EQ_INT(rh_addr_loopback(&addr), cases[i].loopback);
    }
}

RH_TEST(uring_addr, bad_texts_are_refused)
{
    static const char *const texts[] = {
        "",
        ":",
        "127.0.0.1",
        "127.0.0.1:",
        ":8080",
        "8080",
        "localhost:8080",
        "127.0.0.1:65536",
        "127.0.0.1:99999999999999999999",
        "127.0.0.1:-1",
        "127.0.0.1:+1",
        "127.0.0.1: 1",
        "127.0.0.1:1 ",
        "127.0.0.1:0x10",
        "127.0.0.1:http",
        " 127.0.0.1:80",
        "127.0.0.1 :80",
        "127.0.0:80",
        "127.0.0.256:80",
        "127.0.0.1.1:80",
        "127.0.0.1:80:80",
        "[127.0.0.1]:80",
        "::1:80",
        "[::1]",
        "[::1]:",
        "[::1:80",
        "::1]:80",
        "[]:80",
        "[::1]80",
        "[::1]:65536",
        "[[::1]]:80",
        "[:::1]:80",
        "[::1%lo]:80",
        "[12345::]:80",
        "[1:2:3:4:5:6:7:8:9]:80",
        "[1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb]:80",
        "1111111111111111111111111111111111111111111111111111111111111:80",
    };

    for (unsigned i = 0; i < RH_COUNT(texts); i++) {
        struct rh_addr addr;
        const char *text = (char *)rh_guard(texts[i], strlen(texts[i]) + 1);

        if (rh_addr_parse(text, &addr) != RH_EINVAL)
            RH_FAIL("\"%s\" was read", text);
    }
}

RH_TEST(uring_addr, another_kind_of_address_is_printed_and_not_loopback)
{
    struct rh_addr addr = {.at.ss_family = AF_UNIX, .len = sizeof(addr.at)};
    char *text = (char *)rh_guard(NULL, RH_ADDR_TEXT);

    rh_addr_print(&addr, text);
    RH_OK_IF(memchr(text, '\0', RH_ADDR_TEXT));
    RH_OK_IF(!rh_addr_loopback(&addr));
}

/* ---- plain sockets ---- */

static struct rh_addr address(const char *text)
{
    struct rh_addr addr;

    RH_OK_IF(rh_addr_parse(text, &addr) == RH_OK);
    return addr;
}

static int listen_at(struct rh_addr *addr, bool probe)
{
    struct rh_fault fault;
    int fd = -1;

    if (rh_sock_listen(addr, probe, &fd, &fault) < 0)
        RH_FAIL("%s", fault.text);
    return fd;
}

static int connect_to(const struct rh_addr *addr)
{
    int fd;

    RH_OK_IF(rh_sock_client(addr->at.ss_family, NULL, &fd, NULL) == RH_OK);
    return connect(fd, (const struct sockaddr *)&addr->at, addr->len) < 0 ? -errno : fd;
}

RH_TEST(uring_sock, port_0_is_written_back)
{
    struct rh_addr addr = address("127.0.0.1:0"), bound = {.len = sizeof(bound.at)};
    char text[RH_ADDR_TEXT];
    int fd = listen_at(&addr, true), client;
    unsigned port = 0;

    rh_addr_print(&addr, text);
    RH_EQ_INT(sscanf(text, "127.0.0.1:%u", &port), 1);
    RH_OK_IF(port > 0);
    RH_EQ_INT(getsockname(fd, (struct sockaddr *)&bound.at, &bound.len), 0);
    RH_EQ_MEM(&bound.at, &addr.at, sizeof(struct sockaddr_in));
    client = connect_to(&addr);
    RH_OK_IF(client >= 0);
    rh_sock_close(client);
    rh_sock_close(fd);
    RH_EQ_INT(connect_to(&addr), -ECONNREFUSED);
}

RH_TEST(uring_sock, one_address_has_several_listeners_that_share_the_clients)
{
    enum { LISTENERS = 4, CLIENTS = 200 };
    struct rh_addr addr = address("127.0.0.1:0");
    int fds[LISTENERS];
    unsigned total = 0;

    for (unsigned i = 0; i < LISTENERS; i++) {
        fds[i] = listen_at(&addr, i == 0);
        RH_EQ_INT(fcntl(fds[i], F_SETFL, O_NONBLOCK), 0);
        RH_OK_IF(fcntl(fds[i], F_GETFD) & FD_CLOEXEC);
    }
    for (unsigned i = 0; i < CLIENTS; i++)
        RH_OK_IF(connect_to(&addr) >= 0);
    for (unsigned i = 0; i < LISTENERS; i++) {
        unsigned count = 0;

        while (accept(fds[i], NULL, NULL) >= 0)
            count++;
        RH_OK_IF(count > 0); /* none: a chance of less than 10^-24 */
        total += count;
    }
    RH_EQ_INT(total, CLIENTS);
}

/* Another process that listens on a port of its own, with or without SO_REUSEPORT. */
static pid_t other_process(bool shares, struct rh_addr *ret_addr)
{
    struct rh_addr addr = address("127.0.0.1:0");
    int told[2], fd;
    pid_t pid;

    RH_EQ_INT(pipe(told), 0);
    pid = fork();
    if (pid == 0) {
        fd = shares ? listen_at(&addr, true) : socket(AF_INET, SOCK_STREAM, 0);
        if (!shares) {
            RH_OK_IF(!bind(fd, (struct sockaddr *)&addr.at, addr.len) && !listen(fd, 1));
            RH_OK_IF(!getsockname(fd, (struct sockaddr *)&addr.at, &addr.len));
        }
        (void)!write(told[1], &addr, sizeof(addr));
        for (;;)
            pause();
    }
    RH_EQ_INT(read(told[0], ret_addr, sizeof(*ret_addr)), sizeof(*ret_addr));
    close(told[0]);
    close(told[1]);
    return pid;
}

static void expect_in_use(const struct rh_addr *at, bool probe)
{
    struct rh_addr addr = *at;
    char text[RH_ADDR_TEXT];
    struct rh_fault fault;
    int fd = -7;

    RH_EQ_INT(rh_sock_listen(&addr, probe, &fd, &fault), RH_EADDRINUSE);
    RH_EQ_INT(fd, -7);
    rh_addr_print(at, text);
    expect_words(&fault, text);
    expect_words(&fault, "is in use by another process");
    expect_words(&fault, "--listen");
}

RH_TEST(uring_sock, a_port_in_use_by_another_process_is_found_although_it_would_be_shared)
{
    struct rh_addr addr;
    unsigned before = descriptors();
    pid_t pid = other_process(true, &addr);
    int fd;

    expect_in_use(&addr, true);
    fd = listen_at(&addr, false); /* the kernel would not mind */
    rh_sock_close(fd);
    RH_EQ_INT(descriptors(), before);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    rh_sock_close(listen_at(&addr, true));
}

RH_TEST(uring_sock, a_port_in_use_by_one_that_does_not_share_is_found_without_a_probe)
{
    struct rh_addr addr;
    pid_t pid = other_process(false, &addr);

    expect_in_use(&addr, true);
    expect_in_use(&addr, false);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

RH_TEST(uring_sock, connections_of_an_earlier_run_do_not_hold_the_port)
{
    struct rh_addr addr = address("127.0.0.1:0");
    int fd = listen_at(&addr, true), client, served;
    char byte;

    client = connect_to(&addr);
    served = accept(fd, NULL, NULL);
    RH_OK_IF(client >= 0 && served >= 0);
    rh_sock_close(served); /* the side that closes first keeps the port for a minute */
    RH_EQ_INT(read(client, &byte, 1), 0);
    rh_sock_close(client);
    rh_sock_close(fd);
    rh_sock_close(listen_at(&addr, true));
}

RH_TEST(uring_sock, what_the_system_refuses_is_told_with_the_address)
{
    struct rh_addr addr = address("192.0.2.1:0"); /* a documentation address: never ours */
    struct rh_fault fault;
    unsigned before = descriptors();
    int fd = -7;

    RH_EQ_INT(rh_sock_listen(&addr, false, &fd, &fault), RH_EIO);
    expect_words(&fault, "cannot listen on 192.0.2.1:0: ");
    expect_words(&fault, strerror(EADDRNOTAVAIL));
    addr = address("192.0.2.1:8080");
    RH_EQ_INT(rh_sock_listen(&addr, true, &fd, &fault), RH_EIO);
    expect_words(&fault, "cannot listen on 192.0.2.1:8080: ");
    RH_EQ_INT(rh_sock_client(AF_INET, &addr, &fd, &fault), RH_EIO);
    expect_words(&fault, "cannot bind to 192.0.2.1:8080: ");
    RH_EQ_INT(descriptors(), before);
    exhaust_descriptors();
    RH_EQ_INT(rh_sock_listen(&addr, true, &fd, &fault), RH_EIO);
    expect_words(&fault, strerror(EMFILE));
    RH_EQ_INT(rh_sock_listen(&addr, false, &fd, &fault), RH_EIO);
    expect_words(&fault, strerror(EMFILE));
    RH_EQ_INT(rh_sock_client(AF_INET, NULL, &fd, &fault), RH_EIO);
    expect_words(&fault, strerror(EMFILE));
    RH_EQ_INT(fd, -7);
    RH_EQ_INT(rh_sock_listen(&addr, true, &fd, NULL), RH_EIO);
    for (int i = 0; i < 8; i++) /* the leak check at the end needs some */
        close(LAST_DESCRIPTOR - i);
}

RH_TEST(uring_sock, both_families_may_have_the_same_port)
{
    struct rh_addr six = address("[::]:0"), four = address("0.0.0.0:0"), loop;
    struct rh_fault fault;
    int fds[2], client;

    if (rh_sock_listen(&six, true, &fds[0], &fault) < 0) {
        printf("# not run: no IPv6 here (%s)\n", fault.text);
        return;
    }
    ((struct sockaddr_in *)&four.at)->sin_port = ((struct sockaddr_in6 *)&six.at)->sin6_port;
    fds[1] = listen_at(&four, true);
    expect_in_use(&six, true);
    loop = address("[::1]:0");
    ((struct sockaddr_in6 *)&loop.at)->sin6_port = ((struct sockaddr_in6 *)&six.at)->sin6_port;
    client = connect_to(&loop);
    RH_OK_IF(client >= 0);
    rh_sock_close(client);
    rh_sock_close(fds[0]);
    rh_sock_close(fds[1]);
}

RH_TEST(uring_sock, a_client_has_its_source_at_once_and_a_port_when_it_connects)
{
    struct rh_addr addr = address("127.0.0.1:0"), source = address("127.0.0.77:0");
    int fd = listen_at(&addr, true);

    for (unsigned i = 0; i < 20; i++) {
        struct rh_addr own = {.len = sizeof(own.at)};
        char text[RH_ADDR_TEXT];
        int client;

        RH_EQ_INT(rh_sock_client(AF_INET, &source, &client, NULL), RH_OK);
        RH_OK_IF(fcntl(client, F_GETFD) & FD_CLOEXEC);
        RH_EQ_INT(getsockname(client, (struct sockaddr *)&own.at, &own.len), 0);
        rh_addr_print(&own, text);
        RH_EQ_STR(text, "127.0.0.77:0"); /* so that ports are shared by destination */
        RH_EQ_INT(connect(client, (struct sockaddr *)&addr.at, addr.len), 0);
        RH_EQ_INT(getsockname(client, (struct sockaddr *)&own.at, &own.len), 0);
        rh_addr_print(&own, text);
        RH_EQ_MEM(text, "127.0.0.77:", 11);
        RH_OK_IF(strcmp(text, "127.0.0.77:0"));
    }
    rh_sock_close(fd);
}
