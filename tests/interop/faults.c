/* A disk and a resolver that fail on demand, and clocks that step, put before a program by LD_PRELOAD.
 *
 * RINGPROOF_FAULTS names a control file of `struct control`, which the program maps and a test writes to at any time
 * (faults/preload.py has the same layout). RINGPROOF_FAULTS_DIR is the folder whose files fail; no other file, pipe or
 * socket does. Without a control file every call goes through as it is. Nothing is allocated and nothing is locked.
 *
 *   cc -shared -fPIC -O2 -o faults.so faults.c -ldl
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum action { PASS = 0, FAIL = 1, SHORT = 2 };

/* What becomes of the calls of one kind. */
struct rule {
    _Atomic int64_t action;
    _Atomic int64_t error;  /* errno of a failure */
    _Atomic int64_t chance; /* of a million calls so many are hit */
    _Atomic int64_t left;   /* so many more are hit; -1: no end */
    _Atomic int64_t seen;   /* calls for files of the folder */
    _Atomic int64_t hits;   /* those of them that were hit */
};

struct control {
    struct rule write;        /* write, pwrite, writev, pwritev, ftruncate, fallocate */
    struct rule sync;         /* fsync, fdatasync */
    _Atomic int64_t lookups;  /* look-ups of `name` */
    _Atomic int64_t connects; /* connections to `first`, all refused here */
    _Atomic int64_t utc;      /* seconds by which the time of day is off */
    _Atomic int64_t leap;     /* seconds by which CLOCK_MONOTONIC is ahead */
    _Atomic int64_t reads;    /* times that a clock was read which may be off */
    char name[64];            /* every odd look-up of it has the address `first`, every even one `second` */
    char first[48];
    char second[48];
};

static struct control *control;
static char folder[4096];
static size_t folder_length;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("RINGPROOF_FAULTS");
    const char *below = getenv("RINGPROOF_FAULTS_DIR");
    if (!path || !below || strlen(below) >= sizeof folder)
        return;
    strcpy(folder, below);
    folder_length = strlen(folder);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    void *map = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map != MAP_FAILED)
        control = map;
}

static int is_below(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= (ssize_t)folder_length)
        return 0;
    return memcmp(path, folder, folder_length) == 0 && path[folder_length] == '/';
}

static int64_t random_million(void) {
    static _Thread_local uint64_t state;
    if (!state)
        state = (uint64_t)(uintptr_t)&state ^ ((uint64_t)getpid() << 32) ^ 0x9e3779b97f4a7c15u;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (int64_t)(state % 1000000);
}

/* What is to become of a call for `fd`. */
static enum action judge(struct rule *rule, int fd) {
    int saved = errno;
    int below = control && is_below(fd);
    errno = saved;
    if (!below)
        return PASS;
    atomic_fetch_add(&rule->seen, 1);
    enum action action = (enum action)atomic_load(&rule->action);
    if (action == PASS || random_million() >= atomic_load(&rule->chance))
        return PASS;
    int64_t left = atomic_load(&rule->left);
    do {
        if (left == 0)
            return PASS;
    } while (left > 0 && !atomic_compare_exchange_weak(&rule->left, &left, left - 1));
    atomic_fetch_add(&rule->hits, 1);
    errno = (int)atomic_load(&rule->error);
    return action;
}

static size_t shorter(enum action action, size_t size) {
    return action == SHORT && size > 1 ? size / 2 : size;
}

#define NEXT(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) \
    real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

