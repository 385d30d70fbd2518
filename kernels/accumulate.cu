/* Records in rank order, or a dense sum of what is compared -> result and memories; then the commit. */
#include "codec.cuh"
#include "launch.cuh"
#include "optimizer.cuh"
#include "reference.cuh"
#include "rows.cuh"

/* What a record's part of a block is like; a dense sum has no records. */
enum Kind { KEPT, MASKED, WHOLE, DENSE };

/* One group of one rank's record, as far as it concerns a block: `count` slots from `first` on. */
struct Run {
    const uint8_t *values, *indices; /* or rows' bits */
    uint64_t first;
    uint32_t count;
    uint32_t signs;    /* values are one bit each, set for minus the scale */
    uint32_t map;      /* values are two bits for every element */
    const float *book; /* 2bit: what each code means in the block */
    float scale;
};

template <typename Real> struct Coordinate {
    uint32_t place;
    Real value;
};

/* What the sum comes from and goes into. */
template <typename T> struct Result {
    const uint8_t *records;
    const uint32_t *keptBits, *blockOffset;
    gsRealOf<T> factor; /* 1/ranks for the average; times 1 changes no bits */
    gsSink sink;
};

template <typename Real> struct Memories {
    Real *memory, *shared, *anchor;
    Real *pool[GS_MAX_POOL], *history;
    const Real *work, *dense;
    double *blockSum;
};

/* What of run q = rank groups + group belongs to a block. The records are valid. */
template <typename T>
static __device__ Run findRun(const gsSpec &spec, const gsState *state, const Result<T> &from, uint64_t q,
                              uint32_t block)
{
    const uint64_t b = gsBlockInRecord(&spec, block);
    const int groups = gsRecordGroups(spec.value), group = (int)(q % groups);
    const uint8_t *record = from.records + q / groups * spec.slotBytes;
    const gsRecordHeader *h = (const gsRecordHeader *)record;
    const gsRecordSegment *segment = (const gsRecordSegment *)(record + sizeof *h);
    const gsRecordExtent extent = gsSpecExtent(&spec, h->count);
    const gsRecordShape shape = gsRecordShapeOf(h, segment, &extent);
    const gsRecordSections sections = gsRecordLayout(&shape);
    const gsRecordGroup part = group ? sections.group[1] : sections.group[0];
    const bool silent = (h->flags & GS_FLAG_SKIP) != 0;
    uint64_t last;
    Run run;
    run.values = record + part.values;
    run.indices = record + part.indices;
    run.signs = (uint32_t)group;
    run.map = group && (h->flags & GS_FLAG_MAP);
    run.scale = segment->scale;
    run.book = (const float *)(record + part.scales) + GS_BOOK * b;
    if (!silent && spec.value != GS_VALUE_BOOK && gsRecordScaleBytes(&shape))
        run.scale = ((const float *)(record + part.scales))[b];
    if (silent) {
        run.first = last = 0;
    } else if (gsBlockIsWhole(&spec, block)) {
        run.values = record + sections.whole;
        run.scale = segment->scale;
        run.first = gsBlockPlace(&spec, b);
        last = run.first + (group ? 0 : gsBlockLength(&spec, block));
    } else if (run.map || spec.layout == GS_LAYOUT_ALL) { /* a code for every element */
        run.first = gsBlockPlace(&spec, b);
        last = run.first + gsBlockLength(&spec, block);
    } else if (gsLayoutHasTable(spec.layout)) {
        const uint32_t *table = (const uint32_t *)(record + part.table);
        run.first = table[b];
        last = table[b + 1];
    } else if (spec.layout == GS_LAYOUT_CHUNKED) {
        run.first = gsBlockPlace(&spec, b);
        last = run.first + gsTopkKept(spec.k, gsBlockLength(&spec, block));
    } else { /* the own mask is everybody's */
        run.first = gsCallSlot(&spec, &state->call, 0, from.blockOffset[b]);
        last = gsCallSlot(&spec, &state->call, 0, from.blockOffset[b + 1]);
    }
    run.count = (uint32_t)(last - run.first);
    return run;
}

/* ---- kept coordinates ---- */

