/* Kept bits -> record: header and cleared sections, then values and indices, then the checksum. */
#include "codec.cuh"
#include "kernels.cuh"
#include "launch.cuh"
#include "rows.cuh"

#include <type_traits>

/* A section's last 16 bytes, which may be padding. */
static __device__ void clearEnd(uint8_t *record, uint64_t begin, uint64_t end)
{
    if (end > begin)
        *(uint4 *)(record + end - GS_RECORD_ALIGN) = make_uint4(0, 0, 0, 0);
}

/*
 * 1. Every thread clears its 16 bytes of the planned sections: indices and signs are put together by atomics, and
 *    padding is zero. Where all coordinates travel, or all of some rows, only the sections' ends need it.
 * 2. One thread writes header and segment; eight write the references' coefficients; all share the entries of a list's tensors.
 * Traffic: writes the payload's bytes once, or next to nothing.
 * Bad case: none.
 */
__global__ void __launch_bounds__(GS_CTA)
    gsOpenRecord(const __grid_constant__ gsSpec spec, const gsState *state, uint8_t *record)
{
    const gsCall &call = state->call;
    const uint64_t thread = (uint64_t)blockIdx.x * GS_CTA + threadIdx.x;
    const bool runs = spec.layout == GS_LAYOUT_ALL || spec.layout == GS_LAYOUT_ROWS;
    const bool whole = !runs || call.group[0].sent == 0, skip = (call.flags & GS_FLAG_SKIP) != 0;
    for (uint64_t at = call.sections.group[0].table + 16 * thread; whole && at < call.sections.bytes;
         at += (uint64_t)gridDim.x * GS_CTA * 16)
        *(uint4 *)(record + at) = make_uint4(0, 0, 0, 0);
    for (uint64_t tensor = thread; tensor < spec.tensors; tensor += (uint64_t)gridDim.x * GS_CTA)
        ((uint4 *)(record + GS_RECORD_SECTIONS))[tensor] = ((const uint4 *)spec.entries)[tensor];
    if (!skip && (call.flags & GS_FLAG_REFERENCES) && thread < GS_MAX_POOL)
        ((double *)(record + gsRecordTableEnd(spec.tensors)))[thread] = call.coefficient[thread];
    if (thread != 0)
        return;
    *(gsRecordHeader *)record = gsCallHeader(&spec, state);
    *(gsRecordSegment *)(record + sizeof(gsRecordHeader)) = gsCallSegment(&spec, state);
    const gsRecordGroup &at = call.sections.group[0];
    clearEnd(record, call.sections.whole, at.table);
    if (whole || skip)
        return;
    clearEnd(record, at.table, at.scales);
    clearEnd(record, at.scales, at.values);
    clearEnd(record, at.values, at.indices);
    clearEnd(record, at.indices, call.sections.bytes);
}

/* What the kernels below need of the reducer. */
template <typename Real> struct Packing {
    gsInput input;
    gsPair<Real> residual, momentum;
    const uint32_t *keptBits, *blockOffset;
    uint8_t *record;
};

/* ---- kept coordinates ---- */

/* Puts `bits` at bit `at` of a section that starts at a word and is cleared; neighbours share words. */
static __device__ __forceinline__ void putBits(uint8_t *section, uint64_t at, uint32_t bits)
{
    uint32_t *word = (uint32_t *)section + at / 32, shift = (uint32_t)(at % 32);
    atomicOr(word, bits << shift);
    if (shift > 20 && bits >> (32 - shift)) /* 12 bits from 20 on reach into the next word */
        atomicOr(word + 1, bits >> (32 - shift));
}

/* Of a coordinate in the map: 2 is minus, 1 plus. */
static __device__ __forceinline__ void putMap(uint8_t *map, uint64_t place, bool negative)
{
    atomicOr((uint32_t *)map + place / 16, (negative ? 2u : 1u) << (place % 16 * 2));
}

/* What a kept x sends, before its coding. */
template <typename Real> static __device__ __forceinline__ Real valueOf(const gsSpec &spec, const gsCall &call, Real x)
{
    const Real gain = (Real)call.group[0].gain;
    if (spec.select == GS_SELECT_RANDK)
        return x * (Real)call.inverse * gain;
    if (spec.select == GS_SELECT_GSPAR)
        return gsGsparValue(x, (Real)call.s, (Real)call.inverse) * gain;
    return x;
}

