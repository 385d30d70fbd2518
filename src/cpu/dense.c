/* Dense loops: the rank-ordered sum of slices, the search for non-finite results, and the scaling of a residual. */
#include "stages.h"

GS_INLINE void sumRange(const gsReducer_t r, const void *slices, uint64_t apart, void *out, uint64_t from, uint64_t to,
                        float factor, uint32_t type)
{
    float sum[GS_BLOCK];
    for (uint64_t i = from; i < to; i++)
        sum[i - from] = loadElement(type, slices, i);
    for (uint32_t rank = 1; rank < r->spec.nranks; rank++)
        for (uint64_t i = from; i < to; i++)
            sum[i - from] += loadElement(type, slices, rank * apart + i);
    for (uint64_t i = from; i < to; i++)
        storeElement(type, out, i, sum[i - from] * factor);
}

void GS_STAGE(gsSumSlices)(gsReducer_t r, const void *slices, uint64_t apart, void *out, uint64_t n, gsRedOp_t op)
{
    float factor = op == GS_AVG ? 1.0f / (float)r->spec.nranks : 1.0f;
    GS_PRAGMA(omp parallel for schedule(static) num_threads(r->cpuThreads) if (r->cpuThreads > 1))
    for (int64_t from = 0; from < (int64_t)n; from += GS_BLOCK) {
        uint64_t to = n - (uint64_t)from < GS_BLOCK ? n : (uint64_t)from + GS_BLOCK;
        GS_FOR_TYPE(r->spec.type, sumRange(r, slices, apart, out, (uint64_t)from, to, factor, T));
    }
}

GS_INLINE uint32_t largestMagnitude(const void *values, uint64_t first, uint32_t n, uint32_t type)
{
    uint32_t largest = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t magnitude = gsMagnitudeBits(loadElement(type, values, first + i));
        largest = largest > magnitude ? largest : magnitude;
    }
    return largest;
}

int GS_STAGE(gsAllFinite)(gsReducer_t r, const void *values)
{
    uint32_t bad = 0;
    GS_PRAGMA(omp parallel for schedule(static) num_threads(r->cpuThreads) if (r->cpuThreads > 1) reduction(| : bad))
    for (int64_t b = 0; b < (int64_t)r->spec.blocks; b++)
        GS_FOR_TYPE(r->spec.type, bad |= largestMagnitude(values, (uint64_t)b * GS_BLOCK,
                                                          blockLength(&r->spec, (uint64_t)b), T) >= GS_F32_INF);
    return !bad;
}

void GS_STAGE(gsScale)(gsReducer_t r, float *residual, float factor)
{
    GS_FOR_BLOCKS(r, b)
    {
        for (uint64_t i = 0; i < GS_BLOCK; i++)
            residual[(uint64_t)b * GS_BLOCK + i] *= factor;
    }
}