/* Coordinate n of a run, if it has that many. With a mask the list has the places. */
template <typename Real, bool MASK>
static __device__ __forceinline__ Coordinate<Real> coordinate(const gsCoding &coding, const Run &run, uint32_t n,
                                                              const uint16_t *list)
{
    const uint64_t slot = run.first + n;
    if (n >= run.count)
        return {0, (Real)0};
    if (run.map) {
        const uint32_t digit = run.values[slot / 4] >> (slot % 4 * 2) & 3u;
        return {n, digit == 0 ? (Real)0 : (Real)(digit == 2u ? -run.scale : run.scale)};
    }
    const uint32_t place = MASK ? list[n] : gsReadIndex12(run.indices, slot);
    if (run.signs)
        return {place, (Real)(run.values[slot / 8] >> (slot % 8) & 1 ? -run.scale : run.scale)};
    if (coding.value == GS_VALUE_BOOK)
        return {place, (Real)run.book[run.values[slot / 4] >> (slot % 4 * 2) & 3u]};
    gsCoding how = coding;
    how.scale = run.scale;
    return {place, gsGetSlot<Real>(how, run.values, slot)};
}

/* The places of the mask's sent coordinates in block b, by slot; `kept` has room for a block's. Ends behind a barrier. */
template <typename T>
static __device__ void listMask(const gsSpec &spec, const gsCall *call, const Result<T> &from, uint64_t b,
                                uint32_t *kept, uint32_t *warpKept, uint16_t *sent)
{
    const uint32_t word =
        threadIdx.x < GS_BLOCK_WORDS ? from.keptBits[gsBlockAt(&spec, b) * GS_BLOCK_WORDS + threadIdx.x] : 0;
    const uint32_t n = gsListKept(kept, warpKept, word, 0), before = from.blockOffset[b];
    const uint64_t first = gsCallSlot(&spec, call, 0, before);
    for (uint32_t i = threadIdx.x; i < n; i += GS_CTA) {
        const uint64_t j = (uint64_t)before + i, slot = gsCallSlot(&spec, call, 0, j);
        if (gsCallSlot(&spec, call, 0, j + 1) > slot)
            sent[slot - first] = (uint16_t)kept[i];
    }
    __syncthreads();
}

/* Adds runs to the sums in shared memory: in order, with a barrier behind each. The next run's first coordinates are loaded
 * meanwhile. weight(run, place, value) is what is added. */
template <typename Real, bool MASK, typename Weight>
static __device__ __forceinline__ void addKept(const gsCoding &how, const Run *run, unsigned runs, const uint16_t *sent,
                                               Real *sum, Weight weight)
{
    Coordinate<Real> next = coordinate<Real, MASK>(how, run[0], threadIdx.x, sent);
    for (unsigned q = 0; q < runs; q++) {
        Coordinate<Real> now = next;
        const uint32_t count = run[q].count;
        if (q + 1 < runs)
            next = coordinate<Real, MASK>(how, run[q + 1], threadIdx.x, sent);
        for (uint32_t n = threadIdx.x; n < count; n += GS_CTA) {
            if (n != threadIdx.x)
                now = coordinate<Real, MASK>(how, run[q], n, sent);
            sum[now.place] += weight(q, now.place, now.value);
        }
        __syncthreads();
    }
}

/* ---- all coordinates ---- */

/* Adds a run of all elements to this thread's quads of the sums. */
template <typename Real, typename Weight>
static __device__ __forceinline__ void addWhole(const gsCoding &coding, const Run &run, unsigned q, Real *sum,
                                                Weight weight)
{
    const bool slots = gsHasSlots(coding.value);
    gsCoding how = coding;
    how.scale = run.scale;
    const uint32_t *codes = (const uint32_t *)(run.values + run.first / 8 * how.bits);
#pragma unroll 1
    for (unsigned v = 0; v < GS_QUADS; v++) {
        const unsigned at = gsQuadAt(v);
        Real x[4] = {}, four[4];
        if (at >= run.count)
            break;
        if (slots && at + 4 <= run.count) {
            gsGetFourSlots(how, run.values, run.first + at, x);
        } else if (slots) {
            for (unsigned c = 0; c < 4; c++)
                if (at + c < run.count)
                    x[c] = gsGetSlot<Real>(how, run.values, run.first + at + c);
        } else {
            const uint64_t codeOf = gsFourCodes(codes, at, how.bits);
            for (unsigned c = 0; c < 4; c++)
                if (at + c < run.count)
                    x[c] = (Real)gsDecodeOf(how, (uint32_t)(codeOf >> (c * how.bits)) & ((1u << how.bits) - 1u));
        }
        gsLoadState((const Real *)sum + at, four);
#pragma unroll
        for (unsigned c = 0; c < 4; c++)
            four[c] += weight(q, at + c, x[c]);
        gsStoreStaged(sum + at, four);
    }
}