/* gsDraw, in registers. */
static __device__ __forceinline__ uint32_t drawOf(const gsSpec &spec, uint64_t step, uint64_t i)
{
    const gsPhilox4 draws = gsPhilox(spec.seed, i >> 2, step, spec.rank, GS_DRAW_ROUND);
    const uint32_t low = i & 1 ? draws.word[1] : draws.word[0], high = i & 1 ? draws.word[3] : draws.word[2];
    return i & 2 ? high : low;
}

/* What travels leaves the residual, and the momentum with it; what the coding takes away stays. */
template <typename Real>
static __device__ __forceinline__ void settle(const gsSpec &spec, uint64_t i, Real lost, Real *residual, Real *momentum)
{
    if (spec.feedback)
        residual[i] = lost;
    if (spec.momentum > 0.0)
        momentum[i] = (Real)0;
}

/* Codes x into its slot. */
template <typename Real>
static __device__ __forceinline__ void putValue(const gsSpec &spec, const gsCoding &how, uint64_t step, uint8_t *values,
                                                uint64_t slot, uint64_t i, Real x, Real *residual, Real *momentum)
{
    const uint32_t word = spec.random || how.value == GS_VALUE_LEVELS ? drawOf(spec, step, i) : 0;
    gsPutSlot(how, values, slot, x, word);
    settle(spec, i, x - gsGetSlot<Real>(how, values, slot), residual, momentum);
}

/* A block that travels whole, and what rounding takes from it. Its momentum goes on: nothing of it waits. */
template <typename T>
static __device__ __forceinline__ void packWhole(const gsSpec &spec, const gsCall &call, const T *block, uint64_t b,
                                                 uint8_t *record, gsRealOf<T> *residual)
{
    using Real = gsRealOf<T>;
    const gsCoding how = gsWholeCodingOf(spec, call.scale);
    const uint64_t first = gsBlockAt(&spec, b) * GS_BLOCK, place = gsBlockPlace(&spec, b);
    const unsigned length = call.nonFinite ? 0 : gsBlockLength(&spec, b);
    uint8_t *values = record + call.sections.whole;
    for (unsigned n = threadIdx.x; n < length; n += blockDim.x) {
        const Real a = gsVector<T>::to(block[n]);
        gsPutSlot(how, values, place + n, a, spec.random ? drawOf(spec, call.step, first + n) : 0);
        if (spec.feedback)
            residual[first + n] = a - gsGetSlot<Real>(how, values, place + n);
    }
}

/* QSGD's norm, of the first `sent` coordinates of the list, by one warp: they are a vector of their own. */
template <typename Real> static __device__ float scaleOfList(const Real *x, const uint32_t *list, uint32_t sent)
{
    double sum = 0.0;
    for (uint32_t n = gsLane(); n < sent; n += 32)
        sum += (double)x[list[n]] * (double)x[list[n]];
    return gsScaleUp(sqrt(gsWarpSum(sum)));
}

/* The 2-bit codebook of the first `sent` coordinates of the list, by one warp: the bins' mean and width, and each bin's mean. */
struct Book {
    double mean, width;
    float of[GS_BOOK];
};

template <typename Real> static __device__ void makeBook(const Real *x, const uint32_t *list, uint32_t sent, Book *book)
{
    double sum = 0.0, squares = 0.0, bin[GS_BOOK] = {};
    uint32_t members[GS_BOOK] = {};
    for (uint32_t n = gsLane(); n < sent; n += 32) {
        const double v = (double)x[list[n]];
        sum += v;
        squares += v * v;
    }
    const double mean = sent ? gsWarpSum(sum) / (double)sent : 0.0;
    const double variance = sent ? gsWarpSum(squares) / (double)sent - mean * mean : 0.0;
    const double width = 1.5 * sqrt(variance > 0.0 ? variance : 0.0);
    for (uint32_t n = gsLane(); n < sent; n += 32) {
        const Real v = x[list[n]];
        const uint32_t code = gsBookCode(v, mean, width);
#pragma unroll
        for (uint32_t k = 0; k < GS_BOOK; k++) {
            if (code != k)
                continue;
            bin[k] += (double)v;
            members[k]++;
        }
    }
#pragma unroll
    for (uint32_t k = 0; k < GS_BOOK; k++) {
        const double total = gsWarpSum(bin[k]);
        const uint32_t count = __reduce_add_sync(GS_ALL_LANES, members[k]);
        if (gsLane() == k)
            book->of[k] = count ? gsSaturate((float)(total / (double)count)) : 0.0f;
    }
    if (gsLane() == 0) {
        book->mean = mean;
        book->width = width;
    }
}

