/* copy.c: memcpy, a copy with non-temporal stores, and memset, by several threads. */
#include "copy.h"

#include "perf.h"

#include <pthread.h>
#include <string.h>

#ifdef __x86_64__
#include <immintrin.h>
#endif

enum { LINE = 64, MAX_THREADS = 1024 };

typedef struct {
    void (*pass)(char *to, const char *from, size_t bytes);
    char *to;
    const char *from;
    size_t bytes;
    pthread_t thread;
} part_t;

static void plain(char *to, const char *from, size_t bytes)
{
    memcpy(to, from, bytes);
}

static void fill(char *to, const char *from, size_t bytes)
{
    (void)from;
    memset(to, 0, bytes);
}

#ifdef __x86_64__
static void streaming(char *to, const char *from, size_t bytes)
{
    size_t at = 0;
    for (; at + LINE <= bytes; at += LINE)
        for (size_t part = at; part < at + LINE; part += sizeof(__m128i))
            _mm_stream_si128((__m128i *)(void *)(to + part),
                             _mm_load_si128((const __m128i *)(const void *)(from + part)));
    _mm_sfence();
    memcpy(to + at, from + at, bytes - at);
}
#else
static void streaming(char *to, const char *from, size_t bytes)
{
    memcpy(to, from, bytes);
}
#endif

static void *runPart(void *argument)
{
    part_t *part = argument;
    part->pass(part->to, part->from, part->bytes);
    return NULL;
}

static void divide(void (*pass)(char *, const char *, size_t), void *to, const void *from, size_t bytes, int threads)
{
    part_t parts[MAX_THREADS];
    size_t lines = bytes / LINE / (size_t)threads * LINE; /* bytes of a thread; the last one also takes the rest */
    for (int t = threads - 1; t >= 0; t--) {
        size_t at = lines * (size_t)t;
        parts[t] = (part_t){.pass = pass,
                            .to = (char *)to + at,
                            .from = (const char *)from + at,
                            .bytes = t == threads - 1 ? bytes - at : lines};
        if (t > 0 && pthread_create(&parts[t].thread, NULL, runPart, &parts[t]))
            perfStop(PERF_EXIT_WRONG, "the system gives no thread %d of %d", t, threads);
    }
    runPart(&parts[0]);
    for (int t = 1; t < threads; t++)
        pthread_join(parts[t].thread, NULL);
}

void copyPlain(void *to, const void *from, size_t bytes, int threads)
{
    divide(plain, to, from, bytes, threads);
}

void copyStreaming(void *to, const void *from, size_t bytes, int threads)
{
    divide(streaming, to, from, bytes, threads);
}

void copyFill(void *to, const void *unused, size_t bytes, int threads)
{
    divide(fill, to, unused, bytes, threads);
}