/* ---- whole tensors ---- */

/* Adds runs of plain values, one for each element. */
template <typename Real, typename Weight>
static __device__ __forceinline__ void addValues(const gsSpec &spec, const Run *run, unsigned runs, Real *sum,
                                                 Weight weight)
{
    for (unsigned q = 0; q < runs; q++) {
        const gsCoding how = gsWholeCodingOf(spec, run[q].scale);
        for (uint32_t n = threadIdx.x; n < run[q].count; n += GS_CTA)
            sum[n] += weight(q, n, gsGetSlot<Real>(how, run[q].values, run[q].first + n));
    }
    __syncthreads();
}

/* ---- a block's part of some records ---- */

/* The runs that are about block b: of all ranks, or of its owner. */
struct Runs {
    uint64_t first, end;
};

static __device__ __forceinline__ Runs runsOf(const gsSpec &spec, uint64_t b)
{
    const uint64_t groups = (uint64_t)gsRecordGroups(spec.value), owner = spec.parts ? gsBlockOwner(&spec, b) : 0;
    return {owner * groups, spec.parts ? (owner + 1) * groups : spec.nranks * groups};
}

/* sum = runs q to end - 1, in shared memory. Begins with every thread's own quads, ends behind a barrier. */
template <typename T, typename Weight>
static __device__ __forceinline__ void sumRuns(const gsSpec &spec, const gsState *state, const Result<T> &from,
                                               Kind kind, uint64_t q, uint64_t end, uint32_t b, gsRealOf<T> *sum,
                                               Run *run, const uint16_t *sent, Weight weight)
{
    using Real = gsRealOf<T>;
    const Real none[4] = {};
    const gsCoding how = gsCodingOf(spec, 0.0f);
#pragma unroll
    for (unsigned v = 0; v < GS_QUADS; v++)
        gsStoreStaged(sum + gsQuadAt(v), none);
    for (; q < end; q += GS_RUNS) {
        const unsigned found = end - q < GS_RUNS ? (unsigned)(end - q) : GS_RUNS;
        auto ranked = [&](unsigned k, uint32_t place, Real x) { return weight(q + k, place, x); };
        if (threadIdx.x < found)
            run[threadIdx.x] = findRun(spec, state, from, q + threadIdx.x, b);
        __syncthreads();
        if (gsBlockIsWhole(&spec, b)) {
            addValues(spec, run, found, sum, ranked);
        } else if (kind == MASKED) {
            addKept<Real, true>(how, run, found, sent, sum, ranked);
        } else if (kind == KEPT) {
            addKept<Real, false>(how, run, found, sent, sum, ranked);
        } else {
            for (unsigned k = 0; k < found; k++)
                addWhole(how, run[k], k, sum, ranked);
            __syncthreads();
        }
    }
}

/* The call cannot be summed, or is not a number: nothing is left to do. */
template <typename T> static __device__ __forceinline__ bool isLost(const gsSpec &spec, const gsState *state, void *out)
{
    if (state->fault != GS_FAULT_NONE || state->verdict != GS_FAULT_NONE)
        return true;
    if (!state->anyNonFinite)
        return false;
    for (uint64_t b = blockIdx.x; out && b < spec.blocks; b += gridDim.x) {
        T *block = gsBlockOf<T>(spec.list, out, b);
        for (unsigned i = threadIdx.x; i < gsBlockLength(&spec, b); i += GS_CTA)
            block[i] = gsVector<T>::nan();
    }
    return true;
}

/* This thread's quads of the sums, scaled, are the result. */
template <typename T>
static __device__ __forceinline__ void deliver(const gsSinkBlock<T> &sink, const gsRealOf<T> *sums, gsRealOf<T> factor)
{
    auto scaled = [&](unsigned at, gsRealOf<T> *x) {
        gsLoadState(sums + at, x);
#pragma unroll
        for (unsigned c = 0; c < 4; c++)
            x[c] *= factor;
    };
    if (sink.isStep()) {
        sink.step(scaled);
        return;
    }
#pragma unroll
    for (unsigned v = 0; v < GS_QUADS; v++) {
        gsRealOf<T> x[4];
        scaled(gsQuadAt(v), x);
        sink.store(gsQuadAt(v), x);
    }
}