/*
 * A CTA takes a block, a thread one word of its kept bits:
 * 1. The bits become a list of places, group 0 before group 1.
 * 2. The block table's entry is written; with levels the block's norm, with two bits its codebook.
 * 3. Neighbouring threads take neighbouring coordinates of the list: the j-th kept has a slot in the record or is
 *    left out (overflow, thinning); its value is gathered and coded, its index put into place by 12 bits.
 * 4. A block that travels whole has no kept bits; its values are coded one behind the other.
 * Traffic: reads an eighth of a byte an element, and for each kept coordinate a sector of 32 bytes (with feedback,
 *   writes it too) and its payload.
 * Bad case: everything kept; lists, gathers and stores are then still consecutive, but the index words' atomics take
 *   turns, 3 words to 8 neighbours.
 */
template <typename T>
__global__ void __launch_bounds__(GS_BLOCK_WORDS)
    gsPackBlocks(const __grid_constant__ gsSpec spec, const gsState *state, const Packing<gsRealOf<T>> packing)
{
    using Real = gsRealOf<T>;
    __shared__ gsCall call;
    __shared__ uint32_t list[GS_BLOCK];
    __shared__ uint32_t warpKept[GS_BLOCK_WORDS / 32];
    __shared__ float norm;
    __shared__ Book book;
    Real *residual = packing.residual.next(state), *momentum = packing.momentum.next(state);
    const int groups = gsRecordGroups(spec.value);
    for (unsigned i = threadIdx.x; i < sizeof call / sizeof(uint32_t); i += GS_BLOCK_WORDS)
        ((uint32_t *)&call)[i] = ((const uint32_t *)&state->call)[i];
    __syncthreads();
    if (call.flags & GS_FLAG_SKIP)
        return;

    const bool map = (call.flags & GS_FLAG_MAP) != 0;
    gsCoding how = gsCodingOf(spec, call.scale);
    for (uint64_t b = blockIdx.x; b < spec.blocks; b += gridDim.x) {
        const uint64_t at = gsBlockAt(&spec, b), first = at * GS_BLOCK;
        const T *x = packing.input.template block<T>(state, at);
        uint32_t word = packing.keptBits[at * GS_BLOCK_WORDS + threadIdx.x], drawn = 0;
        for (uint32_t left = groups == 2 ? word : 0; left; left &= left - 1) {
            const unsigned place = threadIdx.x * 32 + (unsigned)__ffs((int)left) - 1;
            if (!((Real)call.s * gsAbs(gsVector<T>::to(x[place])) >= (Real)1))
                drawn |= left & -left;
        }
        const uint32_t kept = gsListKept(list, warpKept, word & ~drawn, drawn), kept0 = kept & 0xffffu,
                       all = kept0 + (kept >> 16);
        const uint32_t *offset1 = packing.blockOffset + (uint64_t)spec.blocks + 1;
        const uint64_t before0 = packing.blockOffset[b], before1 = groups == 2 ? offset1[b] : 0;
        if (spec.layout == GS_LAYOUT_GLOBAL && threadIdx.x < (unsigned)(map ? 1 : groups)) {
            const int group = (int)threadIdx.x;
            uint32_t *table = (uint32_t *)(packing.record + call.sections.group[group].table);
            table[b] = (uint32_t)gsCallSlot(&spec, &call, group, group ? before1 : before0);
            if (b + 1 == spec.blocks)
                table[b + 1] = (uint32_t)call.group[group].sent;
        }
        if constexpr (std::is_same_v<
                          T, Real>) { /* levels: nothing is thinned, so that what is sent is the list's beginning */
            if (spec.value == GS_VALUE_LEVELS) {
                const uint64_t end = gsCallSlot(&spec, &call, 0, before0 + kept0);
                const uint32_t sent = (uint32_t)(end - gsCallSlot(&spec, &call, 0, before0));
                const float scale = gsWarp() == 0 ? scaleOfList(x, list, sent) : 0.0f;
                if (threadIdx.x == 0)
                    ((float *)(packing.record + call.sections.group[0].scales))[b] = norm = scale;
                __syncthreads();
                how.scale = norm;
            }
            if (spec.value == GS_VALUE_BOOK) {
                const uint64_t end = gsCallSlot(&spec, &call, 0, before0 + kept0);
                if (gsWarp() == 0)
                    makeBook(x, list, (uint32_t)(end - gsCallSlot(&spec, &call, 0, before0)), &book);
                __syncthreads();
                if (threadIdx.x < GS_BOOK)
                    ((float *)(packing.record + call.sections.group[0].scales))[GS_BOOK * b + threadIdx.x] =
                        book.of[threadIdx.x];
            }
        }
        for (uint32_t n = threadIdx.x; n < all; n += GS_BLOCK_WORDS) {
            const int group = n >= kept0;
            const uint64_t j = group ? before1 + (n - kept0) : before0 + n, slot = gsCallSlot(&spec, &call, group, j);
            if (gsCallSlot(&spec, &call, group, j + 1) == slot)
                continue;
            const uint64_t i = first + list[n];
            const Real a = gsVector<T>::to(x[list[n]]);
            uint8_t *values = packing.record + call.sections.group[group].values;
            if (group == 1 && map) {
                putMap(values, gsBlockPlace(&spec, b) + list[n], a < (Real)0);
                continue;
            }
            if (spec.value == GS_VALUE_BOOK) {
                const uint32_t code = gsBookCode(a, book.mean, book.width);
                putBits(values, 2 * slot, code);
                settle(spec, i, a - (Real)book.of[code], residual, momentum);
            } else if (group == 0)
                putValue(spec, how, call.step, values, slot, i, valueOf(spec, call, a), residual, momentum);
            else if (a < (Real)0)
                putBits(values, slot, 1u);
            if (spec.layout != GS_LAYOUT_MASK)
                putBits(packing.record + call.sections.group[group].indices, 12 * slot, list[n]);
        }
        if (gsBlockIsWhole(&spec, b))
            packWhole(spec, call, x, b, packing.record, residual);
        __syncthreads(); /* the list is the next block's */
    }
}

