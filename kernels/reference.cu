/* The gradient against what is remembered: a = clip g (+ momentum) + e - h - r, or the quotient by r; the choice of r among a pool;
 * and how far the iterate has gone. */
#include "launch.cuh"
#include "reference.cuh"
#include "rules/choice.h"

/* What the comparison reads and leaves, besides references. */
template <typename Real> struct Comparison {
    gsPair<Real> residual, momentum, before;
    const Real *memory;
    Real *work;
};

/* Four elements of the gradient, clipped. */
template <typename T>
static __device__ __forceinline__ void loadGradient(const T *block, unsigned at, unsigned length, bool wide,
                                                    gsRealOf<T> clip, gsRealOf<T> *g)
{
    gsLoadQuad(block, at, length, wide, g);
#pragma unroll
    for (unsigned c = 0; c < 4; c++)
        g[c] *= clip;
}

template <typename Real> static __device__ __forceinline__ bool allFinite(const Real *x)
{
    return gsFinite(x[0]) && gsFinite(x[1]) && gsFinite(x[2]) && gsFinite(x[3]);
}

/* a of the elements i .. i + 3; returns whether gradient and a are finite. */
template <typename Real>
static __device__ __forceinline__ bool compareQuad(const gsSpec &spec, const gsState *state,
                                                   const gsReferences<Real> &refs, const Comparison<Real> &with,
                                                   uint64_t i, Real *a)
{
    const gsCall &call = state->call;
    Real x[4];
    bool finite = allFinite(a);
    if (with.before.of[0])
        gsStoreState(with.before.next(state) + i, a);
    if (spec.momentum > 0.0) {
        gsLoadState(with.momentum.current(state) + i, x);
#pragma unroll
        for (unsigned c = 0; c < 4; c++)
            a[c] = (Real)spec.momentum * x[c] + a[c];
        gsStoreState(with.momentum.next(state) + i, a);
    }
    if (spec.feedback) {
        gsLoadState(with.residual.current(state) + i, x);
#pragma unroll
        for (unsigned c = 0; c < 4; c++)
            a[c] += x[c];
    }
    if (spec.memory) {
        gsLoadState(with.memory + i, x);
#pragma unroll
        for (unsigned c = 0; c < 4; c++)
            a[c] -= x[c];
    }
    if (spec.pool && !spec.denseNow) {
        gsLoadReference(spec, state, refs, call.coefficient, i, x);
        if (spec.quotient) {
            const Real floor = (Real)gsQuotientFloor(&spec, &call, call.choice, call.coefficient[call.choice]);
#pragma unroll
            for (unsigned c = 0; c < 4; c++)
                a[c] = a[c] / gsGuarded(x[c], floor);
        } else {
#pragma unroll
            for (unsigned c = 0; c < 4; c++)
                a[c] -= x[c];
        }
    }
    return finite && allFinite(a);
}

/* A rank that sits out keeps its residual, its momentum, its last gradient. */
template <typename Real>
static __device__ __forceinline__ void keepQuad(const gsState *state, const Comparison<Real> &with, uint64_t i)
{
    const gsPair<Real> *pairs[] = {&with.residual, &with.momentum, &with.before};
#pragma unroll
    for (int k = 0; k < 3; k++) {
        Real x[4];
        if (!pairs[k]->of[0])
            continue;
        gsLoadState((const Real *)pairs[k]->current(state) + i, x);
        gsStoreState(pairs[k]->next(state) + i, x);
    }
}

/*
 * A CTA takes a block, four elements a thread at a time:
 * 1. The gradient is clipped, the momentum moves on, e is added, h and the references are taken away or divided by.
 * 2. a goes to the residual to be, or to `work`; in a step that travels dense the residual to be is 0.
 * 3. The iterate is remembered.
 * Where the call is silent nothing is compared, and residual and momentum stay what they were.
 * Traffic: reads g and writes a, 8 bytes an element; 8 more for momentum, 4 each for e, h and a reference, 8 for the iterate.
 * Bad case: a window of 32 vectors, which are all read.
 */