/*
 * Where nothing is remembered. A CTA takes a block:
 * 1. Its sums start at 0 in shared memory.
 * 2. For GS_RUNS runs at a time, a run being one group of one rank's record, a thread each finds the slots that
 *    belong to the block.
 * 3. Run after run, in rank order, kept coordinates are added to their places, with a barrier between and the next run's
 *    first loaded meanwhile; of records with all coordinates every thread adds those of its own places.
 * 4. Sums are scaled and stored, wide; or they are the gradient of an optimizer's step.
 * After a bad verdict nothing is written; after a non-finite record every element is NaN, and no step made.
 * Traffic: writes 4 bytes an element (float64: 8, others: 2), or those of the optimizer's vectors, and reads each record once.
 * Bad case: many ranks with few slots a block, a barrier and a load's latency each.
 */
template <typename T, Kind KIND>
__global__ void __launch_bounds__(GS_CTA, KIND == WHOLE ? gsFewCtasPerSm<gsRealOf<T>> : gsCtasPerSm<gsRealOf<T>>)
    gsAccumulate(const __grid_constant__ gsSpec spec, const gsState *state, const __grid_constant__ Result<T> result)
{
    using Real = gsRealOf<T>;
    constexpr bool MASK = KIND == MASKED;
    __shared__ __align__(16) Real sums[GS_BLOCK];
    __shared__ Run run[GS_RUNS];
    __shared__ uint16_t sent[MASK ? GS_BLOCK : 1];
    __shared__ uint32_t warpKept[GS_WARPS];
    if (isLost<T>(spec, state, result.sink.out))
        return;
    for (uint64_t b = blockIdx.x; b < spec.blocks; b += gridDim.x) {
        const gsSinkBlock<T> sink(result.sink, spec.list, spec.spread ? gsBlockAt(&spec, b) : b, gsBlockFirst(&spec, b),
                                  gsBlockLength(&spec, b));
        const Runs runs = runsOf(spec, b);
        if constexpr (MASK) /* the sums' memory first serves as the list of the kept */
            listMask(spec, &state->call, result, b, (uint32_t *)sums, warpKept, sent);
        sumRuns(spec, state, result, KIND, runs.first, runs.end, (uint32_t)b, sums, run, sent,
                [](uint64_t, uint32_t, Real x) { return x; });
        deliver(sink, (const Real *)sums, result.factor);
        __syncthreads(); /* the sums are the next block's */
    }
}

/* ---- rows ---- */

/* Adds a run of rows' elements; `places` has room for a block's. Ends behind a barrier. */
template <typename Real>
static __device__ __forceinline__ void addRows(const gsSpec &spec, const gsCoding &how, const Run &run,
                                               const gsBlockRows &rows, unsigned length, Real *sum, uint16_t *places,
                                               uint32_t *warpKept)
{
    gsListKept(places, warpKept, threadIdx.x < GS_BLOCK_WORDS ? rows.kept(run.indices, length, threadIdx.x) : 0, 0);
    if (gsRowsAreQuads(spec)) {
        for (uint32_t n = 4 * threadIdx.x; n + 4 <= run.count; n += 4 * GS_CTA) {
            Real x[4], four[4];
            gsGetFourSlots(how, run.values, run.first + n, x);
            gsLoadState((const Real *)sum + places[n], four);
#pragma unroll
            for (unsigned c = 0; c < 4; c++)
                four[c] += x[c];
            gsStoreStaged(sum + places[n], four);
        }
    }
    const uint32_t moved = gsRowsAreQuads(spec) ? run.count / 4 * 4 : 0; /* the last row may be short */
    for (uint32_t n = moved + threadIdx.x; n < run.count; n += GS_CTA)
        sum[places[n]] += gsGetSlot<Real>(how, run.values, run.first + n);
    __syncthreads();
}

/*
 * rows. A CTA takes a block, as above, but that of every run that has a slot in it:
 * 1. the rows' bits become a list of places,
 * 2. neighbouring threads add neighbouring elements, four at a time where rows are multiples of four.
 * Traffic: as above.
 * Bad case: rows of another length, whose elements move one by one; rows of one element, whose bits are read one by one.
 */
