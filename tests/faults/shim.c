/* Loaded before libc (LD_PRELOAD) into a daemon under test: makes its disk and its clock fail as a control file says.
 *
 * INSPECTOR_TEST_CONTROL names a folder; its file `disk` holds `fsync ERRNO`, `once ERRNO` (a sync), `write ERRNO` or `slow MILLISECONDS`, its file `clock` how
 * many seconds UTC is off. Only files whose name holds "journal" are touched. Read again at most every 20 ms.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static char what[16];
static long number;
static double off_s;
static long long read_ns;

static int real_clock(clockid_t id, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    return real(id, t);
}

static void look(void) {
    const char *folder = getenv("INSPECTOR_TEST_CONTROL");
    struct timespec t;
    char path[1024], text[64];
    real_clock(CLOCK_MONOTONIC, &t);
    long long now = t.tv_sec * 1000000000LL + t.tv_nsec;
    if (!folder || now - read_ns < 20000000) return;
    read_ns = now;
    int kept = errno;
    snprintf(path, sizeof path, "%s/disk", folder);
    FILE *file = fopen(path, "r");
    what[0] = 0;
    if (file) {
        if (fscanf(file, "%15s %ld", what, &number) != 2) what[0] = 0;
        fclose(file);
    }
    snprintf(path, sizeof path, "%s/clock", folder);
    file = fopen(path, "r");
    off_s = 0;
    if (file) {
        if (fgets(text, sizeof text, file)) off_s = atof(text);
        fclose(file);
    }
    errno = kept;
}

static int is_journal(int fd) {
    char link[64], path[1024];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    return strstr(path, "journal") != NULL;
}

static int fails(const char *name, int fd) {
    look();
    int once = !strcmp(what, "once") && !strcmp(name, "fsync");
    if ((!once && strcmp(what, name)) || !is_journal(fd)) return 0;
    if (once) {
        char path[1024];
        snprintf(path, sizeof path, "%s/disk", getenv("INSPECTOR_TEST_CONTROL"));
        unlink(path);
        what[0] = 0;
    }
    errno = (int)number;
    return 1;
}

static void wait_for_disk(int fd) {
    look();
    if (strcmp(what, "slow") || !is_journal(fd)) return;
    struct timespec t = {number / 1000, number % 1000 * 1000000};
    nanosleep(&t, NULL);
}

#define SYNC(name)                                                                \
    int name(int fd) {                                                            \
        static int (*real)(int);                                                  \
        if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, #name);                  \
        wait_for_disk(fd);                                                        \
        return fails("fsync", fd) ? -1 : real(fd);                                \
    }
SYNC(fsync)
SYNC(fdatasync)

#define WRITE(name, more, ...)                                                    \
    ssize_t name(int fd, const void *data, size_t n more) {                       \
        static ssize_t (*real)(int, const void *, size_t, ...);                   \
        if (!real) real = (ssize_t(*)(int, const void *, size_t, ...))dlsym(RTLD_NEXT, #name); \
        return fails("write", fd) ? -1 : real(fd, data, n __VA_ARGS__);           \
    }
#define COMMA ,
WRITE(write, , )
WRITE(pwrite, COMMA off_t at, COMMA at)
WRITE(pwrite64, COMMA off64_t at, COMMA at)

int clock_gettime(clockid_t id, struct timespec *t) {
    int found = real_clock(id, t);
    if (id == CLOCK_REALTIME && !found) {
        look();
        t->tv_sec += (time_t)off_s;
    }
    return found;
}