template <typename T>
__global__ void __launch_bounds__(GS_CTA, gsFewCtasPerSm<gsRealOf<T>>)
    gsCompare(const __grid_constant__ gsSpec spec, gsState *state, const void *g,
              const __grid_constant__ gsReferences<gsRealOf<T>> refs,
              const __grid_constant__ Comparison<gsRealOf<T>> with)
{
    using Real = gsRealOf<T>;
    const Real clip = (Real)state->call.clip;
    const bool skip = state->call.skip != 0, remembers = refs.previous.of[0] && spec.iterate;
    Real *a = spec.feedback && !spec.denseNow ? with.residual.next(state) : with.work;
    for (uint64_t b = blockIdx.x; b < spec.blocks; b += gridDim.x) {
        const T *block = gsBlockOf<T>(spec.list, g, b);
        const unsigned length = gsBlockLength(&spec, b);
        const bool wide = !skip && gsIsWide(block, length);
        bool finite = true;
#pragma unroll 1
        for (unsigned v = 0; v < GS_QUADS; v++) {
            const unsigned at = gsQuadAt(v);
            const uint64_t i = b * GS_BLOCK + at;
            Real x[4];
            if (skip) {
                keepQuad(state, with, i);
            } else {
                loadGradient(block, at, length, wide, clip, x);
                finite = compareQuad(spec, state, refs, with, i, x) && finite;
#pragma unroll
                for (unsigned c = 0; c < 4; c++)
                    x[c] = at + c < length ? x[c] : (Real)0; /* a quotient's 0/0, say */
                gsStoreState(a + i, x);
            }
            if (spec.feedback && spec.denseNow) {
                x[0] = x[1] = x[2] = x[3] = (Real)0; /* all of it travels */
                gsStoreState(with.residual.next(state) + i, x);
            }
            if (remembers) {
                gsLoadForeign(spec.paramsType, refs.params, i, spec.count, x);
                gsStoreState(refs.previous.next(state) + i, x);
            }
        }
        gsReportNonFinite(state, !finite);
    }
}

/*
 * |x - y|^2 of two vectors of any type; of iterates always, of gradients unless the call is silent. A warp takes a block:
 * 1. Lanes load differences wide.
 * 2. They add their squares in the tree's order.
 * Traffic: reads both, 8 bytes an element.
 * Bad case: a caller's vector that is not aligned to four elements, which is loaded one at a time.
 */
template <typename Real>
__global__ void __launch_bounds__(GS_CTA, gsFewCtasPerSm<Real>)
    gsSumDistance(const __grid_constant__ gsSpec spec, const gsState *state, const gsInput x, const gsInput y,
                  bool always, double *blockSum)
{
    __shared__ __align__(16) Real staged[GS_WARPS][GS_PART];
    if (state->call.skip && !always)
        return;
    for (uint64_t b = (uint64_t)blockIdx.x * GS_WARPS + gsWarp(); b < spec.blocks;
         b += (uint64_t)gridDim.x * GS_WARPS) {
        const unsigned length = gsBlockLength(&spec, b);
        const void *from = x.anyBlock(state, b), *to = y.anyBlock(state, b);
        double sum = 0.0;
        gsOverLanes(
            staged[gsWarp()],
            [&](unsigned at, Real *gap) {
                Real other[4];
                gsLoadForeign(x.type, from, at, length, gap);
                gsLoadForeign(y.type, to, at, length, other);
#pragma unroll
                for (unsigned c = 0; c < 4; c++)
                    gap[c] = gap[c] - other[c];
            },
            [&](Real gap, unsigned) { sum += (double)gap * (double)gap; });
        sum = gsWarpSum(sum);
        if (gsLane() == 0)
            blockSum[b] = sum;
    }
}

/* ---- the choice ---- */