ssize_t write(int fd, const void *data, size_t size) {
    NEXT(ssize_t, "write", int, const void *, size_t);
    enum action action = control ? judge(&control->write, fd) : PASS;
    return action == FAIL ? -1 : real(fd, data, shorter(action, size));
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    NEXT(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    enum action action = control ? judge(&control->write, fd) : PASS;
    return action == FAIL ? -1 : real(fd, data, shorter(action, size), at);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    return pwrite64(fd, data, size, at);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    NEXT(ssize_t, "writev", int, const struct iovec *, int);
    return control && judge(&control->write, fd) == FAIL ? -1 : real(fd, parts, count);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) {
    NEXT(ssize_t, "pwritev64", int, const struct iovec *, int, off64_t);
    return control && judge(&control->write, fd) == FAIL ? -1 : real(fd, parts, count, at);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
    return pwritev64(fd, parts, count, at);
}

int ftruncate64(int fd, off64_t size) {
    NEXT(int, "ftruncate64", int, off64_t);
    return control && judge(&control->write, fd) == FAIL ? -1 : real(fd, size);
}

int ftruncate(int fd, off_t size) {
    return ftruncate64(fd, size);
}

int fallocate64(int fd, int mode, off64_t at, off64_t size) {
    NEXT(int, "fallocate64", int, int, off64_t, off64_t);
    return control && judge(&control->write, fd) == FAIL ? -1 : real(fd, mode, at, size);
}

int fallocate(int fd, int mode, off_t at, off_t size) {
    return fallocate64(fd, mode, at, size);
}

/* Gives the error back instead of setting errno. */
int posix_fallocate64(int fd, off64_t at, off64_t size) {
    NEXT(int, "posix_fallocate64", int, off64_t, off64_t);
    return control && judge(&control->write, fd) == FAIL ? (int)atomic_load(&control->write.error) : real(fd, at, size);
}

int posix_fallocate(int fd, off_t at, off_t size) {
    return posix_fallocate64(fd, at, size);
}

int fsync(int fd) {
    NEXT(int, "fsync", int);
    return control && judge(&control->sync, fd) == FAIL ? -1 : real(fd);
}

int fdatasync(int fd) {
    NEXT(int, "fdatasync", int);
    return control && judge(&control->sync, fd) == FAIL ? -1 : real(fd);
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    NEXT(int, "getaddrinfo", const char *, const char *, const struct addrinfo *, struct addrinfo **);
    if (!control || !name || !control->name[0] || strcmp(name, control->name) != 0)
        return real(name, service, hints, found);
    int64_t before = atomic_fetch_add(&control->lookups, 1);
    return real(before % 2 == 0 ? control->first : control->second, service, hints, found);
}

/* The public address must not be reached from a test. */
int connect(int fd, const struct sockaddr *address, socklen_t length) {
    NEXT(int, "connect", int, const struct sockaddr *, socklen_t);
    int is_v4 = address && length >= sizeof(struct sockaddr_in) && address->sa_family == AF_INET;
    if (control && control->first[0] && is_v4) {
        char text[INET_ADDRSTRLEN];
        const struct sockaddr_in *there = (const struct sockaddr_in *)address;
        if (inet_ntop(AF_INET, &there->sin_addr, text, sizeof text) && strcmp(text, control->first) == 0) {
            atomic_fetch_add(&control->connects, 1);
            errno = ECONNREFUSED;
            return -1;
        }
    }
    return real(fd, address, length);
}

/* CLOCK_BOOTTIME is left alone: the program reads it past the C library, and no step of a clock touches it. */
int clock_gettime(clockid_t clock, struct timespec *time) {
    NEXT(int, "clock_gettime", clockid_t, struct timespec *);
    int done = real(clock, time);
    if (!control || done != 0)
        return done;
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)
        time->tv_sec += atomic_load(&control->utc);
    else if (clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE)
        time->tv_sec += atomic_load(&control->leap);
    else
        return done;
    atomic_fetch_add(&control->reads, 1);
    return done;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out)
        *out = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}

/* Rust waits for a moment of CLOCK_MONOTONIC as it reads it; the kernel has to be told the moment of its own. */
long syscall(long number, ...) {
    NEXT(long, "syscall", long, ...);
    va_list list;
    va_start(list, number);
    long a[6];
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(list, long);
    va_end(list);
    struct timespec own;
    int is_wait = number == SYS_futex && (a[1] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET;
    if (control && is_wait && !(a[1] & FUTEX_CLOCK_REALTIME) && a[3]) {
        own = *(const struct timespec *)a[3];
        own.tv_sec -= atomic_load(&control->leap);
        a[3] = (long)&own;
    }
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
