/* Dense loops: the rank-ordered sum of slices, the search for non-finite results, their way into an optimizer's step, and the scaling of a
 * remembered vector. */
#include "stages.h"

GS_INLINE void sumRange(gsVector slices, uint32_t ranks, uint64_t apart, void *out, uint64_t from, uint64_t to,
                        gsReal factor, uint32_t type)
{
    gsReal sum[GS_BLOCK];
    for (uint64_t i = from; i < to; i++)
        sum[i - from] = loadElement(type, slices.values, i);
    for (uint32_t rank = 1; rank < ranks; rank++)
        for (uint64_t i = from; i < to; i++)
            sum[i - from] += loadElement(type, slices.values, rank * apart + i);
    for (uint64_t i = from; i < to; i++)
        storeElement(type, out, i, sum[i - from] * factor);
}

void GS_STAGE(gsSumSlices)(gsReducer_t r, gsVector slices, uint32_t ranks, uint64_t apart, void *out, uint64_t n,
                           gsRedOp_t op)
{
    (void)r; /* without OpenMP */
    gsReal factor = op == GS_AVG ? (gsReal)1 / (gsReal)ranks : (gsReal)1;
    GS_PRAGMA(omp parallel for schedule(static) num_threads(r->cpuThreads) if (r->cpuThreads > 1))
    for (int64_t from = 0; from < (int64_t)n; from += GS_BLOCK) {
        uint64_t to = n - (uint64_t)from < GS_BLOCK ? n : (uint64_t)from + GS_BLOCK;
        GS_FOR_TYPE(slices.type, sumRange(slices, ranks, apart, out, (uint64_t)from, to, factor, T));
    }
}

GS_INLINE int finiteBlock(gsVector block, uint32_t n, uint32_t type)
{
    int finite = 1;
    for (uint32_t i = 0; i < n; i++)
        finite &= gsFinite(loadElement(type, block.values, i));
    return finite;
}

int GS_STAGE(gsAllFinite)(gsReducer_t r, gsVector values)
{
    int bad = 0;
    GS_FOR_BLOCKS(r, b, reduction(| : bad))
    {
        uint32_t n = gsBlockLength(&r->spec, (uint64_t)b);
        GS_FOR_TYPE(values.type, bad |= !finiteBlock(blockOf(values, (uint64_t)b), n, T));
    }
    return !bad;
}

void GS_STAGE(gsOptimizeBy)(gsReducer_t r, gsVector result, uint64_t first, uint64_t count)
{
    GS_PRAGMA(omp parallel for schedule(static) num_threads(r->cpuThreads) if (r->cpuThreads > 1))
    for (int64_t from = 0; from < (int64_t)count; from += GS_BLOCK) {
        gsReal gradient[GS_BLOCK];
        uint32_t n = count - (uint64_t)from < GS_BLOCK ? (uint32_t)(count - (uint64_t)from) : GS_BLOCK;
        loadForeign(result.type, result.values, (uint64_t)from, n, gradient);
        GS_STAGE(gsOptimize)(r->optimizer, gradient, first + (uint64_t)from, n);
    }
}

void GS_STAGE(gsScale)(gsReducer_t r, void *values, float factor)
{
    gsReal *x = values;
    GS_FOR_BLOCKS(r, b, )
    {
        for (uint64_t i = 0; i < GS_BLOCK; i++)
            x[(uint64_t)b * GS_BLOCK + i] *= (gsReal)factor;
    }
}
