/* Counts the calls by which a process and its children change files in one folder, and at the k-th of them kills the
   process or has the call fail. Loaded before the C library (LD_PRELOAD); see system_calls.py, which sets its
   environment. Calls that the C library makes for itself are not seen: what fopen'ed streams write. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PROCEED = 0, TORN = -1 }; /* else the number of the error to fail with */

static char folder[PATH_MAX];
static size_t folder_length;
static _Atomic long *count; /* in a file that all processes share */
static long at, times;
static int failing, torn, with_reads, log_descriptor = -1;

static long number(const char *name) {
    const char *text = getenv(name);
    return text ? atol(text) : 0;
}

/* Reads the environment; may be called again once it was changed. */
void system_calls_arm(void) {
    const char *root = getenv("FINETUI_FAULT_FOLDER"), *counter = getenv("FINETUI_FAULT_COUNTER");
    const char *log = getenv("FINETUI_FAULT_LOG");
    folder_length = 0;
    count = NULL;
    if (!root || !counter || snprintf(folder, sizeof folder, "%s", root) >= (int)sizeof folder) return;
    at = number("FINETUI_FAULT_AT"), times = number("FINETUI_FAULT_TIMES"), failing = number("FINETUI_FAULT_ERRNO");
    torn = number("FINETUI_FAULT_TORN"), with_reads = number("FINETUI_FAULT_READS");
    int shared = syscall(SYS_openat, AT_FDCWD, counter, O_RDWR | O_CLOEXEC);
    if (shared < 0) return;
    void *mapped = mmap(NULL, sizeof *count, PROT_READ | PROT_WRITE, MAP_SHARED, shared, 0);
    close(shared);
    if (mapped == MAP_FAILED) return;
    if (log && *log) log_descriptor = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    count = mapped;
    folder_length = strlen(folder);
}

__attribute__((constructor)) static void arm_at_start(void) { system_calls_arm(); }

static int is_within(const char *path) {
    return !strncmp(path, folder, folder_length) && (path[folder_length] == '/' || !path[folder_length]);
}

static int descriptor_path(int descriptor, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return 1;
}

static int full_path(int directory, const char *name, char *path) {
    if (!name) return 0;
    if (*name == '/') return snprintf(path, PATH_MAX, "%s", name) < PATH_MAX;
    char start[PATH_MAX];
    if (directory == AT_FDCWD ? !getcwd(start, sizeof start) : !descriptor_path(directory, start)) return 0;
    return (size_t)snprintf(path, PATH_MAX, "%s/%.*s", start, (int)(PATH_MAX - strlen(start) - 2), name) < PATH_MAX;
}

/* What is to become of the call `name` on `path` (and `other`): PROCEED, TORN, or an error's number. */
static int judge(const char *name, const char *path, const char *other, int can_tear) {
    if (!count || !(is_within(path) || (other && is_within(other)))) return PROCEED;
    long number = atomic_fetch_add(count, 1) + 1;
    if (log_descriptor >= 0) {
        char line[3 * PATH_MAX];
        int length = snprintf(line, sizeof line, "%s\t%s\t%s\n", name, path, other ? other : "");
        syscall(SYS_write, log_descriptor, line, length);
    }
    if (!at || number < at || (times > 0 && number >= at + times)) return PROCEED;
    if (failing) return failing;
    if (torn && can_tear) return TORN;
    for (;;) syscall(SYS_kill, getpid(), SIGKILL);
}

static int judge_at(const char *name, int directory, const char *path) {
    int kept = errno;
    char full[PATH_MAX];
    int verdict = count && full_path(directory, path, full) ? judge(name, full, NULL, 0) : PROCEED;
    errno = kept;
    return verdict;
}

static int judge_two(const char *name, int from, const char *old, int to, const char *new) {
    int kept = errno;
    char first[PATH_MAX], second[PATH_MAX];
    int known = count && full_path(from, old, first) && full_path(to, new, second);
    int verdict = known ? judge(name, first, second, 0) : PROCEED;
    errno = kept;
    return verdict;
}