/*
 * Dots of every reference with the gradient and with each other, in one pass. A CTA takes a block, 4 KB of each vector at a
 * time:
 * 1. All threads bring the pool's vectors, made up where they are means or differences, and the gradient to shared memory.
 * 2. Warp w adds vector w's products with those before it (the ninth vector is warp 0's too), in the tree's order.
 * Traffic: reads the gradient and each reference once, 4 bytes an element each.
 * Bad case: a pool of two, where most warps wait for three.
 */
template <typename T>
__global__ void __launch_bounds__(GS_CTA, 2)
    gsSumDots(const __grid_constant__ gsSpec spec, const gsState *state, const void *g,
              const __grid_constant__ gsReferences<gsRealOf<T>> refs, double *blockSum)
{
    using Real = gsRealOf<T>;
    constexpr unsigned PART = 4096 / sizeof(Real), QUADS = PART / 4, MEMBERS = GS_MAX_POOL + 1;
    __shared__ __align__(16) Real staged[MEMBERS][PART];
    __shared__ uint32_t member[MEMBERS];
    const uint32_t n = gsPoolSize(spec.pool) + 1;
    const Real clip = (Real)state->call.clip;
    if (state->call.skip)
        return;
    if (threadIdx.x < MEMBERS && (threadIdx.x == GS_MAX_POOL || (spec.pool >> threadIdx.x & 1u)))
        member[gsPoolSize(spec.pool & ((1u << threadIdx.x) - 1u))] = threadIdx.x;
    __syncthreads();
    for (uint64_t b = blockIdx.x; b < spec.blocks; b += gridDim.x) {
        const T *block = gsBlockOf<T>(spec.list, g, b);
        const unsigned length = gsBlockLength(&spec, b);
        const bool wide = gsIsWide(block, length);
        double sum[2][MEMBERS] = {};
        for (unsigned part = 0; part < GS_BLOCK; part += PART) {
            for (unsigned task = threadIdx.x; task < n * QUADS; task += GS_CTA) {
                const unsigned m = task / QUADS, at = part + task % QUADS * 4;
                const uint64_t i = b * GS_BLOCK + at;
                Real x[4];
                if (m + 1 == n) {
                    loadGradient(block, at, length, wide, clip, x);
                } else {
                    gsLoadOneReference(spec, state, refs, member[m], i, x);
#pragma unroll
                    for (unsigned c = 0; c < 4; c++)
                        x[c] = at + c < length ? x[c] : (Real)0;
                }
                gsStoreStaged(&staged[m][at - part], x);
            }
            __syncthreads();
#pragma unroll
            for (unsigned row = 0; row < 2; row++) {
                const unsigned m = gsWarp() + row * GS_WARPS;
                for (unsigned j = gsLane(); m < n && j < PART; j += 32) {
                    const double x = (double)staged[m][j];
#pragma unroll
                    for (unsigned q = 0; q < MEMBERS; q++)
                        if (q <= m)
                            sum[row][q] += x * (double)staged[q][j];
                }
            }
            __syncthreads();
        }
#pragma unroll
        for (unsigned row = 0; row < 2; row++) {
            const unsigned m = gsWarp() + row * GS_WARPS;
#pragma unroll
            for (unsigned q = 0; q < MEMBERS; q++) {
                if (m >= n || q > m)
                    continue;
                const double total = gsWarpSum(sum[row][q]);
                if (gsLane() == 0)
                    blockSum[(uint64_t)gsDotAt(member[m], member[q]) * spec.blocks + b] = total;
            }
        }
    }
}

/*
 * 1. One thread gathers the folded dots and weighs each reference alone.
 * Traffic: none per element.
 * Bad case: none.
 */