template <typename T>
__global__ void __launch_bounds__(GS_CTA, gsCtasPerSm<gsRealOf<T>>)
    gsAccumulateRows(const __grid_constant__ gsSpec spec, const gsState *state,
                     const __grid_constant__ Result<T> result)
{
    using Real = gsRealOf<T>;
    __shared__ __align__(16) Real sums[GS_BLOCK];
    __shared__ Run run[GS_RUNS];
    __shared__ uint16_t places[GS_BLOCK];
    __shared__ uint32_t warpKept[GS_WARPS];
    const Real none[4] = {};
    const gsCoding how = gsCodingOf(spec, 0.0f);
    if (isLost<T>(spec, state, result.sink.out))
        return;
    for (uint64_t b = blockIdx.x; b < spec.blocks; b += gridDim.x) {
        const gsBlockRows rows(spec.width, b);
        const unsigned length = gsBlockLength(&spec, b);
        const gsSinkBlock<T> sink(result.sink, spec.list, b, gsBlockFirst(&spec, b), length);
#pragma unroll
        for (unsigned v = 0; v < GS_QUADS; v++)
            gsStoreStaged(sums + gsQuadAt(v), none);
        for (uint32_t q = 0; q < spec.nranks; q += GS_RUNS) {
            const unsigned found = spec.nranks - q < GS_RUNS ? spec.nranks - q : GS_RUNS;
            if (threadIdx.x < found)
                run[threadIdx.x] = findRun(spec, state, result, q + threadIdx.x, (uint32_t)b);
            __syncthreads();
            for (unsigned k = 0; k < found; k++)
                if (run[k].count)
                    addRows(spec, how, run[k], rows, length, sums, places, warpKept);
            __syncthreads(); /* the runs are the next ranks' */
        }
        deliver(sink, (const Real *)sums, result.factor);
        __syncthreads(); /* the sums are the next block's */
    }
}

/* ---- what the sum becomes, where something is remembered ---- */

/* The coefficients of a rank's references, as it sent them or as all know them. */
static __device__ double coefficientOf(const gsSpec &spec, const gsState *state, const uint8_t *record, uint32_t p)
{
    const gsRecordHeader *h = (const gsRecordHeader *)record;
    if (h->flags & GS_FLAG_SKIP)
        return 0.0;
    if (h->flags & GS_FLAG_REFERENCES)
        return ((const double *)(record + gsRecordTableEnd(spec.tensors)))[p];
    return p == gsOnlyReference(&spec, &state->call) ? 1.0 : 0.0;
}

/* Four elements of a rank's reference, guarded: what its quotients are multiplied by. */
template <typename Real>
static __device__ void loadGuarded(const gsSpec &spec, const gsState *state, const gsReferences<Real> &refs,
                                   const uint8_t *record, uint64_t i, Real *r)
{
    double coefficient[GS_MAX_POOL];
    uint32_t choice = 0;
    for (uint32_t p = 0; p < GS_MAX_POOL; p++)
        coefficient[p] = coefficientOf(spec, state, record, p);
    while (choice < GS_MAX_POOL && coefficient[choice] == 0.0)
        choice++;
    const Real floor =
        choice < GS_MAX_POOL ? (Real)gsQuotientFloor(&spec, &state->call, choice, coefficient[choice]) : (Real)0;
    gsLoadReference(spec, state, refs, coefficient, i, r);
    for (unsigned c = 0; c < 4; c++)
        r[c] = gsGuarded(r[c], floor);
}

/* h takes lambda of the own record; x stands in shared memory, or in `work`. */
template <typename Real>
static __device__ __forceinline__ void rememberOwn(const gsSpec &spec, const Memories<Real> &m, uint64_t first,
                                                   const Real *own)
{
    const Real lambda = (Real)spec.lambda;
#pragma unroll 1
    for (unsigned v = 0; v < GS_QUADS; v++) {
        Real h[4], x[4];
        gsLoadState((const Real *)m.memory + first + gsQuadAt(v), h);
        gsLoadState(own + gsQuadAt(v), x);
#pragma unroll
        for (unsigned c = 0; c < 4; c++)
            h[c] += lambda * x[c];
        gsStoreState(m.memory + first + gsQuadAt(v), h);
    }
}

/* x becomes H + nu x, and H takes lambda of x, unless this is a preview. */
template <typename Real>
static __device__ __forceinline__ void rememberSum(const gsSpec &spec, const Memories<Real> &m, uint64_t i, Real *x)
{
    const Real lambda = (Real)spec.lambda, nu = (Real)spec.nu;
    Real all[4];
    gsLoadState((const Real *)m.shared + i, all);
#pragma unroll
    for (unsigned c = 0; c < 4; c++) {
        const Real sum = x[c];
        x[c] = all[c] + nu * sum;
        all[c] += lambda * sum;
    }
    if (!spec.preview)
        gsStoreState(m.shared + i, all);
}

