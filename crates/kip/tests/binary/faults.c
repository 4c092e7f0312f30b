/* Loaded before the C library into the server under test: makes writes and syncs of chosen files fail, and steps the wall
 * clock. The file that FAULTS names is read at every call, one rule a line:
 *   full PART [FILE]   writing a file whose path contains PART finds no room (while FILE exists)
 *   lost PART          syncing it fails
 *   broken PART        writing it fails
 *   hang PART          writing it never ends; the file FAULTS.hangs is made then
 *   hangsync PART      the same for syncing it
 *   clock SECONDS      the wall clock is ahead by so much
 * A PART that ends with $ must be the end of the path. Everything else goes to the kernel by number, so that nothing here depends on what is loaded. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static int fits(const char *path, char *part) {
  size_t length = strlen(part), all = strlen(path);
  if (part[length - 1] != '$') return strstr(path, part) != NULL;
  return all >= length - 1 && strncmp(path + all - (length - 1), part, length - 1) == 0;
}

/* Says that it hangs, and does. */
static void hang(void) {
  char path[4096];
  snprintf(path, sizeof path, "%s.hangs", getenv("FAULTS"));
  syscall(SYS_close, syscall(SYS_openat, AT_FDCWD, path, O_CREAT | O_WRONLY, 0600));
  for (;;) syscall(SYS_ppoll, NULL, 0, NULL, NULL, 0);
}

/* 0: no rule. 1: a rule fits; `argument` is set to its second word, if any. */
static int rule(const char *kind, const char *path, char *argument, size_t room) {
  char text[4096];
  const char *file = getenv("FAULTS");
  long descriptor = file ? syscall(SYS_openat, AT_FDCWD, file, O_RDONLY) : -1;
  if (descriptor < 0) return 0;
  long length = syscall(SYS_read, descriptor, text, sizeof text - 1);
  syscall(SYS_close, descriptor);
  if (length <= 0) return 0;
  text[length] = 0;
  char *rest = NULL;
  for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
    char word[32], part[512], second[2048] = "";
    if (sscanf(line, "%31s %511s %2047s", word, part, second) < 2 || strcmp(word, kind) != 0) continue;
    if (path && !fits(path, part)) continue;
    snprintf(argument, room, "%s", path ? second : part);
    return 1;
  }
  return 0;
}

/* The error that a call on this file should fail with, or 0. */
static int fault(int descriptor, int syncing) {
  char link[64], path[4096], argument[2048];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
  if (length <= 0) return 0;
  path[length] = 0;
  if (rule(syncing ? "hangsync" : "hang", path, argument, sizeof argument)) hang();
  if (syncing) return rule("lost", path, argument, sizeof argument) ? EIO : 0;
  if (rule("broken", path, argument, sizeof argument)) return EIO;
  if (rule("full", path, argument, sizeof argument)
      && (!argument[0] || syscall(SYS_faccessat, AT_FDCWD, argument, F_OK) == 0)) return ENOSPC;
  return 0;
}

#define FAIL(descriptor, syncing)                  \
  do {                                             \
    int before = errno, error = fault(descriptor, syncing); \
    errno = before;                                \
    if (error) { errno = error; return -1; }       \
  } while (0)

ssize_t write(int fd, const void *bytes, size_t count) {
  FAIL(fd, 0);
  return syscall(SYS_write, fd, bytes, count);
}
ssize_t writev(int fd, const struct iovec *pieces, int count) {
  FAIL(fd, 0);
  return syscall(SYS_writev, fd, pieces, count);
}
ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
  FAIL(fd, 0);
  return syscall(SYS_pwrite64, fd, bytes, count, at);
}
ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) { return pwrite64(fd, bytes, count, at); }
int fsync(int fd) {
  FAIL(fd, 1);
  return syscall(SYS_fsync, fd);
}
int fdatasync(int fd) {
  FAIL(fd, 1);
  return syscall(SYS_fdatasync, fd);
}
int clock_gettime(clockid_t clock, struct timespec *time) {
  int done = syscall(SYS_clock_gettime, clock, time);
  char argument[2048];
  int before = errno;
  if (done == 0 && clock == CLOCK_REALTIME && rule("clock", NULL, argument, sizeof argument)) time->tv_sec += atol(argument);
  errno = before;
  return done;
}