/* ---- rows ---- */

/* Codes four neighbours into slots, 16 bytes or a part of them at a time, and says what they decode to. */
template <typename Real>
static __device__ __forceinline__ void putFourSlots(const gsCoding &how, uint8_t *values, uint64_t slot,
                                                    unsigned present, const Real *a, const uint32_t *words,
                                                    Real *decoded)
{
    if (present < 4) {
        for (unsigned c = 0; c < present; c++) {
            gsPutSlot(how, values, slot + c, a[c], words[c]);
            decoded[c] = gsGetSlot<Real>(how, values, slot + c);
        }
        return;
    }
    if (how.value == GS_VALUE_F64) {
        const double wide[4] = {(double)a[0], (double)a[1], (double)a[2], (double)a[3]};
        gsStoreState((double *)values + slot, wide);
#pragma unroll
        for (unsigned c = 0; c < 4; c++)
            decoded[c] = a[c];
    } else if (how.value == GS_VALUE_F32) {
        float narrow[4];
#pragma unroll
        for (unsigned c = 0; c < 4; c++) {
            narrow[c] = gsNarrow(a[c], words[c], (int)how.stochastic);
            decoded[c] = (Real)narrow[c];
        }
        gsStoreState((float *)values + slot, narrow);
    } else {
        uint16_t half[4];
#pragma unroll
        for (unsigned c = 0; c < 4; c++) {
            half[c] = gsHalfCode(how.value, a[c], how.scale, words[c], (int)how.stochastic);
            decoded[c] = (Real)gsHalfDecode(how.value, half[c], how.scale);
        }
        *(ushort4 *)((uint16_t *)values + slot) = make_ushort4(half[0], half[1], half[2], half[3]);
    }
}