/* The references follow the result, in the units of one gradient. */
template <typename Real>
static __device__ __forceinline__ void moveReferences(const gsSpec &spec, const gsState *state, const Memories<Real> &m,
                                                      uint64_t i, const Real *x)
{
    const Real share = (Real)1 / (Real)spec.nranks;
    const Real mean[4] = {x[0] * share, x[1] * share, x[2] * share, x[3] * share};
    if (m.pool[GS_REFERENCE_LAST])
        gsStoreState(m.pool[GS_REFERENCE_LAST] + i, mean);
#pragma unroll 1
    for (int k = 0; k < 2; k++) {
        Real *ema = m.pool[GS_REFERENCE_EMA + k], old[4];
        const Real weight = (Real)spec.ema[k];
        if (!ema)
            continue;
        gsLoadState((const Real *)ema + i, old);
#pragma unroll
        for (unsigned c = 0; c < 4; c++)
            old[c] += weight * (mean[c] - old[c]);
        gsStoreState(ema + i, old);
    }
    if (m.history)
        gsStoreState(m.history + state->step % spec.window * spec.blocks * GS_BLOCK + i, mean);
    if (m.pool[GS_REFERENCE_SNAPSHOT] && spec.denseNow)
        gsStoreState(m.pool[GS_REFERENCE_SNAPSHOT] + i, mean);
}

/* How far the mean is from each reference, before the references move: warp p takes reference p. */
template <typename Real>
static __device__ __forceinline__ void missReferences(const gsSpec &spec, const gsState *state, const Memories<Real> &m,
                                                      const gsReferences<Real> &refs, uint64_t b, const Real *sum,
                                                      Real *staged)
{
    static_assert(GS_WARPS == GS_MAX_POOL, "a warp a reference");
    const uint32_t p = gsWarp();
    const Real share = (Real)1 / (Real)spec.nranks;
    double squares = 0.0;
    if (!(spec.pool >> p & 1u))
        return;
    gsOverLanes<Real, GS_SMALL_PART>(
        staged + p * GS_SMALL_PART,
        [&](unsigned at, Real *gap) {
            Real x[4];
            gsLoadOneReference(spec, state, refs, p, b * GS_BLOCK + at, gap);
            gsLoadState(sum + at, x);
#pragma unroll
            for (unsigned c = 0; c < 4; c++)
                gap[c] = x[c] * share - gap[c];
        },
        [&](Real gap, unsigned) { squares += (double)gap * (double)gap; });
    squares = gsWarpSum(squares);
    if (gsLane() == 0)
        m.blockSum[(uint64_t)(1 + p) * spec.blocks + b] = squares;
}

/*
 * Where something is remembered, or a sum is only to be written. A CTA takes a block, and its sums stay in shared memory:
 * 1. The own record is decoded alone, and h takes its share.
 * 2. All records are summed, as above; quotients times their rank's reference; or the dense sum is loaded.
 * 3. Four elements a thread at a time: H + nu sum, H takes its share, and the references' part is added.
 * 4. Norms of the result and of its distances to the references are summed by the tree.
 * 5. References and the anchor move, and the result is scaled and stored, wide, or makes the step.
 * Traffic: as above, 16 bytes an element more for memories, 8 for a reference, 4 for each that is looked at in hindsight.
 * Bad case: quotients of sparse records, which load four elements of a reference for one.
 */