__global__ void gsWeigh(const __grid_constant__ gsSpec spec, gsState *state, const double *blockSum,
                        gsWeighing *weighing)
{
    if (state->call.skip || spec.blocks == 0)
        return;
    for (uint32_t p = 0; p <= GS_MAX_POOL; p++)
        for (uint32_t q = 0; q <= p; q++) {
            const bool there = (p == GS_MAX_POOL || gsInPool(&spec, p)) && (q == GS_MAX_POOL || gsInPool(&spec, q));
            weighing->dot[gsDotAt(p, q)] = there ? blockSum[(uint64_t)gsDotAt(p, q) * spec.blocks] : 0.0;
        }
    gsCallWeigh(&spec, &state->call, weighing);
}

/*
 * What the ternary quotient would lose with each reference alone, as a sum over blocks of r'^2 |v| (max |v| - |v|), v = g / r'.
 * A warp takes a block and, one after the other, the references:
 * 1. It finds max |v|.
 * 2. It loads all again and adds the terms in the tree's order.
 * Traffic: reads gradient and reference twice, the second time from the cache, 8 bytes an element and reference.
 * Bad case: none.
 */
template <typename T>
__global__ void __launch_bounds__(GS_CTA, 2)
    gsSumLosses(const __grid_constant__ gsSpec spec, const gsState *state, const void *g,
                const __grid_constant__ gsReferences<gsRealOf<T>> refs, const gsWeighing *weighing, double *blockSum)
{
    using Real = gsRealOf<T>;
    __shared__ __align__(16) double staged[GS_WARPS][GS_PART];
    const Real clip = (Real)state->call.clip;
    if (state->call.skip)
        return;
    for (uint64_t task = (uint64_t)blockIdx.x * GS_WARPS + gsWarp(); task < (uint64_t)spec.blocks * GS_MAX_POOL;
         task += (uint64_t)gridDim.x * GS_WARPS) {
        const uint64_t b = task / GS_MAX_POOL;
        const uint32_t p = (uint32_t)(task % GS_MAX_POOL);
        if (!gsInPool(&spec, p))
            continue;
        const T *block = gsBlockOf<T>(spec.list, g, b);
        const unsigned length = gsBlockLength(&spec, b);
        const bool wide = gsIsWide(block, length);
        const double own = weighing->own[p];
        const Real floor = (Real)gsQuotientFloor(&spec, &state->call, p, own);
        Real largest = 0;
        auto quotients = [&](unsigned at, Real *v, Real *r) { /* |v| and r' */
                                                              loadGradient(block, at, length, wide, clip, v);
                                                              gsLoadOneReference(spec, state, refs, p,
                                                                                 b * GS_BLOCK + at, r);
#pragma unroll
                                                              for (unsigned c = 0; c < 4; c++) {
                                                                  r[c] = gsGuarded((Real)own * r[c], floor);
                                                                  v[c] = at + c < length ? gsAbs(v[c] / r[c]) : (Real)0;
                                                              }
        };
#pragma unroll 1
        for (unsigned at = gsLane() * 4; at < GS_BLOCK; at += 128) {
            Real v[4], r[4];
            quotients(at, v, r);
#pragma unroll
            for (unsigned c = 0; c < 4; c++)
                largest = v[c] > largest ? v[c] : largest;
        }
#pragma unroll
        for (int offset = 16; offset > 0; offset /= 2) {
            const Real other = __shfl_xor_sync(GS_ALL_LANES, largest, offset);
            largest = other > largest ? other : largest;
        }
        double sum = 0.0;
        gsOverLanes(
            staged[gsWarp()],
            [&](unsigned at, double *term) {
                Real v[4], r[4];
                quotients(at, v, r);
#pragma unroll
                for (unsigned c = 0; c < 4; c++)
                    term[c] =
                        at + c < length ? (double)r[c] * (double)r[c] * (double)v[c] * (double)(largest - v[c]) : 0.0;
            },
            [&](double term, unsigned) { sum += term; });
        sum = gsWarpSum(sum);
        if (gsLane() == 0)
            blockSum[(uint64_t)p * spec.blocks + b] = sum;
    }
}

/*
 * 1. One thread takes the quotients' losses, if there are any, and chooses.
 * Traffic: none per element.
 * Bad case: none.
 */
