/* Meet the file operations of one process, one after the other: see preload.py.
 *
 * Loaded before libc (LD_PRELOAD), this stands in front of the calls below.  faults_arm() says which
 * folder is watched, where each operation on it is written down, and what happens at which of them.
 * Only the thread that armed it counts; an error that lasts meets every thread.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* "overwrite" is a pwrite into room that was reserved; "close_ro" is of a file open for reading. */
#define KINDS(K)                                                                                  \
    K(open) K(create) K(close) K(close_ro) K(read) K(pread) K(write) K(pwrite) K(overwrite)        \
    K(copy_file_range) K(fsync) K(fdatasync) K(ftruncate) K(posix_fallocate) K(flock)              \
    K(rename) K(link) K(unlink) K(mkdir) K(rmdir) K(opendir) K(readdir) K(readlink)                \
    K(stat) K(lstat) K(fstat) K(fchmod) K(chmod) K(fchown) K(chown) K(futimens)                    \
    K(flistxattr) K(fgetxattr) K(fsetxattr) K(fremovexattr)
#define NUMBER(name) k_##name,
#define NAME(name) #name,
enum kind { KINDS(NUMBER) KIND_COUNT };
static const char *const names[] = {KINDS(NAME)};
enum how { NOTHING, KILL_BEFORE, KILL_AFTER, TEAR_HALF, TEAR_LAST, SHORT, FAIL };

enum { FILES = 512, LONGEST = 256 };
static struct { /* what is known of an open file of the folder; `path` is empty for any other */
    char path[LONGEST];
    int writable, listed;
    off_t room; /* up to here it was reserved */
} files[FILES];

static struct {
    char root[PATH_MAX];
    size_t length; /* of root; 0 before it is armed */
    int log;
    long number, seen; /* strike at this one; so many were met */
    enum how how;
    int error;
    unsigned long kinds; /* bits of those that fail after the strike, */
    long rest;           /* and how many calls of them */
    int struck;
} plan;
static __thread int counts;

struct call {
    enum kind kind;
    const char *one, *two; /* paths in the folder, NULL for others */
    long number;
    enum how how; /* what is to happen to this one */
};

/* Called by Python in the child, through ctypes. */
const char *faults_kind(int number)
{
    return number < KIND_COUNT ? names[number] : NULL;
}

void faults_arm(const char *root, int log, long number, int how, int error, unsigned long kinds,
                long rest)
{
    access("/faults/arm", F_OK); /* a mark for who reads along with strace */
    plan.log = log;
    plan.number = number;
    plan.how = how;
    plan.error = error;
    plan.kinds = kinds;
    plan.rest = rest;
    snprintf(plan.root, sizeof plan.root, "%s", root);
    plan.length = strlen(plan.root);
    counts = 1;
}

void faults_disarm(void)
{
    access("/faults/disarm", F_OK);
    plan.length = 0;
}

/* The path relative to the folder; "." for it, ".." for the one that holds it; NULL elsewhere. */
static const char *at(const char *path)
{
    if (!plan.length || !path)
        return NULL;
    if (!strncmp(path, plan.root, plan.length)) {
        if (path[plan.length] == '/')
            return path + plan.length + 1;
        return path[plan.length] ? NULL : ".";
    }
    size_t above = strrchr(plan.root, '/') - plan.root;
    return strlen(path) == above && !strncmp(path, plan.root, above) ? ".." : NULL;
}

static const char *of(int fd)
{
    return plan.length && fd >= 0 && fd < FILES && *files[fd].path ? files[fd].path : NULL;
}

static void write_down(const struct call *call, const char *what, long result)
{
    char line[3 * LONGEST];
    int size = snprintf(line, sizeof line, "%ld\t%s\t%s\t%s\t%s\t%ld\n", call->number,
                        names[call->kind], call->one ? call->one : "-",
                        call->two ? call->two : "-", what, result);
    if (call->number)
        syscall(SYS_write, plan.log, line, size);
}

static void die(const struct call *call, const char *what)
{
    write_down(call, what, 0);
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;)
        pause();
}

/* Whether the call is not to be made: then errno says why. */
static int refused(struct call *call)
{
    if (!call->one && !call->two)
        return 0;
    call->number = counts ? ++plan.seen : 0;
    int here = call->number && call->number == plan.number;
    int later = !here && plan.struck && plan.rest > 0 && (plan.kinds >> call->kind & 1);
    if (here) {
        plan.struck = 1;
        call->how = plan.how;
        if (call->how == KILL_BEFORE)
            die(call, "struck");
    }
    if (later)
        plan.rest--;
    if (!later && call->how != FAIL)
        return 0;
    write_down(call, here ? "struck" : "again", -plan.error);
    errno = plan.error;
    return 1;
}