template <typename T>
__global__ void __launch_bounds__(GS_CTA, 2)
    gsRemember(const __grid_constant__ gsSpec spec, const gsState *state, Kind kind,
               const __grid_constant__ Result<T> result, const __grid_constant__ Memories<gsRealOf<T>> m,
               const __grid_constant__ gsReferences<gsRealOf<T>> refs)
{
    using Real = gsRealOf<T>;
    constexpr unsigned SCRATCH = GS_WARPS * GS_SMALL_PART * sizeof(double); /* staged gaps, or the mask's list */
    __shared__ __align__(16) Real sums[GS_BLOCK];
    __shared__ __align__(16) uint8_t scratch[SCRATCH];
    __shared__ Run run[GS_RUNS];
    __shared__ uint32_t warpKept[GS_WARPS];
    __shared__ double coefficient[GS_MAX_POOL];
    static_assert(SCRATCH >= GS_BLOCK * sizeof(uint16_t), "a block's places");
    uint16_t *sent = (uint16_t *)scratch;
    const uint64_t groups = (uint64_t)gsRecordGroups(spec.value);
    const bool adds = spec.pool && !spec.quotient && !spec.denseNow;
    if (isLost<T>(spec, state, result.sink.out))
        return;
    if (threadIdx.x < GS_MAX_POOL) { /* what the ranks took away, all in all */
        double sum = kind == DENSE ? state->call.total[threadIdx.x] : 0.0;
        for (uint64_t rank = 0; adds && kind != DENSE && rank < spec.nranks; rank++)
            sum += coefficientOf(spec, state, result.records + rank * spec.slotBytes, threadIdx.x);
        coefficient[threadIdx.x] = sum;
    }
    __syncthreads();
    for (uint64_t b = blockIdx.x; b < spec.blocks; b += gridDim.x) {
        const uint64_t first = b * GS_BLOCK;
        const unsigned length = gsBlockLength(&spec, b);
        const gsSinkBlock<T> sink(result.sink, spec.list, b, gsBlockFirst(&spec, b), length);
        const Runs runs = runsOf(spec, b);
        const bool own = spec.memory && spec.rank * groups >= runs.first && spec.rank * groups < runs.end;
        const uint64_t h = gsBlockInRecord(&spec, b) * GS_BLOCK; /* an owner's h is of its own blocks alone */
        if (kind == MASKED)
            listMask(spec, &state->call, result, b, (uint32_t *)sums, warpKept, sent);
        for (unsigned turn = own ? 0 : 1; turn < 2 && kind != DENSE; turn++) { /* the own record, then all */
            const uint64_t q = turn ? runs.first : spec.rank * groups, end = turn ? runs.end : q + groups;
            sumRuns(spec, state, result, kind, q, end, (uint32_t)b, sums, run, sent,
                    [&](uint64_t of, uint32_t place, Real x) {
                        Real r[4];
                        if (!spec.quotient)
                            return x;
                        loadGuarded(spec, state, refs, result.records + of / groups * spec.slotBytes,
                                    first + place / 4 * 4, r);
                        return x * (place % 4 == 0 ? r[0] : place % 4 == 1 ? r[1] : place % 4 == 2 ? r[2] : r[3]);
                    });
            if (turn == 0 && !spec.preview)
                rememberOwn(spec, m, h, sums);
            /* kept coordinates lie in other threads' quads: the next turn clears them */
            __syncthreads();
        }
        if (kind == DENSE && spec.memory && !spec.preview)
            rememberOwn(spec, m, first, m.work + first);
#pragma unroll 1
        for (unsigned v = 0; v < GS_QUADS; v++) {
            const unsigned at = gsQuadAt(v);
            Real x[4], r[4];
            if (kind == DENSE)
                gsLoadQuad(m.dense + first, at, length, gsIsWide(m.dense + first, length), x);
            else
                gsLoadState((const Real *)sums + at, x);
            if (spec.memory)
                rememberSum(spec, m, first + at, x);
            if (adds) {
                gsLoadReference(spec, state, refs, coefficient, first + at, r);
#pragma unroll
                for (unsigned c = 0; c < 4; c++)
                    x[c] += r[c];
            }
            gsStoreStaged(sums + at, x);
        }
        __syncthreads();
        if (spec.trigger && gsWarp() == 0) {
            const double squares = gsTreeOf(sums, [](Real x) { return (double)x * (double)x; });
            if (gsLane() == 0)
                m.blockSum[b] = squares;
        }
        if (spec.search == GS_SEARCH_HINDSIGHT) {
            missReferences(spec, state, m, refs, b, (const Real *)sums, (Real *)scratch);
            __syncthreads();
        }
#pragma unroll 1
        for (unsigned v = 0; v < GS_QUADS; v++) {
            const unsigned at = gsQuadAt(v);
            Real x[4], now[4];
            gsLoadState((const Real *)sums + at, x);
            if (spec.pool && !spec.preview)
                moveReferences(spec, state, m, first + at, x);
            if (m.anchor && spec.iterate && !state->call.skip &&
                !spec.preview) { /* of this iterate the ranks have a gradient now */
                gsLoadState((const Real *)refs.previous.next(state) + first + at, now);
                gsStoreState(m.anchor + first + at, now);
            }
        }
        deliver(sink, (const Real *)sums, result.factor);
        __syncthreads(); /* the sums are the next block's */
    }
}

