/*
 * Preloaded into the coordinator: records, in order, what is made durable and what is said to devices.
 * While the file DISK_FULL exists, nothing can be made durable.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

typedef ssize_t (*write_call)(int, const void *, size_t);

static ssize_t really_write(int fd, const void *data, size_t length) {
    static write_call real = NULL;
    if (real == NULL) real = (write_call)dlsym(RTLD_NEXT, "write");
    return real(fd, data, length);
}

static void record(const char *what, const char *detail, size_t length) {
    static int log = -1;
    char line[700];
    if (log < 0) log = open(getenv("SYNC_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int n = snprintf(line, sizeof line, "%s %.*s\n", what, (int)(length < 600 ? length : 600), detail);
    if (really_write(log, line, (size_t)n) != n) abort();
}

static void record_file(const char *what, int fd) {
    char link[64], path[600];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path);
    record(what, path, n < 0 ? 0 : (size_t)n);
}

static int disk_is_full(void) {
    const char *flag = getenv("DISK_FULL");
    if (flag == NULL || access(flag, F_OK) != 0) return 0;
    errno = ENOSPC;
    return 1;
}

int fsync(int fd) {
    if (disk_is_full()) return -1;
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    int result = real(fd);
    record_file("sync", fd);
    return result;
}

int fdatasync(int fd) {
    if (disk_is_full()) return -1;
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    int result = real(fd);
    record_file("sync", fd);
    return result;
}

int rename(const char *from, const char *to) {
    int (*real)(const char *, const char *) = (int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename");
    int result = real(from, to);
    record("rename", to, strlen(to));
    return result;
}

/* One call may send several frames; those of a server are not masked. Whatever else is sent looks like none. */
static void record_frames(const void *data, size_t length) {
    const unsigned char *bytes = data;
    for (size_t at = 0; at + 2 <= length && (bytes[at] == 0x81 || bytes[at] == 0x82) && bytes[at + 1] < 128;) {
        size_t header = bytes[at + 1] == 127 ? 10 : bytes[at + 1] == 126 ? 4 : 2, size = bytes[at + 1];
        if (at + header > length) break;
        if (header > 2) size = 0;
        for (size_t i = 2; i < header; i++) size = size << 8 | bytes[at + i];
        if (size > length - at - header) break;
        if (bytes[at] == 0x81) record("say", (const char *)bytes + at + header, size);
        at += header + size;
    }
}

static int is_socket(int fd) {
    struct stat about;
    int before = errno, result = fstat(fd, &about) == 0 && S_ISSOCK(about.st_mode);
    errno = before;
    return result;
}

/* asyncio sends, uvloop writes. */
ssize_t send(int fd, const void *data, size_t length, int flags) {
    ssize_t (*real)(int, const void *, size_t, int) = (ssize_t (*)(int, const void *, size_t, int))dlsym(RTLD_NEXT, "send");
    record_frames(data, length);
    return real(fd, data, length, flags);
}

ssize_t write(int fd, const void *data, size_t length) {
    if (is_socket(fd)) record_frames(data, length);
    return really_write(fd, data, length);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    ssize_t (*real)(int, const struct iovec *, int) = (ssize_t (*)(int, const struct iovec *, int))dlsym(RTLD_NEXT, "writev");
    if (is_socket(fd))
        for (int i = 0; i < count; i++) record_frames(parts[i].iov_base, parts[i].iov_len);
    return real(fd, parts, count);
}
