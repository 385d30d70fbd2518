/*
 * Selection: gradient (and residual) -> kept bits, kept coordinates per block, the residual to be with kept values left in place.
 * A rule looks at one block at a time, in level 1 cache.
 */
#include "draws.h"
#include "stages.h"

/* ---- kept bits ---- */

/* Bit j of word w: |a[32 w + j]| > limit, as bit patterns. Elements beyond n must be 0. */
GS_INLINE uint32_t wordAbove(const float *a, uint32_t limit)
{
#ifdef __AVX2__
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff), threshold = _mm256_set1_epi32((int)limit);
    uint32_t word = 0;
    for (int j = 0; j < 4; j++) {
        __m256i x = _mm256_and_si256(_mm256_loadu_si256((const __m256i *)(a + 8 * j)), magnitude);
        word |= (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(x, threshold))) << 8 * j;
    }
    return word;
#else
    uint32_t word = 0;
    for (int j = 0; j < 32; j++)
        word |= (uint32_t)(gsMagnitudeBits(a[j]) > limit) << j;
    return word;
#endif
}

GS_INLINE uint32_t keepAbove(const float *a, uint32_t limit, uint32_t *bits)
{
    uint32_t kept = 0;
    for (int w = 0; w < GS_BLOCK_WORDS; w++) {
        bits[w] = wordAbove(a + 32 * w, limit);
        kept += (uint32_t)__builtin_popcount(bits[w]);
    }
    return kept;
}

/* Bytes of 0 or 1 -> bits. */
GS_INLINE uint32_t keepBytes(const uint8_t *keep, uint32_t *bits)
{
    uint32_t kept = 0;
    for (int w = 0; w < GS_BLOCK_WORDS; w++) {
        uint32_t word = 0;
        for (int j = 0; j < 4; j++) { /* the product gathers eight bytes' low bits in the top byte */
            uint64_t eight;
            memcpy(&eight, keep + 32 * w + 8 * j, 8);
            word |= (uint32_t)((eight * 0x0102040810204080u) >> 56) << 8 * j;
        }
        bits[w] = word;
        kept += (uint32_t)__builtin_popcount(word);
    }
    return kept;
}

/* ---- rules with feedback: a = g + e stands in the residual to be ---- */

/* Returns whether every a is finite. The block's tail is filled with zeros. */
GS_INLINE int addResidual(const void *sendbuff, const float *e, float *a, uint64_t first, uint32_t n, uint32_t type)
{
    uint32_t largest = 0;
    for (uint32_t i = 0; i < n; i++) {
        float sum = loadElement(type, sendbuff, first + i) + e[i];
        uint32_t magnitude = gsMagnitudeBits(sum);
        largest = largest > magnitude ? largest : magnitude;
        a[i] = sum;
    }
    for (uint32_t i = n; i < GS_BLOCK; i++)
        a[i] = 0.0f;
    return largest < GS_F32_INF;
}

GS_INLINE uint32_t countAbove(const float *a, uint32_t limit)
{
    uint32_t n = 0;
    for (int i = 0; i < GS_BLOCK; i++)
        n += gsMagnitudeBits(a[i]) > limit;
    return n;
}

/* Of the elements that equal the limit, the lowest indices fill up to k. */
GS_INLINE void keepTies(const float *a, uint32_t n, uint32_t limit, uint32_t missing, uint32_t *bits)
{
    for (uint32_t i = 0; i < n && missing > 0; i++)
        if (gsMagnitudeBits(a[i]) == limit) {
            bits[i / 32] |= 1u << i % 32;
            missing--;
        }
}

/* Exactly k of the n: bisection for the k-th largest bit pattern, each probe one pass over the block. A probe that counts exactly
 * k ends it early; ties never do, and go by index. */
GS_INLINE uint32_t keepLargest(const float *a, uint32_t n, uint32_t k, uint32_t *bits)
{
    uint32_t low = 0, high = 0x80000000u; /* above(low - 1) >= k (or low = 0) and above(high - 1) < k */
    while (low + 1 < high) {
        uint32_t probe = low + (high - low) / 2, above = countAbove(a, probe - 1);
        if (above == k) {
            keepAbove(a, probe - 1, bits);
            return k;
        }
        if (above > k)
            low = probe;
        else
            high = probe;
    }
    uint32_t above = keepAbove(a, low, bits);
    keepTies(a, n, low, k - above, bits);
    return k;
}