/* How much of a write is to be done. */
static size_t part(const struct call *call, size_t size)
{
    if (call->how == TEAR_LAST)
        return size > 1 ? size - 1 : size;
    if (call->how == TEAR_HALF || call->how == SHORT)
        return size > 1 ? size / 2 : size;
    return size;
}

static long made(const struct call *call, long result)
{
    int error = errno;
    if (call->how == KILL_AFTER || call->how == TEAR_HALF || call->how == TEAR_LAST)
        die(call, "struck");
    if (call->one || call->two)
        write_down(call, call->how ? "struck" : "made", result < 0 ? -error : result);
    errno = error;
    return result;
}

#define ALSO(name, other) __asm__(".globl " #other "\n.set " #other ", " #name)

/* --- files by their path */

int open(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    int mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, int) : 0;
    va_end(rest);
    struct call call = {flags & O_CREAT ? k_create : k_open, at(path)};
    if (refused(&call))
        return -1;
    long fd = syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (fd >= 0 && fd < FILES) {
        memset(&files[fd], 0, sizeof files[fd]);
        files[fd].writable = (flags & O_ACCMODE) != O_RDONLY;
        snprintf(files[fd].path, LONGEST, "%s", call.one ? call.one : "");
    }
    return made(&call, fd);
}
ALSO(open, open64);

