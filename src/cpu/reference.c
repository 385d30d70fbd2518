/*
 * The gradient against what is remembered: a = clip g (+ momentum) + e - h - r, or the quotient by r, block by block; and the choice
 * of r among a pool, by the fixed tree.
 */
#include "../rules/choice.h"
#include "stages.h"

/* ---- one block of a reference ---- */

/* The mean of the remembered results, added in the order of their places. */
static void loadWindow(const gsReducer_t r, uint64_t first, uint32_t n, gsReal *out)
{
    uint64_t padded = (uint64_t)r->spec.blocks * GS_BLOCK,
             there = r->state->step < r->spec.window ? r->state->step : r->spec.window;
    const gsReal *history = r->history;
    gsReal share = there ? (gsReal)1 / (gsReal)there : (gsReal)0;
    for (uint32_t i = 0; i < n; i++) {
        gsReal sum = 0;
        for (uint64_t w = 0; w < there; w++)
            sum += history[w * padded + first + i];
        out[i] = sum * share;
    }
}

/* (theta before - theta) / step size: the gradient that moved plain descent here. */
static void loadMoved(const gsReducer_t r, uint64_t first, uint32_t n, gsReal *out)
{
    const gsReal *before = currentOf(r, r->previous);
    gsReal steps = (gsReal)gsMovedFactor(&r->spec, r->state->step);
    loadForeign(r->spec.paramsType, r->params, first, n, out);
    for (uint32_t i = 0; i < n; i++)
        out[i] = (before[first + i] - out[i]) * steps;
}

static void loadReference(const gsReducer_t r, uint32_t which, uint64_t first, uint32_t n, gsReal *out)
{
    const gsReal *kept = r->pool[which];
    switch (which) {
    case GS_REFERENCE_ZERO:
    case GS_REFERENCE_MEAN:
        for (uint32_t i = 0; i < n; i++)
            out[i] = which == GS_REFERENCE_MEAN;
        break;
    case GS_REFERENCE_WINDOW: loadWindow(r, first, n, out); break;
    case GS_REFERENCE_PARAMS: loadMoved(r, first, n, out); break;
    default: memcpy(out, kept + first, n * sizeof *out); break;
    }
}

void GS_STAGE(gsLoadReference)(const gsReducer_t r, const double *coefficient, uint64_t first, uint32_t n, gsReal *out)
{
    gsReal one[GS_BLOCK];
    memset(out, 0, n * sizeof *out);
    for (uint32_t p = 0; p < GS_MAX_POOL; p++) {
        if (!(r->spec.pool >> p & 1u) || coefficient[p] == 0.0)
            continue;
        loadReference(r, p, first, n, one);
        for (uint32_t i = 0; i < n; i++)
            out[i] += (gsReal)coefficient[p] * one[i];
    }
}

/* ---- the choice ---- */

GS_INLINE void loadGradient(const gsReducer_t r, gsVector block, uint32_t n, gsReal *g, uint32_t type)
{
    gsReal clip = (gsReal)r->state->call.clip;
    for (uint32_t i = 0; i < n; i++)
        g[i] = loadElement(type, block.values, i) * clip;
}

static void loadAnyGradient(const gsReducer_t r, gsVector block, uint32_t n, gsReal *g)
{
    GS_FOR_TYPE(block.type, loadGradient(r, block, n, g, T));
}

static double *dotRow(const gsReducer_t r, uint32_t p, uint32_t q)
{
    return r->blockSum + (uint64_t)gsDotAt(p, q) * r->spec.blocks;
}

/* The gradient, as number GS_MAX_POOL, or a reference that is in the pool. */
static int hasDots(const gsReducer_t r, uint32_t p)
{
    return p == GS_MAX_POOL || gsInPool(&r->spec, p);
}

/* Dots of every reference with the gradient and with each other, in rows of blockSum. */
static void sumDots(gsReducer_t r, gsVector gradient)
{
    GS_FOR_BLOCKS(r, b, )
    {
        gsReal x[GS_MAX_POOL + 1][GS_BLOCK];
        uint64_t first = (uint64_t)b * GS_BLOCK;
        uint32_t n = gsBlockLength(&r->spec, (uint64_t)b);
        loadAnyGradient(r, blockOf(gradient, (uint64_t)b), n, x[GS_MAX_POOL]);
        for (uint32_t p = 0; p < GS_MAX_POOL; p++)
            if (hasDots(r, p))
                loadReference(r, p, first, n, x[p]);
        for (uint32_t p = 0; p <= GS_MAX_POOL; p++)
            for (uint32_t q = 0; q <= p; q++)
                if (hasDots(r, p) && hasDots(r, q))
                    dotRow(r, p, q)[b] = dotBlock(x[p], x[q], n);
    }
}

/* What the ternary quotient would lose with this reference, as a sum over blocks of r'^2 |v| (max |v| - |v|). */
static double quotientLoss(gsReducer_t r, gsVector gradient, uint32_t p, double coefficient)
{
    gsReal floor = (gsReal)gsQuotientFloor(&r->spec, &r->state->call, p, coefficient);
    double *row = r->blockSum;
    GS_FOR_BLOCKS(r, b, )
    {
        gsReal g[GS_BLOCK], reference[GS_BLOCK], largest = 0;
        double lane[GS_LANES] = {0};
        uint64_t first = (uint64_t)b * GS_BLOCK;
        uint32_t n = gsBlockLength(&r->spec, (uint64_t)b);
        loadAnyGradient(r, blockOf(gradient, (uint64_t)b), n, g);
        loadReference(r, p, first, n, reference);
        for (uint32_t i = 0; i < n; i++) {
            reference[i] = gsGuarded((gsReal)coefficient * reference[i], floor);
            g[i] = gsAbs(g[i] / reference[i]);
            largest = g[i] > largest ? g[i] : largest;
        }
        for (uint32_t i = 0; i < n; i++)
            lane[i % GS_LANES] += (double)reference[i] * (double)reference[i] * (double)g[i] * (double)(largest - g[i]);
        row[b] = foldLanes(lane);
    }
    return foldBlocks(row, r->spec.blocks);
}

