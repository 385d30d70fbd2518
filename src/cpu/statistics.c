/*
 * Statistics of one vector: sums by the fixed tree (lanes, then pairs of blocks, in double), the largest magnitude, and the histograms
 * behind threshold's first tau and topk's limit. Every backend adds in this order.
 */
#include "stages.h"

typedef struct {
    double magnitudes[GS_LANES], squares[GS_LANES], plain[GS_LANES];
    gsReal largest[GS_LANES];
    uint32_t below[GS_LANES];
} laneSums;

/* One element a lane. What is not finite counts as nothing: the call is lost anyway. */
GS_INLINE void addRow(laneSums *lane, gsVector block, uint32_t first, uint32_t lanes, gsReal s, uint32_t what,
                      uint32_t type)
{
    for (uint32_t l = 0; l < lanes; l++) {
        gsReal g = loadElement(type, block.values, first + l), m = gsAbs(g);
        uint32_t finite = gsFinite(g), take = finite & (s * m < (gsReal)1);
        gsReal part = take ? m : (gsReal)0;
        if (what & GS_SUM_MAGNITUDES)
            lane->magnitudes[l] += (double)part;
        if (what & GS_SUM_SQUARES)
            lane->squares[l] += (double)part * (double)part;
        if (what & GS_SUM_PLAIN)
            lane->plain[l] += take ? (double)g : 0.0;
        if (what & GS_SUM_LARGEST)
            lane->largest[l] = finite && m > lane->largest[l] ? m : lane->largest[l];
        lane->below[l] += take;
    }
}

GS_INLINE gsSums sumBlock(gsVector block, uint32_t n, gsReal s, uint32_t what, uint32_t type)
{
    laneSums lane = {0};
    uint32_t whole = n / GS_LANES * GS_LANES;
    gsSums sums = {0};
    for (uint32_t i = 0; i < whole; i += GS_LANES)
        addRow(&lane, block, i, GS_LANES, s, what, type); /* a constant, for the vectoriser */
    addRow(&lane, block, whole, n - whole, s, what, type);
    for (int l = 0; l < GS_LANES; l++) {
        sums.below += lane.below[l];
        sums.largest = (double)lane.largest[l] > sums.largest ? (double)lane.largest[l] : sums.largest;
    }
    if (what & GS_SUM_MAGNITUDES)
        sums.magnitudes = foldLanes(lane.magnitudes);
    if (what & GS_SUM_SQUARES)
        sums.squares = foldLanes(lane.squares);
    if (what & GS_SUM_PLAIN)
        sums.plain = foldLanes(lane.plain);
    return sums;
}

/* `what` a constant where it pays: the passes of gspar. */
GS_INLINE gsSums sumWhat(gsVector block, uint32_t n, gsReal s, uint32_t what, uint32_t type)
{
    if (what == GS_SUM_MAGNITUDES)
        return sumBlock(block, n, s, GS_SUM_MAGNITUDES, type);
    return sumBlock(block, n, s, what, type);
}

gsSums GS_STAGE(gsSumVector)(gsReducer_t r, gsVector x, double s, uint32_t what)
{
    uint64_t blocks = r->spec.blocks, below = 0;
    double *magnitudes = r->blockSum, *squares = magnitudes + blocks, *plain = squares + blocks, largest = 0.0;
    GS_FOR_BLOCKS(r, b, reduction(+ : below) reduction(max : largest))
    {
        uint32_t n = gsBlockLength(&r->spec, (uint64_t)b);
        gsSums block;
        GS_FOR_TYPE(x.type, block = sumWhat(blockOf(x, (uint64_t)b), n, (gsReal)s, what, T));
        if (gsBlockIsWhole(&r->spec, (uint64_t)b) && !(what & GS_SUM_ALL))
            block = (gsSums){.largest = block.largest};
        magnitudes[b] = block.magnitudes;
        squares[b] = block.squares;
        plain[b] = block.plain;
        below += block.below;
        largest = block.largest > largest ? block.largest : largest;
    }
    return (gsSums){.magnitudes = foldBlocks(magnitudes, blocks),
                    .squares = foldBlocks(squares, blocks),
                    .plain = foldBlocks(plain, blocks),
                    .largest = largest,
                    .below = below};
}

/* Counts a block's magnitudes, of x or of x + e. */
GS_INLINE void countBlock(gsReducer_t r, gsVector block, const gsReal *e, uint32_t n, uint32_t type)
{
    for (uint32_t i = 0; i < n; i++) {
        gsReal a = loadElement(type, block.values, i) + (e ? e[i] : (gsReal)0);
        if (gsFinite(a))
            r->histogram[gsHistogramBin((float)a)]++;
    }
}

void GS_STAGE(gsFindTau)(gsReducer_t r, gsVector x)
{
    const gsReal *e = gsSpecAdds(&r->spec) ? currentOf(r, r->residual) : NULL;
    for (int bin = 0; bin < GS_HISTOGRAM_BINS; bin++)
        r->histogram[bin] = 0;
    for (uint64_t b = 0; b < r->spec.blocks; b++) {
        if (gsBlockIsWhole(&r->spec, b))
            continue;
        GS_FOR_TYPE(x.type, countBlock(r, blockOf(x, b), e ? e + b * GS_BLOCK : NULL, gsBlockLength(&r->spec, b), T));
    }
    r->state->call.tau = (double)gsTauFromHistogram(r->histogram, r->spec.target);
}

enum { DIGIT = 11, WIDTH = 8 * sizeof(gsReal) - 1 };

/* Counts a block's next digit, where its higher digits are the prefix. */
static void countDigits(gsReducer_t r, const gsReal *a, uint32_t n, uint64_t prefix, int shift)
{
    for (uint32_t i = 0; i < n; i++) {
        uint64_t key = keyOf(a[i]) >> shift;
        if (key >> DIGIT == prefix)
            r->histogram[key & ((1u << DIGIT) - 1u)]++;
    }
}

/*
 * The k-th largest magnitude, digit by digit from the top: a histogram of the digit among those whose higher digits are known.
 * Digits of 11 bits: three passes for float32, six for float64.
 */
void GS_STAGE(gsFindLimit)(gsReducer_t r, gsVector x, uint64_t k)
{
    const gsReal *a = x.values;
    uint64_t prefix = 0, wanted = k;
    int shift = (WIDTH + DIGIT - 1) / DIGIT * DIGIT;
    while (shift > 0) {
        shift -= DIGIT;
        for (int bin = 0; bin < 1 << DIGIT; bin++)
            r->histogram[bin] = 0;
        for (uint64_t b = 0; b < r->spec.blocks; b++)
            if (!gsBlockIsWhole(&r->spec, b))
                countDigits(r, a + b * GS_BLOCK, gsBlockLength(&r->spec, b), prefix, shift);
        uint64_t bin = (1u << DIGIT) - 1u;
        for (; bin > 0 && r->histogram[bin] < wanted; bin--)
            wanted -= r->histogram[bin];
        prefix = prefix << DIGIT | bin;
    }
    r->state->call.limit = prefix;
    r->state->call.ties = wanted;
}
