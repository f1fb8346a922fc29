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
#include <unistd.h>

static void record(const char *what, const char *detail, size_t length) {
    static int log = -1;
    char line[700];
    if (log < 0) log = open(getenv("SYNC_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int n = snprintf(line, sizeof line, "%s %.*s\n", what, (int)(length < 600 ? length : 600), detail);
    if (write(log, line, (size_t)n) != n) abort();
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

ssize_t send(int fd, const void *data, size_t length, int flags) {
    ssize_t (*real)(int, const void *, size_t, int) = (ssize_t (*)(int, const void *, size_t, int))dlsym(RTLD_NEXT, "send");
    /* One call may send several frames; those of a server are not masked. Whatever else is sent looks like none. */
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
    return real(fd, data, length, flags);
}