GS_INLINE void selectWithFeedback(gsReducer_t r, const void *sendbuff, uint32_t select, uint32_t type)
{
    const gsSpec *spec = &r->spec;
    const float *e = r->residual[r->state->phase];
    float *a = r->residual[r->state->phase ^ 1];
    uint32_t limit = gsBits(r->state->call.tau);
    uint32_t bad = 0;
    GS_PRAGMA(omp parallel for schedule(static) num_threads(r->cpuThreads) if (r->cpuThreads > 1) reduction(| : bad))
    for (int64_t b = 0; b < (int64_t)spec->blocks; b++) {
        uint64_t first = (uint64_t)b * GS_BLOCK;
        uint32_t n = blockLength(spec, (uint64_t)b), *bits = r->keptBits + b * GS_BLOCK_WORDS;
        bad |= !addResidual(sendbuff, e + first, a + first, first, n, type);
        r->blockKept[b] = select == GS_SELECT_THRESHOLD ? keepAbove(a + first, limit, bits)
                                                        : keepLargest(a + first, n, gsTopkKept(spec->k, n), bits);
    }
    r->state->call.nonFinite |= bad;
}

/* ---- rules without feedback: a draw decides ---- */

/* Returns how many of the kept have p = 1 (gspar). keep has room for a whole block; its tail becomes 0. */
GS_INLINE uint32_t drawKept(const void *sendbuff, const uint32_t *words, uint64_t first, uint32_t n, float s,
                            uint32_t select, uint8_t *keep, uint32_t *bad, uint32_t type)
{
    uint32_t exact = 0, largest = 0;
    for (uint32_t i = 0; i < n; i++) {
        float g = loadElement(type, sendbuff, first + i);
        float p = select == GS_SELECT_RANDK ? s : gsGsparProbability(g, s);
        uint32_t magnitude = gsMagnitudeBits(g);
        largest = largest > magnitude ? largest : magnitude;
        exact += p >= 1.0f;
        keep[i] = (uint8_t)gsDrawKeeps(words[i], p);
    }
    for (uint32_t i = n; i < GS_BLOCK; i++)
        keep[i] = 0;
    *bad |= largest >= GS_F32_INF;
    return exact;
}

GS_INLINE void selectByDraw(gsReducer_t r, const void *sendbuff, uint32_t select, uint32_t type)
{
    const gsSpec *spec = &r->spec;
    float s = r->state->call.s;
    uint64_t step = r->state->step;
    int groups = gsRecordGroups(spec->value);
    uint32_t bad = 0;
    GS_PRAGMA(omp parallel for schedule(static) num_threads(r->cpuThreads) if (r->cpuThreads > 1) reduction(| : bad))
    for (int64_t b = 0; b < (int64_t)spec->blocks; b++) {
        uint32_t words[GS_BLOCK];
        uint8_t keep[GS_BLOCK];
        uint64_t first = (uint64_t)b * GS_BLOCK;
        if (select == GS_SELECT_RANDK)
            drawBlock(spec->seed, first / 4, step, 0, GS_DRAW_MASK, words); /* as gsRandkDraws */
        else
            drawBlock(spec->seed, first / 4, step, spec->rank, GS_DRAW_KEEP, words);
        uint32_t exact = drawKept(sendbuff, words, first, blockLength(spec, (uint64_t)b), s, select, keep, &bad, type);
        uint32_t kept = keepBytes(keep, r->keptBits + b * GS_BLOCK_WORDS);
        r->blockKept[b] = groups == 2 ? exact : kept;
        if (groups == 2)
            r->blockKept[spec->blocks + (uint64_t)b] = kept - exact;
    }
    r->state->call.nonFinite |= bad;
}

void GS_STAGE(gsSelect)(gsReducer_t r, const void *sendbuff)
{
    switch (r->spec.select) {
    case GS_SELECT_THRESHOLD: GS_FOR_TYPE(r->spec.type, selectWithFeedback(r, sendbuff, GS_SELECT_THRESHOLD, T)); break;
    case GS_SELECT_TOPK: GS_FOR_TYPE(r->spec.type, selectWithFeedback(r, sendbuff, GS_SELECT_TOPK, T)); break;
    case GS_SELECT_GSPAR: GS_FOR_TYPE(r->spec.type, selectByDraw(r, sendbuff, GS_SELECT_GSPAR, T)); break;
    case GS_SELECT_RANDK: GS_FOR_TYPE(r->spec.type, selectByDraw(r, sendbuff, GS_SELECT_RANDK, T)); break;
    }
}
