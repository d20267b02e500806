/* Makes chosen system calls on chosen files fail; preloaded into a program by tests/ranks/failing_disk.rs.
 *
 * FAILING_CALL   open, read, pread or madvise
 * FAILING_ERRNO  the error's number; ESTALE holds for a file until it is opened again
 * FAILING_NAME   what the end of the file's path must be
 * FAILING_FROM   the first call that fails, from 1, counted over all processes
 * FAILING_TIMES  how many fail
 * FAILING_RANK   the only rank that is counted; empty: all
 * FAILING_COUNT  a file that holds one byte for each call so far
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define REAL(type, name) ((type)dlsym(RTLD_NEXT, name))
typedef int (*open_call)(const char *, int, ...);
typedef ssize_t (*read_call)(int, void *, size_t);
typedef ssize_t (*pread_call)(int, void *, size_t, off_t);
typedef int (*madvise_call)(void *, size_t, int);
typedef int (*close_call)(int);

#define FILES 4096
static atomic_char stale[FILES];

static const char *setting(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

static int is_this_rank(void) {
    const char *wanted = setting("FAILING_RANK"), *rank = getenv("OMPI_COMM_WORLD_RANK");
    if (!rank) rank = setting("PMI_RANK");
    return !*wanted || !strcmp(wanted, rank);
}

static int ends_with(const char *path, const char *end) {
    size_t length = strlen(path), wanted = strlen(end);
    return wanted && length >= wanted && !strcmp(path + length - wanted, end);
}

/* The number of this call: appending and telling the place is one step for the kernel. */
static long count(void) {
    int file = REAL(open_call, "open")(setting("FAILING_COUNT"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0 || write(file, "x", 1) != 1) abort();
    long number = lseek(file, 0, SEEK_CUR);
    REAL(close_call, "close")(file);
    return number;
}

static int fails(const char *call, const char *path) {
    if (strcmp(call, setting("FAILING_CALL")) || !ends_with(path, setting("FAILING_NAME")) || !is_this_rank()) return 0;
    long number = count(), from = atol(setting("FAILING_FROM"));
    if (number < from || number >= from + atol(setting("FAILING_TIMES"))) return 0;
    errno = atoi(setting("FAILING_ERRNO"));
    return 1;
}

static int fails_on(const char *call, int file) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0 || file >= FILES) return 0;
    path[length] = 0;
    if (stale[file]) {
        errno = ESTALE;
        return 1;
    }
    if (!fails(call, path)) return 0;
    stale[file] = errno == ESTALE;
    return 1;
}

static int opened(const char *name, const char *path, int flags, mode_t mode) {
    return fails("open", path) ? -1 : REAL(open_call, name)(path, flags, mode);
}

int open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = va_arg(more, mode_t);
    va_end(more);
    return opened("open", path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = va_arg(more, mode_t);
    va_end(more);
    return opened("open64", path, flags, mode);
}

int close(int file) {
    if (file >= 0 && file < FILES) stale[file] = 0;
    return REAL(close_call, "close")(file);
}

ssize_t read(int file, void *bytes, size_t length) {
    return fails_on("read", file) ? -1 : REAL(read_call, "read")(file, bytes, length);
}

ssize_t pread(int file, void *bytes, size_t length, off_t at) {
    return fails_on("pread", file) ? -1 : REAL(pread_call, "pread")(file, bytes, length, at);
}

ssize_t pread64(int file, void *bytes, size_t length, off_t at) {
    return fails_on("pread", file) ? -1 : REAL(pread_call, "pread64")(file, bytes, length, at);
}

/* Memory has no path here: FAILING_NAME stands for MADV_POPULATE_READ. */
int madvise(void *address, size_t length, int advice) {
    if (advice == 22 && fails("madvise", setting("FAILING_NAME"))) return -1;
    return REAL(madvise_call, "madvise")(address, length, advice);
}