#define BY_PATH(name, ...)                                                                        \
    struct call call = {k_##name, at(path)};                                                      \
    return refused(&call) ? -1 : made(&call, syscall(__VA_ARGS__))

int stat(const char *path, struct stat *st) { BY_PATH(stat, SYS_newfstatat, AT_FDCWD, path, st, 0); }
int lstat(const char *path, struct stat *st)
{
    BY_PATH(lstat, SYS_newfstatat, AT_FDCWD, path, st, AT_SYMLINK_NOFOLLOW);
}
ALSO(stat, stat64);
ALSO(lstat, lstat64);
ssize_t readlink(const char *path, char *target, size_t size)
{
    BY_PATH(readlink, SYS_readlinkat, AT_FDCWD, path, target, size);
}
int mkdir(const char *path, mode_t mode) { BY_PATH(mkdir, SYS_mkdirat, AT_FDCWD, path, mode); }
int rmdir(const char *path) { BY_PATH(rmdir, SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR); }
int unlink(const char *path) { BY_PATH(unlink, SYS_unlinkat, AT_FDCWD, path, 0); }
int chmod(const char *path, mode_t mode) { BY_PATH(chmod, SYS_fchmodat, AT_FDCWD, path, mode); }
int chown(const char *path, uid_t user, gid_t group)
{
    BY_PATH(chown, SYS_fchownat, AT_FDCWD, path, user, group, 0);
}

#define BY_TWO(name, ...)                                                                         \
    struct call call = {k_##name, at(old), at(new)};                                              \
    return refused(&call) ? -1 : made(&call, syscall(__VA_ARGS__))

int rename(const char *old, const char *new)
{
    BY_TWO(rename, SYS_renameat2, AT_FDCWD, old, AT_FDCWD, new, 0);
}
int link(const char *old, const char *new)
{
    BY_TWO(link, SYS_linkat, AT_FDCWD, old, AT_FDCWD, new, 0);
}

/* --- open files */

#define BY_FILE(name, ...)                                                                        \
    struct call call = {k_##name, of(fd)};                                                        \
    return refused(&call) ? -1 : made(&call, syscall(__VA_ARGS__))

ssize_t read(int fd, void *data, size_t size) { BY_FILE(read, SYS_read, fd, data, size); }
ssize_t pread(int fd, void *data, size_t size, off_t from)
{
    BY_FILE(pread, SYS_pread64, fd, data, size, from);
}
ALSO(pread, pread64);
int fstat(int fd, struct stat *st) { BY_FILE(fstat, SYS_fstat, fd, st); }
ALSO(fstat, fstat64);
int fsync(int fd) { BY_FILE(fsync, SYS_fsync, fd); }
int fdatasync(int fd) { BY_FILE(fdatasync, SYS_fdatasync, fd); }
int flock(int fd, int how) { BY_FILE(flock, SYS_flock, fd, how); }
int fchmod(int fd, mode_t mode) { BY_FILE(fchmod, SYS_fchmod, fd, mode); }
int fchown(int fd, uid_t user, gid_t group) { BY_FILE(fchown, SYS_fchown, fd, user, group); }
int futimens(int fd, const struct timespec times[2])
{
    BY_FILE(futimens, SYS_utimensat, fd, NULL, times, 0);
}
ssize_t flistxattr(int fd, char *list, size_t size)
{
    BY_FILE(flistxattr, SYS_flistxattr, fd, list, size);
}
ssize_t fgetxattr(int fd, const char *name, void *value, size_t size)
{
    BY_FILE(fgetxattr, SYS_fgetxattr, fd, name, value, size);
}
int fsetxattr(int fd, const char *name, const void *value, size_t size, int flags)
{
    BY_FILE(fsetxattr, SYS_fsetxattr, fd, name, value, size, flags);
}
int fremovexattr(int fd, const char *name) { BY_FILE(fremovexattr, SYS_fremovexattr, fd, name); }

ssize_t write(int fd, const void *data, size_t size)
{
    BY_FILE(write, SYS_write, fd, data, part(&call, size));
}
ssize_t copy_file_range(int from, off_t *start, int fd, off_t *to, size_t size, unsigned flags)
{
    BY_FILE(copy_file_range, SYS_copy_file_range, from, start, fd, to, part(&call, size), flags);
}
ALSO(copy_file_range, copy_file_range64);

ssize_t pwrite(int fd, const void *data, size_t size, off_t to)
{
    struct call call = {k_pwrite, of(fd)};
    if (call.one && to + (off_t)size <= files[fd].room)
        call.kind = k_overwrite;
    if (refused(&call))
        return -1;
    return made(&call, syscall(SYS_pwrite64, fd, data, part(&call, size), to));
}
ALSO(pwrite, pwrite64);

int ftruncate(int fd, off_t size)
{
    struct call call = {k_ftruncate, of(fd)};
    if (refused(&call))
        return -1;
    if (call.one)
        files[fd].room = 0;
    return made(&call, syscall(SYS_ftruncate, fd, size));
}
ALSO(ftruncate, ftruncate64);

int posix_fallocate(int fd, off_t start, off_t size) /* returns the error, and leaves errno */
{
    struct call call = {k_posix_fallocate, of(fd)};
    if (refused(&call))
        return errno;
    long result = syscall(SYS_fallocate, fd, 0, start, size);
    if (!result && call.one)
        files[fd].room = start + size;
    return made(&call, result) ? errno : 0;
}
ALSO(posix_fallocate, posix_fallocate64);

int close(int fd) /* one that fails has closed the file all the same */
{
    struct call call = {k_close, of(fd)};
    if (call.one && !files[fd].writable)
        call.kind = k_close_ro;
    int failed = refused(&call), error = errno;
    long result = syscall(SYS_close, fd);
    if (!failed)
        result = made(&call, result);
    if (fd >= 0 && fd < FILES)
        *files[fd].path = 0;
    if (failed)
        errno = error;
    return failed ? -1 : result;
}

/* --- folders: libc asks the kernel for many names at a time, here the first look counts */

DIR *opendir(const char *path)
{
    struct call call = {k_opendir, at(path)};
    if (refused(&call))
        return NULL;
    DIR *(*real)(const char *) = dlsym(RTLD_NEXT, "opendir");
    DIR *dir = real(path);
    int fd = dir ? dirfd(dir) : -1;
    if (fd >= 0 && fd < FILES) {
        memset(&files[fd], 0, sizeof files[fd]);
        snprintf(files[fd].path, LONGEST, "%s", call.one ? call.one : "");
    }
    made(&call, fd);
    return dir;
}

struct dirent *readdir(DIR *dir)
{
    struct dirent *(*real)(DIR *) = dlsym(RTLD_NEXT, "readdir");
    int fd = dirfd(dir);
    struct call call = {k_readdir, of(fd)};
    if (!call.one || files[fd].listed)
        return real(dir);
    files[fd].listed = 1;
    if (refused(&call))
        return NULL;
    struct dirent *found = real(dir);
    made(&call, 0);
    return found;
}
ALSO(readdir, readdir64);

int closedir(DIR *dir)
{
    int (*real)(DIR *) = dlsym(RTLD_NEXT, "closedir");
    int fd = dirfd(dir);
    struct call call = {k_close_ro, of(fd)};
    if (refused(&call)) /* no error that is in use applies to it */
        return -1;
    int result = made(&call, real(dir));
    if (fd >= 0 && fd < FILES)
        *files[fd].path = 0;
    return result;
}