__global__ void gsChoose(const __grid_constant__ gsSpec spec, gsState *state, const double *blockSum,
                         gsWeighing *weighing)
{
    if (state->call.skip)
        return;
    if (spec.blocks == 0) { /* an empty gradient: nothing was summed, and there is no memory for it */
        gsWeighing none;
        memset(&none, 0, sizeof none);
        gsCallWeigh(&spec, &state->call, &none);
        gsCallChoose(&spec, state, &none);
        return;
    }
    for (uint32_t p = 0; p < GS_MAX_POOL && spec.quotient && spec.search == GS_SEARCH_WORKER; p++)
        if (gsInPool(&spec, p))
            weighing->loss[p] = blockSum[(uint64_t)p * spec.blocks];
    gsCallChoose(&spec, state, weighing);
}

/* ---- what the host enqueues ---- */

template <typename T> static gsResult_t chooseReference(gsReducer_t r, const void *g, gsStream_t stream)
{
    using Real = gsRealOf<T>;
    /* Kept bits are made later: their memory is free. */
    static_assert(sizeof(gsWeighing) <= GS_BLOCK_WORDS * sizeof(uint32_t), "a block's kept bits hold it");
    gsWeighing *weighing = (gsWeighing *)r->keptBits;
    const gsSpec &spec = r->spec;
    uint64_t rows = 0;
    for (uint32_t p = 0; p <= GS_MAX_POOL; p++)
        for (uint32_t q = 0; q <= p; q++)
            if ((p == GS_MAX_POOL || gsInPool(&spec, p)) && (q == GS_MAX_POOL || gsInPool(&spec, q)))
                rows |= 1ull << gsDotAt(p, q);
    GS_CHECK(gsLaunch("gsSumDots", gsSumDots<T>, spec.blocks, GS_CTA, stream, spec, r->state, g,
                      gsReferencesOf<Real>(r), r->blockSum));
    GS_CHECK(gsCudaFold(r, rows, stream));
    GS_CHECK(gsLaunch("gsWeigh", gsWeigh, 1, 1, stream, spec, r->state, r->blockSum, weighing));
    if (spec.quotient && spec.search == GS_SEARCH_WORKER) {
        GS_CHECK(gsLaunch("gsSumLosses", gsSumLosses<T>, spec.blocks, GS_CTA, stream, spec, r->state, g,
                          gsReferencesOf<Real>(r), weighing, r->blockSum));
        GS_CHECK(gsCudaFold(r, spec.pool, stream));
    }
    return gsLaunch("gsChoose", gsChoose, 1, 1, stream, spec, r->state, r->blockSum, weighing);
}

/* |x - y|^2 at the head of the first row. */
static gsResult_t sumDistance(gsReducer_t r, const gsInput &x, const gsInput &y, bool always, gsStream_t stream)
{
    const uint64_t ctas = ((uint64_t)r->spec.blocks + GS_WARPS - 1) / GS_WARPS;
    GS_CHECK(gsByReal(r->spec, [&](auto real) {
        return gsLaunch("gsSumDistance", gsSumDistance<decltype(real)>, ctas, GS_CTA, stream, r->spec, r->state, x, y,
                        always, r->blockSum);
    }));
    return gsCudaFold(r, GS_SUM_MAGNITUDES, stream);
}

/* The current one of a pair of the state. */
static gsInput currentOf(gsReducer_t r, void *const pair[2])
{
    return {{pair[0], pair[1]}, (uint32_t)gsRealType(&r->spec), nullptr};
}