/*
 * 1. One thread ends the call: phase, step, counters.
 * Traffic: none per element.
 * Bad case: none.
 */
__global__ void gsCommitCall(const __grid_constant__ gsSpec spec, gsState *state)
{
    gsCallCommit(&spec, state);
}

template <typename Real> static Memories<Real> memoriesOf(gsReducer_t r, const void *sum)
{
    Memories<Real> m = {};
    m.memory = (Real *)r->memory;
    m.shared = (Real *)r->shared;
    m.anchor = (Real *)r->anchor;
    for (int p = 0; p < GS_MAX_POOL; p++)
        m.pool[p] = (Real *)r->pool[p];
    m.history = (Real *)r->history;
    m.work = (const Real *)r->work;
    m.dense = (const Real *)sum;
    m.blockSum = r->blockSum;
    return m;
}

template <typename T, Kind KIND> static gsResult_t accumulate(gsReducer_t r, const Result<T> &result, gsStream_t stream)
{
    return gsLaunch("gsAccumulate", gsAccumulate<T, KIND>, r->spec.blocks, GS_CTA, stream, r->spec, r->state, result);
}

/* records: NULL where there is a dense sum. */
template <typename T>
static gsResult_t accumulateInto(gsReducer_t r, const void *records, const void *sum, void *out, gsRedOp_t op,
                                 gsStream_t stream)
{
    using Real = gsRealOf<T>;
    const gsSpec &spec = r->spec;
    const Real factor = op == GS_AVG ? (Real)1 / (Real)spec.nranks : (Real)1;
    const Result<T> result = {(const uint8_t *)records, r->keptBits, r->blockOffset, factor, gsSinkOf(r, out)};
    const Kind kind = !records                        ? DENSE
                      : spec.layout == GS_LAYOUT_ALL  ? WHOLE
                      : spec.layout == GS_LAYOUT_MASK ? MASKED
                                                      : KEPT;
    if (kind == DENSE || gsSpecRemembers(&spec))
        return gsLaunch("gsRemember", gsRemember<T>, spec.blocks, GS_CTA, stream, spec, r->state, kind, result,
                        memoriesOf<Real>(r, sum), gsReferencesOf<Real>(r));
    if (spec.layout == GS_LAYOUT_ROWS)
        return gsLaunch("gsAccumulateRows", gsAccumulateRows<T>, spec.blocks, GS_CTA, stream, spec, r->state, result);
    switch (kind) {
    case WHOLE: return accumulate<T, WHOLE>(r, result, stream);
    case MASKED: return accumulate<T, MASKED>(r, result, stream);
    default: return accumulate<T, KEPT>(r, result, stream);
    }
}

static gsResult_t sumUp(gsReducer_t r, const void *records, const void *sum, void *recvbuff, gsRedOp_t op,
                        gsStream_t stream)
{
    const gsSpec &spec = r->spec;
    const bool hindsight = spec.search == GS_SEARCH_HINDSIGHT;
    GS_CHECK(gsByType(spec.type,
                      [&](auto t) { return accumulateInto<decltype(t)>(r, records, sum, recvbuff, op, stream); }));
    if (!spec.trigger && !hindsight)
        return GS_SUCCESS;
    GS_CHECK(gsCudaFold(r, (spec.trigger ? 1u : 0u) | (hindsight ? (uint64_t)spec.pool << 1 : 0), stream));
    return gsCudaTakeSums(r, GS_FOR_RESULT, 0, spec.trigger ? GS_SUM_MAGNITUDES : 0, stream);
}

gsResult_t gsCudaAccumulate(gsReducer_t r, const void *records, void *recvbuff, gsRedOp_t op, gsStream_t stream)
{
    return sumUp(r, records, nullptr, recvbuff, op, stream);
}

gsResult_t gsCudaValidateDense(gsReducer_t r, const void *sum, gsStream_t stream)
{
    return gsCudaCheckDense(r, {{sum, sum}, (uint32_t)gsRealType(&r->spec), nullptr}, stream);
}

gsResult_t gsCudaAccumulateDense(gsReducer_t r, const void *sum, void *recvbuff, gsRedOp_t op, gsStream_t stream)
{
    return sumUp(r, nullptr, sum, recvbuff, op, stream);
}

gsResult_t gsCudaCommit(gsReducer_t r, gsStream_t stream)
{
    return gsLaunch("gsCommitCall", gsCommitCall, 1, 1, stream, r->spec, r->state);
}