/*
 * rows. A CTA takes a block:
 * 1. The kept bits become a list of places.
 * 2. The block table's entry is written, and everybody copies the rows' bits.
 * 3. Neighbouring threads move neighbours of the list, four at a time where rows are multiples of four.
 * Traffic: reads an eighth of a byte an element and what travels, writes that and the bits.
 * Bad case: rows of another length, whose elements move one by one.
 */
template <typename T>
__global__ void __launch_bounds__(GS_BLOCK_WORDS)
    gsPackRows(const __grid_constant__ gsSpec spec, const gsState *state, const Packing<gsRealOf<T>> packing,
               const uint32_t *rowBits)
{
    using Real = gsRealOf<T>;
    __shared__ uint16_t list[GS_BLOCK];
    __shared__ uint32_t warpKept[GS_BLOCK_WORDS / 32];
    const gsCall &call = state->call;
    const gsRecordGroup at = call.sections.group[0];
    const gsCoding how = gsCodingOf(spec, 0.0f);
    uint32_t *table = (uint32_t *)(packing.record + at.table);
    if (call.group[0].sent == 0) /* and all is cleared */
        return;
    for (uint64_t i = (uint64_t)blockIdx.x * GS_BLOCK_WORDS + threadIdx.x;
         32 * i < gsRecordRows(spec.count, spec.width); i += (uint64_t)gridDim.x * GS_BLOCK_WORDS)
        ((uint32_t *)(packing.record + at.indices))[i] = rowBits[i];
    for (uint64_t b = blockIdx.x; b < spec.blocks; b += gridDim.x) {
        const T *block = packing.input.template block<T>(state, b);
        const unsigned length = gsBlockLength(&spec, b);
        const bool wide = gsIsWide(block, length);
        const uint32_t n = gsListKept(list, warpKept, packing.keptBits[b * GS_BLOCK_WORDS + threadIdx.x], 0);
        const uint64_t slot = packing.blockOffset[b];
        if (threadIdx.x == 0) {
            table[b] = (uint32_t)slot;
            if (b + 1 == spec.blocks)
                table[b + 1] = (uint32_t)call.group[0].sent;
        }
        if (gsRowsAreQuads(spec)) {
            const uint32_t words[4] = {};
            for (uint32_t i = 4 * threadIdx.x; i < n; i += 4 * GS_BLOCK_WORDS) {
                Real four[4], decoded[4];
                gsLoadQuad(block, list[i], length, wide, four);
                putFourSlots(how, packing.record + at.values, slot + i, n - i, four, words, decoded);
            }
        } else {
            for (uint32_t i = threadIdx.x; i < n; i += GS_BLOCK_WORDS)
                gsPutSlot(how, packing.record + at.values, slot + i, gsVector<T>::to(block[list[i]]), 0);
        }
        __syncthreads(); /* the list is the next block's */
    }
}

/* ---- all coordinates ---- */

/* The scale of a block that stands in shared memory, in every thread. Ends behind a barrier. */
template <typename Real>
static __device__ __forceinline__ float scaleOfBlock(uint32_t value, const Real *tile, unsigned length, float *scale)
{
    if (gsWarp() == 0) {
        float mine;
        if (value == GS_VALUE_SIGN) {
            mine = gsSaturate((float)(gsTreeOf(tile, [](Real a) { return (double)gsAbs(a); }) / (double)length));
        } else if (value == GS_VALUE_TERNARY || value == GS_VALUE_GRID) {
            Real largest = 0;
            for (unsigned j = gsLane(); j < GS_BLOCK; j += 32)
                largest = gsAbs(tile[j]) > largest ? gsAbs(tile[j]) : largest;
            for (int offset = 16; offset > 0; offset /= 2) {
                const Real other = __shfl_xor_sync(GS_ALL_LANES, largest, offset);
                largest = other > largest ? other : largest;
            }
            mine = gsScaleUp((double)largest);
        } else {
            mine = gsScaleUp(sqrt(gsTreeOf(tile, [](Real a) { return (double)a * (double)a; })));
        }
        if (gsLane() == 0)
            *scale = mine;
    }
    __syncthreads();
    return *scale;
}

