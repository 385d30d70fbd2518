/* The checksum of a record in host memory; its structure is judged by ../record.c. */
#include "stages.h"

uint64_t GS_STAGE(gsChecksum)(const gsReducer_t r, const uint8_t *record, uint64_t key, uint64_t bytes)
{
    const uint64_t *words = (const uint64_t *)(const void *)record;
    int64_t n = (int64_t)(bytes / 8);
    uint64_t sum = 0;
    int pays = r->cpuThreads > 1 && n > (1 << 17); /* below a megabyte starting threads costs more than the sum */
    (void)pays;                                    /* without OpenMP */
    GS_PRAGMA(omp parallel for schedule(static) num_threads(r->cpuThreads) if (pays) reduction(+ : sum))
    for (int64_t j = GS_RECORD_CHECKSUM_WORD + 1; j < n; j++)
        sum += gsChecksumTerm(key, (uint64_t)j, words[j]);
    for (uint64_t j = 0; j < GS_RECORD_CHECKSUM_WORD; j++)
        sum += gsChecksumTerm(key, j, words[j]);
    return sum;
}
