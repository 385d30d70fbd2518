/*
 * Selection: what is compared -> kept bits, kept coordinates per block, the residual to be with kept values left in place.
 * A rule looks at one block at a time, in level 1 cache.
 */
#include "draws.h"
#include "stages.h"

/* ---- kept bits ---- */

/* Bit j of word w: |a[32 w + j]| > limit. Elements beyond n must be 0. */
GS_INLINE uint32_t wordAbove(const gsReal *a, gsReal limit)
{
    uint32_t word = 0;
#if defined(__AVX2__) && !defined(GS_WIDE)
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff), threshold = _mm256_set1_epi32((int)gsBits(limit));
    for (int j = 0; j < 4; j++) {
        __m256i x = _mm256_and_si256(_mm256_loadu_si256((const __m256i *)(a + 8 * j)), magnitude);
        word |= (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(x, threshold))) << 8 * j;
    }
#else
    for (int j = 0; j < 32; j++)
        word |= (uint32_t)gsThresholdKeeps(a[j], limit) << j;
#endif
    return word;
}

GS_INLINE uint32_t keepAbove(const gsReal *a, gsReal limit, uint32_t *bits)
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

/* ---- rules that look at magnitudes: a = g + e stands in the residual to be, or whatever was prepared in x ---- */

/* Returns whether every a is finite. The block's tail is filled with zeros. */
GS_INLINE int addResidual(gsVector block, const gsReal *e, gsReal *a, uint32_t n, uint32_t type)
{
    int finite = 1;
    for (uint32_t i = 0; i < n; i++) {
        a[i] = loadElement(type, block.values, i) + e[i];
        finite &= gsFinite(a[i]);
    }
    for (uint32_t i = n; i < GS_BLOCK; i++)
        a[i] = 0;
    return finite;
}

GS_INLINE uint32_t countAbove(const gsReal *a, keyBits limit)
{
    uint32_t n = 0;
    for (int i = 0; i < GS_BLOCK; i++)
        n += keyOf(a[i]) > limit;
    return n;
}

/* Of the elements that equal the limit, the lowest indices fill up to k. Returns how many there were. */
GS_INLINE uint32_t keepTies(const gsReal *a, uint32_t n, keyBits limit, uint32_t missing, uint32_t *bits)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n && kept < missing; i++)
        if (keyOf(a[i]) == limit) {
            bits[i / 32] |= 1u << i % 32;
            kept++;
        }
    return kept;
}

/* Exactly k of the n: bisection for the k-th largest bit pattern, each probe one pass over the block. A probe that counts exactly
 * k ends it early; ties never do, and go by index. */
GS_INLINE uint32_t keepLargest(const gsReal *a, uint32_t n, uint32_t k, uint32_t *bits)
{
    keyBits low = 0, high = (keyBits)1 << KEY_BITS; /* above(low - 1) >= k (or low = 0) and above(high - 1) < k */
    while (low + 1 < high) {
        keyBits probe = low + (high - low) / 2;
        uint32_t above = countAbove(a, probe - 1);
        if (above == k) {
            keepAbove(a, realOf(probe - 1), bits);
            return k;
        }
        if (above > k)
            low = probe;
        else
            high = probe;
    }
    uint32_t above = keepAbove(a, realOf(low), bits);
    keepTies(a, n, low, k - above, bits);
    return k;
}

GS_INLINE uint32_t keepMoved(const gsReducer_t r, const gsReal *a, uint64_t first, uint32_t n, uint32_t *bits)
{
    const gsSpec *spec = &r->spec;
    const gsReal *before = currentOf(r, r->previous) + first, *now = nextOf(r, r->previous) + first;
    gsReal limit = (gsReal)(spec->xi / (double)spec->nranks), factor[GS_BLOCK];
    uint32_t kept = 0;
    if (r->xi)
        loadForeign(spec->paramsType, r->xi, first, n, factor);
    memset(bits, 0, GS_BLOCK_WORDS * sizeof *bits);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t keep = (uint32_t)gsStepKeeps(a[i], r->xi ? limit * factor[i] : limit, now[i], before[i]);
        bits[i / 32] |= keep << i % 32;
        kept += keep;
    }
    return kept;
}

/* Of a block that travels whole, apart from what is selected. */
GS_INLINE uint32_t keepNone(uint32_t *bits)
{
    memset(bits, 0, GS_BLOCK_WORDS * sizeof *bits);
    return 0;
}

static uint32_t keepBlock(const gsReducer_t r, const gsReal *a, uint64_t b, uint32_t *bits)
{
    const gsCall *c = &r->state->call;
    uint32_t n = gsBlockLength(&r->spec, b);
    if (gsBlockIsWhole(&r->spec, b))
        return keepNone(bits);
    switch (r->spec.select) {
    case GS_SELECT_THRESHOLD: return keepAbove(a, (gsReal)c->tau, bits);
    case GS_SELECT_TOPK: return keepLargest(a, n, gsTopkKept(r->spec.k, n), bits);
    case GS_SELECT_LARGEST: return keepAbove(a, realOf((keyBits)c->limit), bits);
    default: return keepMoved(r, a, b * GS_BLOCK, n, bits);
    }
}