/* Puts four codes of `bits` each into a block's words in shared memory. */
static __device__ __forceinline__ void putFourCodes(uint32_t *words, unsigned at, uint32_t bits, const uint32_t *code)
{
    const uint32_t first = at * bits, shift = first % 32;
    const uint64_t four =
        ((uint64_t)code[0] | (uint64_t)code[1] << bits | (uint64_t)code[2] << 2 * bits | (uint64_t)code[3] << 3 * bits)
        << shift;
    if ((uint32_t)four)
        atomicOr(&words[first / 32], (uint32_t)four);
    if (four >> 32)
        atomicOr(&words[first / 32 + 1], (uint32_t)(four >> 32));
}

/*
 * All coordinates. A CTA takes a block:
 * 1. Where blocks have scales, the block goes to shared memory and a warp finds its scale, by the fixed tree.
 * 2. Each thread draws for four neighbours and codes them: numbers into their slots, shorter codes into words in shared
 *    memory.
 * 3. What the coding takes away stays in the residual, and the momentum ends.
 * 4. The words are copied to the record, 16 bytes a thread.
 * Traffic: reads x, 4 bytes an element (with feedback writes the residual, 4 more, and reads x twice), and writes the codes.
 * Bad case: scaled signs, whose block waits for one warp's 128 additions.
 */
template <typename T>
__global__ void __launch_bounds__(GS_CTA, gsFewCtasPerSm<gsRealOf<T>>)
    gsPackAll(const __grid_constant__ gsSpec spec, const gsState *state, const Packing<gsRealOf<T>> packing)
{
    using Real = gsRealOf<T>;
    constexpr unsigned MOST_BITS = 9;
    __shared__ __align__(16) Real tile[GS_BLOCK];
    __shared__ __align__(16) uint32_t words[GS_BLOCK_WORDS * MOST_BITS];
    __shared__ float scale;
    const gsCall &call = state->call;
    const gsRecordGroup &at = call.sections.group[0];
    const bool slots = gsHasSlots(spec.value),
               scaled = gsValueIsScaled(spec.value) && !(spec.aux & GS_RECORD_ONE_SCALE);
    const bool draws = spec.value != GS_VALUE_SIGN && spec.value != GS_VALUE_GRID && (spec.random || !slots);
    gsCoding how = gsCodingOf(spec, call.scale);
    if (call.skip || call.nonFinite)
        return;
    for (uint64_t b = blockIdx.x; b < spec.blocks; b += gridDim.x) {
        const uint64_t of = gsBlockAt(&spec, b), first = of * GS_BLOCK, begin = gsBlockPlace(&spec, b);
        const T *block = packing.input.template block<T>(state, of);
        const unsigned length = gsBlockLength(&spec, b);
        const bool wide = gsIsWide(block, length);
        if (gsBlockIsWhole(&spec, b)) {
            if (scaled && threadIdx.x == 0)
                ((float *)(packing.record + at.scales))[b] = 0.0f;
            packWhole(spec, call, block, b, packing.record, packing.residual.next(state));
            continue;
        }
        if (scaled) {
#pragma unroll
            for (unsigned v = 0; v < GS_QUADS; v++) {
                Real a[4];
                gsLoadQuad(block, gsQuadAt(v), length, wide, a);
                gsStoreStaged(tile + gsQuadAt(v), a);
            }
        }
        for (unsigned w = threadIdx.x; !slots && w < GS_BLOCK_WORDS * how.bits; w += GS_CTA)
            words[w] = 0;
        __syncthreads();
        if (scaled) {
            how.scale = scaleOfBlock(spec.value, tile, length, &scale);
            if (threadIdx.x == 0)
                ((float *)(packing.record + at.scales))[b] = how.scale;
        }
#pragma unroll 1
        for (unsigned v = 0; v < GS_QUADS; v++) {
            const unsigned place = gsQuadAt(v), present = place >= length ? 0 : length - place < 4 ? length - place : 4;
            const uint64_t i = first + place;
            Real a[4], decoded[4] = {};
            gsPhilox4 drawn = {};
            if (present == 0)
                continue;
            gsLoadQuad(block, place, length, wide, a);
            if (draws)
                drawn = gsPhilox(spec.seed, i / 4, call.step, spec.rank, GS_DRAW_ROUND);
            if (slots) {
                putFourSlots(how, packing.record + at.values, begin + place, present, a, drawn.word, decoded);
            } else {
                uint32_t code[4];
#pragma unroll
                for (unsigned c = 0; c < 4; c++) {
                    code[c] = c < present ? gsCodeOf(how, a[c], drawn.word[c]) : 0;
                    decoded[c] = (Real)gsDecodeOf(how, code[c]);
                }
                putFourCodes(words, place, how.bits, code);
            }
            if (!spec.feedback)
                continue;
#pragma unroll
            for (unsigned c = 0; c < 4; c++)
                decoded[c] = c < present ? a[c] - decoded[c] : (Real)0;
            gsStoreState(packing.residual.next(state) + i, decoded);
            if (spec.momentum > 0.0) {
                const Real none[4] = {};
                gsStoreState(packing.momentum.next(state) + i, none);
            }
        }
        __syncthreads();
        uint8_t *values = packing.record + at.values + begin / 8 * how.bits;
        const uint32_t full = spec.list ? (uint32_t)gsListPlaces(length) : length; /* behind a tensor's end are zeros */
        for (unsigned byte = length * how.bits / 8 + threadIdx.x; slots && byte < full * how.bits / 8; byte += GS_CTA)
            values[byte] = 0;
        const uint32_t bytes = slots ? 0 : (full * how.bits + 7) / 8;
        for (unsigned from = threadIdx.x * 16; from < bytes; from += GS_CTA * 16)
            *(uint4 *)(values + from) = ((const uint4 *)words)[from / 16];
        __syncthreads(); /* tile and words are the next block's */
    }
}