gsResult_t gsCudaWatchIterate(gsReducer_t r, gsStream_t stream)
{
    const gsInput iterate = {{r->params, r->params}, r->spec.paramsType, nullptr};
    void *const anchor[2] = {r->anchor, r->anchor};
    if (!r->spec.iterate || !r->previous[0] || !r->spec.trigger)
        return GS_SUCCESS;
    GS_CHECK(sumDistance(r, iterate, currentOf(r, r->previous), true, stream));
    GS_CHECK(gsCudaTakeSums(r, GS_FOR_MOVED, 0, GS_SUM_MAGNITUDES, stream));
    if (r->spec.trigger != GS_TRIGGER_SERVER)
        return GS_SUCCESS;
    GS_CHECK(sumDistance(r, iterate, currentOf(r, anchor), true, stream));
    return gsCudaTakeSums(r, GS_FOR_GAP, 0, GS_SUM_MAGNITUDES, stream);
}

/* The triggers that look at gradients, once a is there: its squares, and its or the gradient's distance from another. */
static gsResult_t watchGradient(gsReducer_t r, const void *sendbuff, gsStream_t stream)
{
    const uint32_t trigger = r->spec.trigger;
    const gsInput stale = {{r->stale, r->stale}, r->spec.type, nullptr};
    uint32_t what = 0;
    if (trigger == GS_TRIGGER_NONE || trigger == GS_TRIGGER_SERVER || trigger == GS_TRIGGER_CODED)
        return GS_SUCCESS;
    if (trigger != GS_TRIGGER_STALE) {
        GS_CHECK(gsCudaSumVector(r, gsCompared(r, sendbuff), GS_SUM_SQUARES | GS_SUM_ALL, stream));
        what |= GS_SUM_SQUARES;
    }
    if (trigger != GS_TRIGGER_WORKER) {
        GS_CHECK(sumDistance(r, gsGradient(r, sendbuff), trigger == GS_TRIGGER_STALE ? stale : currentOf(r, r->before),
                             false, stream));
        what |= GS_SUM_MAGNITUDES;
    }
    return gsCudaTakeSums(r, GS_FOR_TRIGGER, 0, what, stream);
}

template <typename T> static gsResult_t compareWith(gsReducer_t r, const void *g, gsStream_t stream)
{
    using Real = gsRealOf<T>;
    const Comparison<Real> with = {gsPairOf<Real>(r->residual), gsPairOf<Real>(r->momentum), gsPairOf<Real>(r->before),
                                   (const Real *)r->memory, (Real *)r->work};
    if (r->spec.pool && !r->spec.denseNow)
        GS_CHECK(chooseReference<T>(r, g, stream));
    return gsLaunch("gsCompare", gsCompare<T>, r->spec.blocks, GS_CTA, stream, r->spec, r->state, g,
                    gsReferencesOf<Real>(r), with);
}

gsResult_t gsCudaPrepare(gsReducer_t r, const void *sendbuff, gsStream_t stream)
{
    GS_CHECK(gsCudaWatchIterate(r, stream));
    if (r->spec.clip > 0.0) {
        GS_CHECK(gsCudaSumVector(r, gsGradient(r, sendbuff), GS_SUM_SQUARES | GS_SUM_ALL, stream));
        GS_CHECK(gsCudaTakeSums(r, GS_FOR_CLIP, 0, GS_SUM_SQUARES, stream));
    }
    GS_CHECK(gsByType(r->spec.type, [&](auto t) { return compareWith<decltype(t)>(r, sendbuff, stream); }));
    return watchGradient(r, sendbuff, stream);
}

gsResult_t gsCudaCompare(gsReducer_t r, const void *sendbuff, gsStream_t stream)
{
    GS_CHECK(gsCudaBegin(r, stream));
    return gsCudaPrepare(r, sendbuff, stream);
}

gsResult_t gsCudaWantsGradient(gsReducer_t r, int *wants)
{
    uint32_t skip = 0;
    GS_CHECK(gsCudaCheck(cudaDeviceSynchronize(), "cudaDeviceSynchronize")); /* the last call may be on any stream */
    GS_CHECK(gsCudaBegin(r, nullptr));
    GS_CHECK(gsCudaWatchIterate(r, nullptr));
    GS_CHECK(r->comm->backend->get(&skip, &r->state->call.skip, sizeof skip, nullptr));
    *wants = !skip;
    return GS_SUCCESS;
}