static void selectByMagnitude(gsReducer_t r, gsVector x)
{
    const gsSpec *spec = &r->spec;
    int add = gsSpecAdds(spec);
    uint32_t bad = 0;
    GS_FOR_BLOCKS(r, b, reduction(| : bad))
    {
        uint64_t first = (uint64_t)b * GS_BLOCK;
        const gsReal *a = add ? NULL : (const gsReal *)x.values + first;
        if (add) {
            const gsReal *e = currentOf(r, r->residual) + first;
            gsReal *sum = nextOf(r, r->residual) + first;
            uint32_t n = gsBlockLength(spec, (uint64_t)b);
            GS_FOR_TYPE(x.type, bad |= !addResidual(blockOf(x, (uint64_t)b), e, sum, n, T));
            a = sum;
        }
        r->blockKept[b] = keepBlock(r, a, (uint64_t)b, r->keptBits + b * GS_BLOCK_WORDS);
    }
    r->state->call.nonFinite |= bad;
}

/* topk: the first of those that equal the limit, over the whole vector. */
static void keepFirstTies(gsReducer_t r, const gsReal *a)
{
    uint64_t missing = r->state->call.ties;
    for (uint64_t b = 0; b < r->spec.blocks && missing; b++) {
        uint32_t room = missing < GS_BLOCK ? (uint32_t)missing : GS_BLOCK;
        uint32_t n = gsBlockIsWhole(&r->spec, b) ? 0 : gsBlockLength(&r->spec, b);
        uint32_t kept =
            keepTies(a + b * GS_BLOCK, n, (keyBits)r->state->call.limit, room, r->keptBits + b * GS_BLOCK_WORDS);
        r->blockKept[b] += kept;
        missing -= kept;
    }
}

/* ---- rules that draw ---- */

/* Returns how many of the kept have p = 1 (gspar). keep has room for a whole block; its tail becomes 0. */
GS_INLINE uint32_t drawKept(gsVector block, const uint32_t *words, uint32_t n, gsReal s, uint32_t select, uint8_t *keep,
                            uint32_t *bad, uint32_t type)
{
    uint32_t exact = 0, finite = 1;
    for (uint32_t i = 0; i < n; i++) {
        gsReal g = loadElement(type, block.values, i);
        gsReal p = select == GS_SELECT_RANDK ? s : gsGsparProbability(g, s);
        finite &= (uint32_t)gsFinite(g);
        exact += p >= (gsReal)1;
        keep[i] = (uint8_t)gsDrawKeeps(words[i], p);
    }
    for (uint32_t i = n; i < GS_BLOCK; i++)
        keep[i] = 0;
    *bad |= !finite;
    return exact;
}

GS_INLINE uint32_t drawBySelect(gsVector block, const uint32_t *words, uint32_t n, gsReal s, uint32_t select,
                                uint8_t *keep, uint32_t *bad, uint32_t type)
{
    if (select == GS_SELECT_RANDK)
        return drawKept(block, words, n, s, GS_SELECT_RANDK, keep, bad, type);
    return drawKept(block, words, n, s, GS_SELECT_GSPAR, keep, bad, type);
}

GS_INLINE uint32_t anyBad(gsVector block, uint32_t n, uint32_t type)
{
    uint32_t finite = 1;
    for (uint32_t i = 0; i < n; i++)
        finite &= (uint32_t)gsFinite(loadElement(type, block.values, i));
    return !finite;
}

static void selectByDraw(gsReducer_t r, gsVector x)
{
    const gsSpec *spec = &r->spec;
    gsReal s = (gsReal)r->state->call.s;
    uint64_t step = r->state->step;
    int groups = gsRecordGroups(spec->value), shared = spec->layout == GS_LAYOUT_MASK;
    uint32_t bad = 0;
    GS_FOR_BLOCKS(r, b, reduction(| : bad))
    {
        uint32_t words[GS_BLOCK], n = gsBlockLength(spec, (uint64_t)b), exact;
        uint32_t *bits = r->keptBits + b * GS_BLOCK_WORDS;
        uint8_t keep[GS_BLOCK];
        uint64_t first = (uint64_t)b * GS_BLOCK;
        gsVector block = blockOf(x, (uint64_t)b);
        if (gsBlockIsWhole(spec, (uint64_t)b)) {
            GS_FOR_TYPE(x.type, bad |= anyBad(block, n, T));
            for (int g = 0; g < groups; g++)
                r->blockKept[(uint64_t)g * spec->blocks + (uint64_t)b] = keepNone(bits);
            continue;
        }
        if (shared)
            drawBlock(spec->seed, first / 4, step, 0, GS_DRAW_MASK, words); /* as gsRandkDraws */
        else
            drawBlock(spec->seed, first / 4, step, spec->rank, GS_DRAW_KEEP, words);
        GS_FOR_TYPE(x.type, exact = drawBySelect(block, words, n, s, spec->select, keep, &bad, T));
        uint32_t kept = keepBytes(keep, bits);
        r->blockKept[b] = groups == 2 ? exact : kept;
        if (groups == 2)
            r->blockKept[spec->blocks + (uint64_t)b] = kept - exact;
    }
    r->state->call.nonFinite |= bad;
}