/*
 * 1. Each thread adds the terms of its words, 16 bytes at a time.
 * 2. Warps add theirs to the header's checksum, which was left 0 and is the one word not counted.
 * Traffic: reads the payload's bytes once.
 * Bad case: small records, a launch for little.
 */
__global__ void __launch_bounds__(GS_CTA)
    gsSealRecord(const __grid_constant__ gsSpec spec, const gsState *state, uint8_t *record)
{
    const uint64_t key = gsChecksumKey(spec.configHash, state->step, spec.rank), words = state->call.sections.bytes / 8;
    uint64_t sum = 0;
    for (uint64_t j = 2 * ((uint64_t)blockIdx.x * GS_CTA + threadIdx.x); j < words;
         j += 2 * (uint64_t)gridDim.x * GS_CTA) {
        ulonglong2 pair = *(const ulonglong2 *)(record + 8 * j);
        sum += gsChecksumTerm(key, j, pair.x);
        if (j + 1 != GS_RECORD_CHECKSUM_WORD)
            sum += gsChecksumTerm(key, j + 1, pair.y);
    }
    sum = gsWarpSum(sum);
    if (gsLane() == 0 && sum)
        atomicAdd((unsigned long long *)record + GS_RECORD_CHECKSUM_WORD, sum);
}

/*
 * laq: what the coding would send and lose. A warp takes a block:
 * 1. It finds the block's largest magnitude, unless one scale serves all.
 * 2. It codes and decodes every element, and adds the squares of what comes out, then of what is lost, in the tree's order.
 * Traffic: reads a three times, twice from the cache, 4 bytes an element.
 * Bad case: none.
 */