void GS_STAGE(gsChooseReference)(gsReducer_t r, gsVector gradient)
{
    const gsSpec *spec = &r->spec;
    gsWeighing w = {.dot = {0}};
    sumDots(r, gradient);
    for (uint32_t p = 0; p <= GS_MAX_POOL; p++)
        for (uint32_t q = 0; q <= p; q++)
            if (hasDots(r, p) && hasDots(r, q))
                w.dot[gsDotAt(p, q)] = foldBlocks(dotRow(r, p, q), spec->blocks);
    gsCallWeigh(spec, &r->state->call, &w);
    for (uint32_t p = 0; p < GS_MAX_POOL && spec->quotient && spec->search == GS_SEARCH_WORKER; p++)
        if (gsInPool(spec, p))
            w.loss[p] = quotientLoss(r, gradient, p, w.own[p]);
    gsCallChoose(spec, r->state, &w);
}

/* ---- the comparison ---- */

/* Leaves a in `out`, whose tail behind the vector's end is 0 from its allocation on; returns whether gradient and a are finite. */
GS_INLINE int compareBlock(gsReducer_t r, gsVector gradient, uint64_t b, gsReal *out, uint32_t type)
{
    const gsSpec *spec = &r->spec;
    const gsCall *c = &r->state->call;
    gsReal reference[GS_BLOCK];
    uint64_t first = b * GS_BLOCK;
    uint32_t n = gsBlockLength(spec, b);
    int finite = 1;
    loadGradient(r, blockOf(gradient, b), n, out, type);
    for (uint32_t i = 0; i < n; i++)
        finite &= gsFinite(out[i]);
    if (r->before[0])
        memcpy(nextOf(r, r->before) + first, out, n * sizeof *out);
    if (spec->momentum > 0.0) {
        const gsReal *u = currentOf(r, r->momentum);
        gsReal *next = nextOf(r, r->momentum);
        for (uint32_t i = 0; i < n; i++)
            next[first + i] = out[i] = (gsReal)spec->momentum * u[first + i] + out[i];
    }
    if (spec->feedback) {
        const gsReal *e = currentOf(r, r->residual);
        for (uint32_t i = 0; i < n; i++)
            out[i] += e[first + i];
    }
    if (spec->memory) {
        const gsReal *h = r->memory;
        for (uint32_t i = 0; i < n; i++)
            out[i] -= h[first + i];
    }
    if (spec->pool && !spec->denseNow) {
        gsReal floor = (gsReal)gsQuotientFloor(spec, c, c->choice, c->coefficient[c->choice]);
        GS_STAGE(gsLoadReference)(r, c->coefficient, first, n, reference);
        for (uint32_t i = 0; i < n; i++)
            out[i] = spec->quotient ? out[i] / gsGuarded(reference[i], floor) : out[i] - reference[i];
    }
    for (uint32_t i = 0; i < n; i++)
        finite &= gsFinite(out[i]);
    return finite;
}

/* A rank that sits out keeps its residual, its momentum, its last gradient. */
static void keepBlock(gsReducer_t r, uint64_t first)
{
    void *const *const pairs[] = {r->residual, r->momentum, r->before};
    for (int i = 0; i < 3; i++)
        if (pairs[i][0])
            memcpy(nextOf(r, pairs[i]) + first, currentOf(r, pairs[i]) + first, GS_BLOCK * sizeof(gsReal));
}

void GS_STAGE(gsCompare)(gsReducer_t r, gsVector gradient, void *a)
{
    const gsSpec *spec = &r->spec;
    int skip = r->state->call.skip != 0, bad = 0;
    GS_FOR_BLOCKS(r, b, reduction(| : bad))
    {
        uint64_t first = (uint64_t)b * GS_BLOCK;
        if (skip)
            keepBlock(r, first);
        else
            GS_FOR_TYPE(gradient.type, bad |= !compareBlock(r, gradient, (uint64_t)b, (gsReal *)a + first, T));
        if (spec->feedback && spec->denseNow) /* all of it travels */
            memset(nextOf(r, r->residual) + first, 0, GS_BLOCK * sizeof(gsReal));
        if (r->previous[0] && spec->iterate)
            loadForeign(spec->paramsType, r->params, first, gsBlockLength(spec, (uint64_t)b),
                        nextOf(r, r->previous) + first);
    }
    r->state->call.nonFinite |= (uint32_t)bad;
}

/* By the tree. */
double GS_STAGE(gsDistance)(gsReducer_t r, gsVector x, gsVector y)
{
    GS_FOR_BLOCKS(r, b, )
    {
        gsReal gap[GS_BLOCK], other[GS_BLOCK];
        uint32_t n = gsBlockLength(&r->spec, (uint64_t)b);
        loadForeign(x.type, blockOf(x, (uint64_t)b).values, 0, n, gap);
        loadForeign(y.type, blockOf(y, (uint64_t)b).values, 0, n, other);
        for (uint32_t i = 0; i < n; i++)
            gap[i] = gap[i] - other[i];
        r->blockSum[b] = dotBlock(gap, gap, n);
    }
    return foldBlocks(r->blockSum, r->spec.blocks);
}
