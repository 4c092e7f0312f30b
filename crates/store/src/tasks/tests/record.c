/* Loaded before the C library: writes down, in their order, all writes, syncs, creations, renames and removals of files whose
 * path contains "/recorded/", into the file that RECORD names. A test builds from it what a disk could hold after a loss
 * of power at any moment. An entry is a line `KIND OFFSET LENGTH PATH` and LENGTH bytes; of a rename they are the new path. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int out = -1;

static int watched(const char *path) { return strstr(path, "/recorded") != NULL; }

static void put(const char *bytes, size_t length) {
  while (length > 0) {
    long done = syscall(SYS_write, out, bytes, length);
    if (done <= 0) abort();
    bytes += done;
    length -= (size_t)done;
  }
}

static void note(char kind, long long offset, const void *bytes, size_t length, const char *path) {
  char line[5000];
  int before = errno;
  if (out < 0) out = (int)syscall(SYS_openat, AT_FDCWD, getenv("RECORD"), O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
  if (out < 0) abort();
  put(line, (size_t)snprintf(line, sizeof line, "%c %lld %zu %s\n", kind, offset, length, path));
  put(bytes, length);
  errno = before;
}

static int path_of(int fd, char *path, size_t room) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, room - 1);
  if (length <= 0) return 0;
  path[length] = 0;
  return watched(path);
}

static void absolute(const char *path, char *whole, size_t room) {
  char here[2048] = "";
  if (path[0] != '/' && syscall(SYS_getcwd, here, sizeof here) <= 0) abort();
  snprintf(whole, room, "%s%s%s", here, here[0] ? "/" : "", path);
}

static int opened(int at, const char *path, int flags, mode_t mode) {
  char whole[4096];
  absolute(path, whole, sizeof whole);
  if (!(flags & O_CREAT) || !watched(whole)) return (int)syscall(SYS_openat, at, path, flags, mode);
  pthread_mutex_lock(&lock);
  int is_new = syscall(SYS_faccessat, at, path, F_OK) != 0;
  int fd = (int)syscall(SYS_openat, at, path, flags, mode);
  if (fd >= 0 && is_new) note('c', 0, "", 0, whole);
  if (fd >= 0 && !is_new && (flags & O_TRUNC)) note('t', 0, "", 0, whole);
  pthread_mutex_unlock(&lock);
  return fd;
}

#define MODE(flags)                \
  mode_t mode = 0;                 \
  if ((flags) & O_CREAT) {         \
    va_list rest;                  \
    va_start(rest, flags);         \
    mode = va_arg(rest, mode_t);   \
    va_end(rest);                  \
  }

int open(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return opened(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags) return opened(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags) return opened(at, path, flags, mode); }

ssize_t write(int fd, const void *bytes, size_t count) {
  char path[4096];
  if (!path_of(fd, path, sizeof path)) return syscall(SYS_write, fd, bytes, count);
  pthread_mutex_lock(&lock);
  long done = syscall(SYS_write, fd, bytes, count);
  if (done > 0) note('w', syscall(SYS_lseek, fd, 0, SEEK_CUR) - done, bytes, (size_t)done, path);
  pthread_mutex_unlock(&lock);
  return done;
}
ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
  char path[4096];
  if (!path_of(fd, path, sizeof path)) return syscall(SYS_pwrite64, fd, bytes, count, at);
  pthread_mutex_lock(&lock);
  long done = syscall(SYS_pwrite64, fd, bytes, count, at);
  if (done > 0) note('w', at, bytes, (size_t)done, path);
  pthread_mutex_unlock(&lock);
  return done;
}
ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) { return pwrite64(fd, bytes, count, at); }

int ftruncate64(int fd, off64_t length) {
  char path[4096];
  if (!path_of(fd, path, sizeof path)) return (int)syscall(SYS_ftruncate, fd, length);
  pthread_mutex_lock(&lock);
  int done = (int)syscall(SYS_ftruncate, fd, length);
  if (done == 0) note('t', length, "", 0, path);
  pthread_mutex_unlock(&lock);
  return done;
}
int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

static int synced(int fd, long number) {
  char path[4096];
  if (!path_of(fd, path, sizeof path)) return (int)syscall(number, fd);
  pthread_mutex_lock(&lock);
  int done = (int)syscall(number, fd);
  if (done == 0) note('s', 0, "", 0, path);
  pthread_mutex_unlock(&lock);
  return done;
}
int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

int rename(const char *from, const char *to) {
  char old[4096], new[4096];
  absolute(from, old, sizeof old);
  absolute(to, new, sizeof new);
  pthread_mutex_lock(&lock);
  int done = (int)syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to);
  if (done == 0 && watched(new)) note('r', 0, new, strlen(new), old);
  pthread_mutex_unlock(&lock);
  return done;
}
int unlink(const char *path) {
  char whole[4096];
  absolute(path, whole, sizeof whole);
  pthread_mutex_lock(&lock);
  int done = (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
  if (done == 0 && watched(whole)) note('u', 0, "", 0, whole);
  pthread_mutex_unlock(&lock);
  return done;
}
