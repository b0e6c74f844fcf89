/* Remembers what a machine would still have after its power failed, for the test `power_loss`.
 *
 * Loaded into a node with LD_PRELOAD. Whenever the node makes something durable, this library
 * writes down what that is: the content of the file, or the names in the directory. What was never
 * synced is in no such note. After the node was killed, the test makes its directory anew from the
 * notes alone; so everything is lost that a power cut may take, at once, and nothing else.
 *
 *   POWER_ROOT   the directory of the node
 *   POWER_NOTES  where the notes go:
 *     content-INODE-BIRTH  the bytes of a file at its last sync; a name does not tell files apart,
 *                          because they are renamed, and neither does the number of the inode alone,
 *                          because it is used again
 *     names-PATH           the names in a directory at its last sync, with / written as %, a line
 *                          each: "d name" or "f INODE-BIRTH name"
 *
 * Notes are written aside and renamed, so that a kill leaves the old one or the new one. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int (*real_fsync)(int);
static int (*real_fdatasync)(int);

static void give_up(const char *what) {
    perror(what);
    abort();
}

static void find_real(void) {
    if (real_fsync == NULL) {
        real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
        real_fsync = dlsym(RTLD_NEXT, "fsync");
    }
}

/* Writes what tells a file apart, or returns 0. */
static int identity(int dir, const char *name, int flags, char *out, size_t size, mode_t *mode) {
    struct statx found;
    if (statx(dir, name, flags, STATX_INO | STATX_BTIME | STATX_TYPE, &found) != 0)
        return 0;
    *mode = found.stx_mode;
    snprintf(out, size, "%llu-%lld.%09u", (unsigned long long)found.stx_ino,
             (long long)found.stx_btime.tv_sec, found.stx_btime.tv_nsec);
    return 1;
}

static void rename_note(const char *from, const char *to) {
    if (rename(from, to) != 0)
        give_up("cannot rename a note");
}

static void note_content(int fd, const char *notes, const char *id) {
    char path[PATH_MAX], temporary[PATH_MAX], buffer[1 << 16];
    snprintf(path, sizeof path, "%s/content-%s", notes, id);
    snprintf(temporary, sizeof temporary, "%s/new-%d-%s", notes, gettid(), id);
    int out = open(temporary, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (out < 0)
        give_up("cannot write a note");
    off_t offset = 0;
    ssize_t got;
    while ((got = pread(fd, buffer, sizeof buffer, offset)) > 0) {
        if (write(out, buffer, (size_t)got) != got)
            give_up("cannot write a note");
        offset += got;
    }
    if (got < 0)
        give_up("cannot read what was synced");
    close(out);
    rename_note(temporary, path);
}

static void note_names(const char *directory, const char *inside, const char *notes) {
    char path[PATH_MAX], temporary[PATH_MAX], id[64], name[NAME_MAX + 1];
    snprintf(name, sizeof name, "%s", inside);
    for (char *c = name; *c != 0; c++)
        if (*c == '/')
            *c = '%';
    snprintf(path, sizeof path, "%s/names-%s", notes, name);
    snprintf(temporary, sizeof temporary, "%s/new-%d-names-%s", notes, gettid(), name);
    FILE *out = fopen(temporary, "w");
    DIR *dir = opendir(directory);
    if (out == NULL || dir == NULL)
        give_up("cannot write down names");
    struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        mode_t mode;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (!identity(dirfd(dir), entry->d_name, AT_SYMLINK_NOFOLLOW, id, sizeof id, &mode))
            continue;
        if (S_ISDIR(mode))
            fprintf(out, "d %s\n", entry->d_name);
        else
            fprintf(out, "f %s %s\n", id, entry->d_name);
    }
    closedir(dir);
    if (fclose(out) != 0)
        give_up("cannot write down names");
    rename_note(temporary, path);
}

static void note(int fd) {
    const char *root = getenv("POWER_ROOT"), *notes = getenv("POWER_NOTES");
    if (root == NULL || notes == NULL)
        return;
    char link[64], path[PATH_MAX], id[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    if (len < 0)
        return;
    path[len] = 0;
    size_t root_len = strlen(root);
    if (strncmp(path, root, root_len) != 0 || (path[root_len] != 0 && path[root_len] != '/'))
        return;
    mode_t mode;
    if (!identity(fd, "", AT_EMPTY_PATH, id, sizeof id, &mode))
        give_up("cannot tell what was synced");
    const char *inside = path + root_len;
    if (S_ISDIR(mode))
        note_names(path, *inside == '/' ? inside + 1 : inside, notes);
    else
        note_content(fd, notes, id);
}

int fsync(int fd) {
    find_real();
    int result = real_fsync(fd);
    if (result == 0)
        note(fd);
    return result;
}

int fdatasync(int fd) {
    find_real();
    int result = real_fdatasync(fd);
    if (result == 0)
        note(fd);
    return result;
}