static int judge_descriptor(const char *name, int descriptor, int can_tear) {
    int kept = errno;
    char path[PATH_MAX];
    int verdict = count && descriptor_path(descriptor, path) ? judge(name, path, NULL, can_tear) : PROCEED;
    errno = kept;
    return verdict;
}

static ssize_t fail(int verdict) {
    errno = verdict;
    return -1;
}

#define REFUSE(verdict) do { int said = (verdict); if (said > 0) return fail(said); } while (0)

/* Files are opened */

static int changes(int flags) { return (flags & O_ACCMODE) != O_RDONLY || flags & (O_CREAT | O_TRUNC); }

static int open_at(int directory, const char *path, int flags, mode_t mode) {
    if (changes(flags)) REFUSE(judge_at("open", directory, path));
    else if (with_reads) REFUSE(judge_at("open to read", directory, path));
    return syscall(SYS_openat, directory, path, flags, mode);
}

#define MODE(flags, last, mode) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { va_list rest; va_start(rest, last); mode = va_arg(rest, mode_t); va_end(rest); }

int open(const char *path, int flags, ...) { MODE(flags, flags, mode) return open_at(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags, flags, mode) return open_at(AT_FDCWD, path, flags, mode); }
int openat(int directory, const char *path, int flags, ...) {
    MODE(flags, flags, mode)
    return open_at(directory, path, flags, mode);
}
int openat64(int directory, const char *path, int flags, ...) {
    MODE(flags, flags, mode)
    return open_at(directory, path, flags, mode);
}
int creat(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

static FILE *open_stream(const char *symbol, const char *path, const char *mode) {
    FILE *(*real)(const char *, const char *) = dlsym(RTLD_NEXT, symbol);
    if (strpbrk(mode, "wa+")) {
        int verdict = judge_at("open", AT_FDCWD, path);
        if (verdict > 0) { errno = verdict; return NULL; }
    }
    return real(path, mode);
}

FILE *fopen(const char *path, const char *mode) { return open_stream("fopen", path, mode); }
FILE *fopen64(const char *path, const char *mode) { return open_stream("fopen64", path, mode); }

/* written */

static void tear(int descriptor, const void *data, size_t length) {
    syscall(SYS_write, descriptor, data, length / 2);
    for (;;) syscall(SYS_kill, getpid(), SIGKILL);
}

ssize_t write(int descriptor, const void *data, size_t length) {
    int verdict = judge_descriptor("write", descriptor, 1);
    REFUSE(verdict);
    if (verdict == TORN) tear(descriptor, data, length);
    return syscall(SYS_write, descriptor, data, length);
}

ssize_t pwrite(int descriptor, const void *data, size_t length, off_t offset) {
    REFUSE(judge_descriptor("write", descriptor, 0));
    return syscall(SYS_pwrite64, descriptor, data, length, offset);
}
ssize_t pwrite64(int descriptor, const void *data, size_t length, off_t offset) { return pwrite(descriptor, data, length, offset); }

ssize_t writev(int descriptor, const struct iovec *parts, int number_of_parts) {
    REFUSE(judge_descriptor("write", descriptor, 0));
    return syscall(SYS_writev, descriptor, parts, number_of_parts);
}

ssize_t sendfile(int to, int from, off_t *offset, size_t length) {
    REFUSE(judge_descriptor("write", to, 0));
    return syscall(SYS_sendfile, to, from, offset, length);
}
ssize_t sendfile64(int to, int from, off_t *offset, size_t length) { return sendfile(to, from, offset, length); }

ssize_t copy_file_range(int from, off64_t *from_offset, int to, off64_t *to_offset, size_t length, unsigned flags) {
    REFUSE(judge_descriptor("write", to, 0));
    return syscall(SYS_copy_file_range, from, from_offset, to, to_offset, length, flags);
}

int ftruncate(int descriptor, off_t length) {
    REFUSE(judge_descriptor("truncate", descriptor, 0));
    return syscall(SYS_ftruncate, descriptor, length);
}
int ftruncate64(int descriptor, off_t length) { return ftruncate(descriptor, length); }

int fallocate(int descriptor, int mode, off_t offset, off_t length) {
    REFUSE(judge_descriptor("allocate", descriptor, 0));
    return syscall(SYS_fallocate, descriptor, mode, offset, length);
}
int fallocate64(int descriptor, int mode, off_t offset, off_t length) { return fallocate(descriptor, mode, offset, length); }

int posix_fallocate(int descriptor, off_t offset, off_t length) {
    return fallocate(descriptor, 0, offset, length) ? errno : 0; /* it returns its error */
}
int posix_fallocate64(int descriptor, off_t offset, off_t length) { return posix_fallocate(descriptor, offset, length); }

void *mmap(void *address, size_t length, int protection, int flags, int descriptor, off_t offset) {
    int writes = descriptor >= 0 && (protection & PROT_WRITE) && (flags & MAP_TYPE) != MAP_PRIVATE;
    int verdict = writes ? judge_descriptor("map to write", descriptor, 0) : PROCEED;
    if (verdict > 0) { errno = verdict; return MAP_FAILED; }
    return (void *)syscall(SYS_mmap, address, length, protection, flags, descriptor, offset);
}
void *mmap64(void *address, size_t length, int protection, int flags, int descriptor, off_t offset) {
    return mmap(address, length, protection, flags, descriptor, offset);
}

/* brought onto the disk */

int fsync(int descriptor) {
    REFUSE(judge_descriptor("sync", descriptor, 0));
    return syscall(SYS_fsync, descriptor);
}

int fdatasync(int descriptor) {
    REFUSE(judge_descriptor("sync", descriptor, 0));
    return syscall(SYS_fdatasync, descriptor);
}

/* read back */

ssize_t read(int descriptor, void *data, size_t length) {
    if (with_reads) REFUSE(judge_descriptor("read", descriptor, 0));
    return syscall(SYS_read, descriptor, data, length);
}

/* and named */

int renameat2(int from, const char *old, int to, const char *new, unsigned flags) {
    REFUSE(judge_two("rename", from, old, to, new));
    return syscall(SYS_renameat2, from, old, to, new, flags);
}
int renameat(int from, const char *old, int to, const char *new) { return renameat2(from, old, to, new, 0); }
int rename(const char *old, const char *new) { return renameat2(AT_FDCWD, old, AT_FDCWD, new, 0); }

int linkat(int from, const char *old, int to, const char *new, int flags) {
    REFUSE(judge_two("link", from, old, to, new));
    return syscall(SYS_linkat, from, old, to, new, flags);
}
int link(const char *old, const char *new) { return linkat(AT_FDCWD, old, AT_FDCWD, new, 0); }

int symlinkat(const char *target, int directory, const char *path) {
    REFUSE(judge_at("link", directory, path));
    return syscall(SYS_symlinkat, target, directory, path);
}
int symlink(const char *target, const char *path) { return symlinkat(target, AT_FDCWD, path); }

int mkdirat(int directory, const char *path, mode_t mode) {
    REFUSE(judge_at("make folder", directory, path));
    return syscall(SYS_mkdirat, directory, path, mode);
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int unlinkat(int directory, const char *path, int flags) {
    REFUSE(judge_at("remove", directory, path));
    return syscall(SYS_unlinkat, directory, path, flags);
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

/* A disk whose calls fail for being read-only says so when asked */

static int stat_disk(const char *symbol, const char *path, struct statvfs *found) {
    int (*real)(const char *, struct statvfs *) = dlsym(RTLD_NEXT, symbol);
    int status = real(path, found);
    char full[PATH_MAX];
    int failing_now = count && failing == EROFS && at && atomic_load(count) >= at;
    if (!status && failing_now && full_path(AT_FDCWD, path, full) && is_within(full)) found->f_flag |= ST_RDONLY;
    return status;
}

int statvfs(const char *path, struct statvfs *found) { return stat_disk("statvfs", path, found); }
int statvfs64(const char *path, struct statvfs64 *found) { return stat_disk("statvfs64", path, (struct statvfs *)found); }
