/* The checksum of a record in host memory; its structure is judged by ../record.c. */
#include "stages.h"

GS_INLINE uint64_t sumTerms(const uint64_t *words, uint64_t key, int64_t from, int64_t to)
{
    uint64_t sum = 0;
    for (int64_t j = from; j < to; j++)
        sum += gsChecksumTerm(key, (uint64_t)j, words[j]);
    return sum;
}

/* By runs of a block's size, which each thread has many of. */
static uint64_t sumRuns(const gsReducer_t r, const uint64_t *words, uint64_t key, int64_t from, int64_t to)
{
    uint64_t sum = 0;
    (void)r; /* without OpenMP */
    GS_PRAGMA(omp parallel for schedule(static) num_threads(r->cpuThreads) reduction(+ : sum))
    for (int64_t j = from; j < to; j += GS_BLOCK)
        sum += sumTerms(words, key, j, to - j < GS_BLOCK ? to : j + GS_BLOCK);
    return sum;
}

/* Below a megabyte starting threads costs more than the sum; and a parallel region of one thread is not free either, P times a call. */
uint64_t GS_STAGE(gsChecksum)(const gsReducer_t r, const uint8_t *record, uint64_t key, uint64_t bytes)
{
    const uint64_t *words = (const uint64_t *)(const void *)record;
    int64_t n = (int64_t)(bytes / 8), behind = GS_RECORD_CHECKSUM_WORD + 1;
    uint64_t sum = sumTerms(words, key, 0, GS_RECORD_CHECKSUM_WORD);
    if (r->cpuThreads > 1 && n > (1 << 17))
        return sum + sumRuns(r, words, key, behind, n);
    return sum + sumTerms(words, key, behind, n);
}
