/*
 * Statistics of this step's gradient: gspar's scale (sums by the fixed tree) and threshold's first tau (a histogram).
 *
 * The tree: lane l of 32 sums a block's elements = l mod 32 in index order, in double; lanes fold 16, 8, 4, 2, 1; blocks fold in
 * pairs over the block number. Every backend adds in this order.
 */
#include "stages.h"

enum { LANES = 32 };

typedef struct {
    double sum;
    uint32_t below;
    int nonFinite;
} blockStatistics;

GS_INLINE double foldLanes(double *lane)
{
    for (int off = LANES / 2; off > 0; off /= 2)
        for (int l = 0; l < off; l++)
            lane[l] += lane[l + off];
    return lane[0];
}

typedef struct {
    double sum[LANES];
    uint32_t below[LANES], nonFinite[LANES];
} laneStatistics;

/* One element a lane. */
GS_INLINE void addRow(laneStatistics *lane, const void *sendbuff, uint64_t first, uint32_t lanes, float s,
                      uint32_t type)
{
    for (uint32_t l = 0; l < lanes; l++) {
        float g = loadElement(type, sendbuff, first + l), m = fabsf(g);
        uint32_t finite = gsMagnitudeBits(g) < GS_F32_INF, take = finite & (s * m < 1.0f);
        lane->sum[l] += (double)(take ? m : 0.0f);
        lane->below[l] += take;
        lane->nonFinite[l] |= !finite;
    }
}

/* Sum and number of the |g| with s |g| < 1; s = 0 takes all. */
GS_INLINE blockStatistics sumBlock(const void *sendbuff, uint64_t first, uint32_t n, float s, uint32_t type)
{
    laneStatistics lane = {0};
    uint32_t whole = n / LANES * LANES;
    for (uint32_t i = 0; i < whole; i += LANES)
        addRow(&lane, sendbuff, first + i, LANES, s, type); /* a constant, for the vectoriser */
    addRow(&lane, sendbuff, first + whole, n - whole, s, type);
    blockStatistics out = {.sum = foldLanes(lane.sum)};
    for (int l = 0; l < LANES; l++) {
        out.below += lane.below[l];
        out.nonFinite |= (int)lane.nonFinite[l];
    }
    return out;
}

static void foldBlocks(double *sum, uint64_t blocks)
{
    for (uint64_t w = 1; w < blocks; w *= 2)
        for (uint64_t b = 0; b + w < blocks; b += 2 * w)
            sum[b] += sum[b + w];
}

GS_INLINE void scalePass(gsReducer_t r, const void *sendbuff, int pass, uint32_t type)
{
    gsCall *c = &r->state->call;
    uint64_t below = 0;
    int nonFinite = 0;
    GS_PRAGMA(omp parallel for schedule(static) num_threads(r->cpuThreads) if (r->cpuThreads > 1) reduction(+ : below) reduction(| : nonFinite))
    for (int64_t b = 0; b < (int64_t)r->spec.blocks; b++) {
        uint64_t first = (uint64_t)b * GS_BLOCK;
        blockStatistics s =
            sumBlock(sendbuff, first, blockLength(&r->spec, (uint64_t)b), pass == 0 ? 0.0f : c->s, type);
        r->blockSum[b] = s.sum;
        below += s.below;
        nonFinite |= s.nonFinite;
    }
    foldBlocks(r->blockSum, r->spec.blocks);
    c->nonFinite |= (uint32_t)nonFinite;
    gsCallRescale(&r->spec, c, pass, below, r->spec.blocks ? r->blockSum[0] : 0.0);
}

void GS_STAGE(gsFindScale)(gsReducer_t r, const void *sendbuff)
{
    for (int pass = 0; pass <= GS_GSPAR_RESCALES; pass++)
        GS_FOR_TYPE(r->spec.type, scalePass(r, sendbuff, pass, T));
}

void GS_STAGE(gsFindTau)(gsReducer_t r, const void *sendbuff)
{
    const float *e = r->residual[r->state->phase];
    for (int bin = 0; bin < GS_HISTOGRAM_BINS; bin++)
        r->histogram[bin] = 0;
    for (uint64_t i = 0; i < r->spec.count; i++) {
        float a = loadElement(r->spec.type, sendbuff, i) + e[i];
        if (gsIsFinite(a))
            r->histogram[gsHistogramBin(a)]++;
    }
    r->state->call.tau = gsTauFromHistogram(r->histogram, r->spec.target);
}
