// Calls of the C library that fail on demand, for tests: loaded by LD_PRELOAD into a process (see faults.py).
//
// A rule has seven words: call, path, errno, delay in ms, most bytes a call, calls that pass before it, calls that it
// hits (-1: all). `call` is open, read, write, rename, malloc or pthread_create; `path` is how the file's name ends, or
// * for any file; of malloc it is the fewest bytes that are refused, on other threads than the first. With ENOSPC,
// "most bytes" is how many may be written in all; with EAGAIN, how many threads that began since may be there at once.
// Rules come from FASTLOAD_TEST_FAULTS, one a line, or later from `faults_set`.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define MOST_RULES 16

typedef struct {
    char call[16], path[200];
    int error;
    long delay_ms, most_bytes, after, times;
    long calls, hits, written;
} Rule;

static Rule rules[MOST_RULES];
static volatile int count;
static volatile long rules_set;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

int faults_set(const char *text) {
    pthread_mutex_lock(&mutex);
    count = 0;
    rules_set++;
    memset(rules, 0, sizeof rules);
    int used = 0, read = 0;
    Rule *rule = rules;
    while (count < MOST_RULES && sscanf(text, " %15s %199s %d %ld %ld %ld %ld%n", rule->call, rule->path, &rule->error,
                                        &rule->delay_ms, &rule->most_bytes, &rule->after, &rule->times, &used) == 7) {
        text += used;
        rule = &rules[++read];
        count = read;
    }
    pthread_mutex_unlock(&mutex);
    return read;
}

long faults_hits(int rule) { return rules[rule].hits; }
long faults_calls(int rule) { return rules[rule].calls; }

__attribute__((constructor)) static void begin(void) {
    const char *text = getenv("FASTLOAD_TEST_FAULTS");
    if (text) faults_set(text);
}

static int ends_with(const char *path, const char *end) {
    size_t length = strlen(path), end_length = strlen(end);
    return length >= end_length && strcmp(path + length - end_length, end) == 0;
}

// A bit for each rule whose path this is.
static unsigned short matching(const char *path) {
    unsigned short found = 0;
    for (int i = 0; i < count; i++)
        if (strcmp(rules[i].path, "*") == 0 || ends_with(path, rules[i].path)) found |= (unsigned short)(1u << i);
    return found;
}

// What the first rule that applies does to this call: its errno, or 0; a delay is slept here; *bytes is made smaller.
static int fault(const char *call, unsigned short which, size_t *bytes) {
    for (int i = 0; which && i < count; i++) {
        Rule *rule = &rules[i];
        if (!(which >> i & 1) || strcmp(rule->call, call) != 0) continue;
        pthread_mutex_lock(&mutex);
        int hit = rule->calls >= rule->after && (rule->times < 0 || rule->calls < rule->after + rule->times);
        rule->calls++;
        int is_sum = rule->error == ENOSPC || (rule->error == EAGAIN && rule->most_bytes > 0);
        if (hit && is_sum && bytes && rule->written + (long)*bytes <= rule->most_bytes) {
            rule->written += (long)*bytes;
            hit = 0;
        }
        rule->hits += hit;
        pthread_mutex_unlock(&mutex);
        if (!hit) continue;
        if (rule->delay_ms) {
            struct timespec left = {rule->delay_ms / 1000, rule->delay_ms % 1000 * 1000000};
            while (nanosleep(&left, &left) != 0 && errno == EINTR) continue;
        }
        if (rule->error) return rule->error;
        if (bytes && rule->most_bytes && *bytes > (size_t)rule->most_bytes) *bytes = (size_t)rule->most_bytes;
    }
    return 0;
}