/* ---- all ---- */

static void selectAll(gsReducer_t r, gsVector x)
{
    int prepared = gsSpecPrepares(&r->spec); /* and looked at then */
    uint32_t bad = 0;
    GS_FOR_BLOCKS(r, b, reduction(| : bad))
    {
        uint32_t n = gsBlockLength(&r->spec, (uint64_t)b);
        if (!prepared)
            GS_FOR_TYPE(x.type, bad |= anyBad(blockOf(x, (uint64_t)b), n, T));
        r->blockKept[b] = gsBlockIsWhole(&r->spec, (uint64_t)b) ? 0 : n;
    }
    r->state->call.nonFinite |= bad;
}

/* ---- rows ---- */

/* Marks the rows of which the block's n elements, from `first` on, are not all 0. Returns whether one is not finite. Rows cross blocks: neighbours share
 * words. */
GS_INLINE uint32_t markRows(gsReducer_t r, gsVector block, uint64_t first, uint32_t n, uint32_t type)
{
    uint32_t width = r->spec.width, finite = 1, word = 0, end;
    uint64_t row = first / width;
    for (uint32_t at = 0; at < n; at = end, row++) {
        uint32_t any = 0;
        end = gsRowEnd(row, width, first, n);
        for (uint32_t i = at; i < end; i++) {
            gsReal g = loadElement(type, block.values, i);
            any |= g != (gsReal)0;
            finite &= (uint32_t)gsFinite(g);
        }
        word |= any << row % 32;
        if (word && (row % 32 == 31 || end == n)) {
            __atomic_fetch_or(&r->rowBits[row / 32], word, __ATOMIC_RELAXED);
            word = 0;
        }
    }
    return !finite;
}

/* Sets bits from .. to - 1. */
GS_INLINE void setBits(uint32_t *bits, uint32_t from, uint32_t to)
{
    for (uint32_t next; from < to; from = next) {
        next = from / 32 * 32 + 32 < to ? from / 32 * 32 + 32 : to;
        bits[from / 32] |= ~0u >> (32 - (next - from)) << from % 32;
    }
}

/* What the marked rows have in n elements. Returns how many those are. */
GS_INLINE uint32_t keepRows(const gsReducer_t r, uint64_t first, uint32_t n, uint32_t *bits)
{
    uint32_t width = r->spec.width, kept = 0, end;
    uint64_t row = first / width;
    memset(bits, 0, GS_BLOCK_WORDS * sizeof *bits);
    for (uint32_t at = 0; at < n; at = end, row++) {
        end = gsRowEnd(row, width, first, n);
        if (!gsRowTravels((const uint8_t *)r->rowBits, row))
            continue;
        setBits(bits, at, end);
        kept += end - at;
    }
    return kept;
}

static void selectRows(gsReducer_t r, gsVector x)
{
    uint32_t bad = 0;
    memset(r->rowBits, 0, (gsRecordRows(r->spec.count, r->spec.width) + 31) / 32 * sizeof *r->rowBits);
    GS_FOR_BLOCKS(r, b, reduction(| : bad))
    {
        uint32_t n = gsBlockLength(&r->spec, (uint64_t)b);
        GS_FOR_TYPE(x.type, bad |= markRows(r, blockOf(x, (uint64_t)b), (uint64_t)b * GS_BLOCK, n, T));
    }
    GS_FOR_BLOCKS(r, b, )
    {
        uint32_t n = gsBlockLength(&r->spec, (uint64_t)b);
        r->blockKept[b] = keepRows(r, (uint64_t)b * GS_BLOCK, n, r->keptBits + b * GS_BLOCK_WORDS);
    }
    r->state->call.nonFinite |= bad;
}

void GS_STAGE(gsSelect)(gsReducer_t r, gsVector x)
{
    switch (r->spec.select) {
    case GS_SELECT_GSPAR:
    case GS_SELECT_RANDK: selectByDraw(r, x); break;
    case GS_SELECT_ALL: selectAll(r, x); break;
    case GS_SELECT_ROWS: selectRows(r, x); break;
    default: selectByMagnitude(r, x); break;
    }
    if (r->spec.select == GS_SELECT_LARGEST)
        keepFirstTies(r, x.values);
}