template <typename Real>
__global__ void __launch_bounds__(GS_CTA, gsFewCtasPerSm<Real>)
    gsMeasureCoding(const __grid_constant__ gsSpec spec, const gsState *state, const gsInput input, double *blockSum)
{
    __shared__ __align__(16) Real staged[GS_WARPS][GS_PART];
    if (state->call.skip)
        return;
    for (uint64_t b = (uint64_t)blockIdx.x * GS_WARPS + gsWarp(); b < spec.blocks;
         b += (uint64_t)gridDim.x * GS_WARPS) {
        const unsigned length = gsBlockLength(&spec, b);
        float scale = state->call.scale;
        double coded = 0.0, error = 0.0;
        auto load = [&](unsigned at, Real *quad) { gsLoadState(input.template block<Real>(state, b) + at, quad); };
        if (!(spec.aux & GS_RECORD_ONE_SCALE)) {
            Real largest = 0;
            gsOverLanes(staged[gsWarp()], load,
                        [&](Real x, unsigned) { largest = gsAbs(x) > largest ? gsAbs(x) : largest; });
            for (int offset = 16; offset > 0; offset /= 2) {
                const Real other = __shfl_xor_sync(GS_ALL_LANES, largest, offset);
                largest = other > largest ? other : largest;
            }
            scale = gsScaleUp((double)largest);
        }
        gsOverLanes(staged[gsWarp()], load, [&](Real x, unsigned at) {
            const Real decoded = (Real)gsGridDecode(gsGridCode(x, scale, spec.levels), scale, spec.levels),
                       lost = x - decoded;
            coded += at < length ? (double)decoded * (double)decoded : 0.0;
            error += at < length ? (double)lost * (double)lost : 0.0;
        });
        coded = gsWarpSum(coded);
        error = gsWarpSum(error);
        if (gsLane() == 0) {
            blockSum[b] = coded;
            blockSum[spec.blocks + b] = error;
        }
    }
}

gsResult_t gsCudaWatchCoding(gsReducer_t r, const gsInput &x, gsStream_t stream)
{
    const uint64_t ctas = ((uint64_t)r->spec.blocks + GS_WARPS - 1) / GS_WARPS;
    if (r->spec.trigger != GS_TRIGGER_CODED)
        return GS_SUCCESS;
    GS_CHECK(gsByReal(r->spec, [&](auto real) {
        return gsLaunch("gsMeasureCoding", gsMeasureCoding<decltype(real)>, ctas, GS_CTA, stream, r->spec, r->state, x,
                        r->blockSum);
    }));
    GS_CHECK(gsCudaFold(r, GS_SUM_MAGNITUDES | GS_SUM_SQUARES, stream));
    return gsCudaTakeSums(r, GS_FOR_CODED, 0, GS_SUM_MAGNITUDES | GS_SUM_SQUARES, stream);
}

template <typename T> static gsResult_t packInput(gsReducer_t r, const gsInput &x, uint8_t *record, gsStream_t stream)
{
    using Real = gsRealOf<T>;
    const gsSpec &spec = r->spec;
    const Packing<Real> packing = {
        x, gsPairOf<Real>(r->residual), gsPairOf<Real>(r->momentum), r->keptBits, r->blockOffset, record};
    if (spec.layout == GS_LAYOUT_ALL)
        return gsLaunch("gsPackAll", gsPackAll<T>, spec.blocks, GS_CTA, stream, spec, r->state, packing);
    if (spec.layout == GS_LAYOUT_ROWS)
        return gsLaunch("gsPackRows", gsPackRows<T>, spec.blocks, GS_BLOCK_WORDS, stream, spec, r->state, packing,
                        r->rowBits);
    return gsLaunch("gsPackBlocks", gsPackBlocks<T>, spec.blocks, GS_BLOCK_WORDS, stream, spec, r->state, packing);
}

gsResult_t gsCudaPack(gsReducer_t r, const void *sendbuff, void *record, gsStream_t stream)
{
    /* How long the record will be is known on the device alone: grids are for a full one. */
    const uint64_t ctas = (r->spec.slotBytes + GS_RECORD_PART - 1) / GS_RECORD_PART;
    const gsInput x = gsCompared(r, sendbuff);
    GS_CHECK(gsLaunch("gsOpenRecord", gsOpenRecord, ctas, GS_CTA, stream, r->spec, r->state, (uint8_t *)record));
    GS_CHECK(gsByType(x.type, [&](auto t) { return packInput<decltype(t)>(r, x, (uint8_t *)record, stream); }));
    return gsLaunch("gsSealRecord", gsSealRecord, ctas, GS_CTA, stream, r->spec, r->state, (uint8_t *)record);
}