// Asked at each call, so that it holds for files that were opened before the rules were made.
static unsigned short of_descriptor(int descriptor) {
    char link[64], path[4096];
    if (count == 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return matching(path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define MODE(flags)                                \
    mode_t mode = 0;                               \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {       \
        va_list more;                              \
        va_start(more, flags);                     \
        mode = (mode_t)va_arg(more, unsigned int); \
        va_end(more);                              \
    }
#define OPEN(path, real)                             \
    int error = fault("open", matching(path), NULL); \
    if (error) {                                     \
        errno = error;                               \
        return -1;                                   \
    }                                                \
    return real

int open(const char *path, int flags, ...) {
    MODE(flags)
    OPEN(path, REAL(open)(path, flags, mode));
}
int open64(const char *path, int flags, ...) {
    MODE(flags)
    OPEN(path, REAL(open64)(path, flags, mode));
}
int openat(int folder, const char *path, int flags, ...) {
    MODE(flags)
    OPEN(path, REAL(openat)(folder, path, flags, mode));
}
int openat64(int folder, const char *path, int flags, ...) {
    MODE(flags)
    OPEN(path, REAL(openat64)(folder, path, flags, mode));
}

#define MOVE(call, bytes, real)                                   \
    int error = fault(call, of_descriptor(descriptor), &(bytes)); \
    if (error) {                                                  \
        errno = error;                                            \
        return -1;                                                \
    }                                                             \
    return real

ssize_t read(int descriptor, void *to, size_t bytes) { MOVE("read", bytes, REAL(read)(descriptor, to, bytes)); }
ssize_t pread(int descriptor, void *to, size_t bytes, off_t offset) {
    MOVE("read", bytes, REAL(pread)(descriptor, to, bytes, offset));
}
ssize_t pread64(int descriptor, void *to, size_t bytes, off64_t offset) {
    MOVE("read", bytes, REAL(pread64)(descriptor, to, bytes, offset));
}
ssize_t preadv(int descriptor, const struct iovec *parts, int number, off_t offset) {
    size_t all = (size_t)-1;
    MOVE("read", all,
         all < parts[0].iov_len ? REAL(pread)(descriptor, parts[0].iov_base, all, offset)
                                : REAL(preadv)(descriptor, parts, number, offset));
}
ssize_t write(int descriptor, const void *from, size_t bytes) {
    MOVE("write", bytes, REAL(write)(descriptor, from, bytes));
}
ssize_t pwrite64(int descriptor, const void *from, size_t bytes, off64_t offset) {
    MOVE("write", bytes, REAL(pwrite64)(descriptor, from, bytes, offset));
}
int rename(const char *from, const char *to) {
    int error = fault("rename", matching(to), NULL);
    if (error) {
        errno = error;
        return -1;
    }
    return REAL(rename)(from, to);
}

// dlsym allocates, so that it cannot be asked for these.
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_memalign(size_t, size_t);

static int refused(size_t bytes) {
    if (count == 0 || getpid() == (pid_t)syscall(SYS_gettid)) return 0;
    unsigned short which = 0;
    for (int i = 0; i < count; i++)
        if (strcmp(rules[i].call, "malloc") == 0 && bytes >= (size_t)atol(rules[i].path))
            which |= (unsigned short)(1u << i);
    return fault("malloc", which, NULL);
}
void *malloc(size_t bytes) {
    if (!refused(bytes)) return __libc_malloc(bytes);
    errno = ENOMEM;
    return NULL;
}
void *calloc(size_t number, size_t bytes) {
    if (!refused(number * bytes)) return __libc_calloc(number, bytes);
    errno = ENOMEM;
    return NULL;
}
int posix_memalign(void **to, size_t alignment, size_t bytes) {
    if (refused(bytes)) return ENOMEM;
    *to = __libc_memalign(alignment, bytes);
    return *to ? 0 : ENOMEM;
}
void *aligned_alloc(size_t alignment, size_t bytes) {
    return refused(bytes) ? NULL : __libc_memalign(alignment, bytes);
}

typedef struct {
    void *(*begin)(void *);
    void *argument;
    long rules_set;
} Thread;

static void thread_ended(void *thread) {
    pthread_mutex_lock(&mutex);
    for (int i = 0; i < count && ((Thread *)thread)->rules_set == rules_set; i++)
        if (strcmp(rules[i].call, "pthread_create") == 0) rules[i].written--;
    pthread_mutex_unlock(&mutex);
    free(thread);
}

static void *run_thread(void *thread) {
    void *result;
    pthread_cleanup_push(thread_ended, thread);
    result = ((Thread *)thread)->begin(((Thread *)thread)->argument);
    pthread_cleanup_pop(1);
    return result;
}

int pthread_create(pthread_t *made, const pthread_attr_t *attributes, void *(*begin)(void *), void *argument) {
    if (count == 0) return REAL(pthread_create)(made, attributes, begin, argument);
    size_t one = 1;
    int error = fault("pthread_create", matching("*"), &one);
    if (error) return error;
    Thread *thread = __libc_malloc(sizeof *thread);
    if (!thread) return EAGAIN;
    *thread = (Thread){begin, argument, rules_set};
    error = REAL(pthread_create)(made, attributes, run_thread, thread);
    if (error) free(thread);
    return error;
}
