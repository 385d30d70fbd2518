/*
 * The CPU's stages, compiled once per instruction set and once per gsReal from the same sources: every file that includes this header
 * becomes an object per value of GS_ISA and GS_BITS, and isa.c picks a table at run time. Work is cut at blocks, so that the bits
 * depend neither on the number of threads nor on the instruction set.
 */
#ifndef GS_CPU_STAGES_H
#define GS_CPU_STAGES_H

#include "../core.h"

/* What a stage reads: elements of a gsDataType_t. `list`: `values` is the table of its tensors' addresses. */
typedef struct {
    const void *values;
    uint32_t type;
    const gsListBlock *list;
} gsVector;

/* What a coding without draws makes of a vector, and what it loses, as squared norms. */
typedef struct {
    double coded, error;
} gsCodedNorms;

/* What gsSumVector is asked for; the rest of its answer is 0. Of whole tensors only the largest counts, unless all do. */
enum { GS_SUM_MAGNITUDES = 1, GS_SUM_SQUARES = 2, GS_SUM_PLAIN = 4, GS_SUM_LARGEST = 8, GS_SUM_ALL = 16 };

typedef struct {
    const char *name;
    uint32_t bits; /* of gsReal */
    /* statistics.c: of the elements with s |x| < 1; threshold's first tau, and topk's limit, from histograms */
    gsSums (*sumVector)(gsReducer_t r, gsVector x, double s, uint32_t what);
    void (*findTau)(gsReducer_t r, gsVector x);
    void (*findLimit)(gsReducer_t r, gsVector x, uint64_t k);
    /* reference.c: which references; the gradient against what is remembered; |x - y|^2 */
    void (*chooseReference)(gsReducer_t r, gsVector gradient);
    void (*compare)(gsReducer_t r, gsVector gradient, void *a);
    double (*distance)(gsReducer_t r, gsVector x, gsVector y);
    /* select.c: kept bits and block counts; the residual to be, unless x stands in it already */
    void (*select)(gsReducer_t r, gsVector x);
    /* pack.c; codedNorms: of a coding of all coordinates */
    void (*pack)(gsReducer_t r, gsVector x, uint8_t *record);
    gsCodedNorms (*codedNorms)(gsReducer_t r, gsVector x);
    /* validate.c: of one received record; GS_FAULT_ */
    uint64_t (*checksum)(const gsReducer_t r, const uint8_t *record, uint64_t key, uint64_t bytes);
    /* accumulate.c: records, or a dense sum of a, -> result and memories */
    void (*accumulate)(gsReducer_t r, const uint8_t *records, const void *sum, void *recvbuff, gsRedOp_t op);
    /* dense.c */
    void (*sumSlices)(gsReducer_t r, gsVector slices, uint32_t ranks, uint64_t apart, void *out, uint64_t n,
                      gsRedOp_t op);
    int (*allFinite)(gsReducer_t r, gsVector values);
    void (*scale)(gsReducer_t r, void *values, float factor);
    /* the step of the call's optimizer by a finished result, which is about its vectors' elements from `first` on */
    void (*optimizeBy)(gsReducer_t r, gsVector result, uint64_t first, uint64_t count);
    /* parts.c: sums of own blocks -> what an owner sends; and the two-way memories' share */
    void (*makeResult)(gsReducer_t r, gsRedOp_t op);
    void (*rememberParts)(gsReducer_t r);
    /* optimizer.c: elements first .. first + count - 1 of the vectors, by a gradient that begins with the first of these */
    void (*optimize)(const gsOptimizerCall *call, const void *gradient, uint64_t first, uint64_t count);
} gsCpuStages;

/* isa.c: the best table this processor runs, or the one that GS_CPU names, for a gsReal of 32 or 64 bits. */
gsResult_t gsCpuStagesFind(uint32_t bits, const gsCpuStages **stages);

#define GS_JOIN_(stem, isa, bits) stem##_##isa##_##bits
#define GS_JOIN(stem, isa, bits) GS_JOIN_(stem, isa, bits)
#define GS_STAGE(stem) GS_JOIN(stem, GS_ISA, GS_BITS)

#ifdef GS_ISA
gsSums GS_STAGE(gsSumVector)(gsReducer_t r, gsVector x, double s, uint32_t what);
void GS_STAGE(gsFindTau)(gsReducer_t r, gsVector x);
void GS_STAGE(gsFindLimit)(gsReducer_t r, gsVector x, uint64_t k);
void GS_STAGE(gsChooseReference)(gsReducer_t r, gsVector gradient);
void GS_STAGE(gsCompare)(gsReducer_t r, gsVector gradient, void *a);
double GS_STAGE(gsDistance)(gsReducer_t r, gsVector x, gsVector y);
/* Elements first .. first + n - 1 of the references with these coefficients, summed. */
void GS_STAGE(gsLoadReference)(const gsReducer_t r, const double *coefficient, uint64_t first, uint32_t n, gsReal *out);
void GS_STAGE(gsSelect)(gsReducer_t r, gsVector x);
void GS_STAGE(gsPack)(gsReducer_t r, gsVector x, uint8_t *record);
gsCodedNorms GS_STAGE(gsMeasureCoding)(gsReducer_t r, gsVector x);
uint64_t GS_STAGE(gsChecksum)(const gsReducer_t r, const uint8_t *record, uint64_t key, uint64_t bytes);
void GS_STAGE(gsAccumulate)(gsReducer_t r, const uint8_t *records, const void *sum, void *recvbuff, gsRedOp_t op);
void GS_STAGE(gsSumSlices)(gsReducer_t r, gsVector slices, uint32_t ranks, uint64_t apart, void *out, uint64_t n,
                           gsRedOp_t op);
int GS_STAGE(gsAllFinite)(gsReducer_t r, gsVector values);
void GS_STAGE(gsScale)(gsReducer_t r, void *values, float factor);
void GS_STAGE(gsOptimizeBy)(gsReducer_t r, gsVector result, uint64_t first, uint64_t count);
void GS_STAGE(gsMakeResult)(gsReducer_t r, gsRedOp_t op);
void GS_STAGE(gsRememberParts)(gsReducer_t r);
void GS_STAGE(gsOptimize)(const gsOptimizerCall *call, const void *gradient, uint64_t first, uint64_t count);
#endif

#define GS_INLINE static inline __attribute__((always_inline, unused))

#ifdef _OPENMP
#define GS_PRAGMA(text) _Pragma(#text)
#else
#define GS_PRAGMA(text)
#endif
/* for (b = 0; b < blocks; b++), shared among the call's threads in contiguous ranges; the clause may add reductions. What is to be a
 * constant in the loops over elements is switched inside: the compiler makes a function of its own of a parallel loop's body. */
#define GS_FOR_BLOCKS(r, b, clause)                                                                           \
    GS_PRAGMA(omp parallel for schedule(static) num_threads((r)->cpuThreads) if ((r)->cpuThreads > 1) clause) \
    for (int64_t b = 0; b < (int64_t)(r)->spec.blocks; b++)

/* Block b of a vector, whose elements count from 0. */
GS_INLINE gsVector blockOf(gsVector x, uint64_t b)
{
    uint64_t width = gsTypeWidth(x.type);
    if (!x.list)
        return (gsVector){(const char *)x.values + b * GS_BLOCK * width, x.type, NULL};
    const char *tensor = ((const void *const *)x.values)[x.list[b].tensor];
    return (gsVector){tensor + x.list[b].offset * width, x.type, NULL};
}

/* Block b of what a call writes: one buffer, or of a list the table of its tensors' addresses. */
GS_INLINE void *outputOf(const gsSpec *spec, void *recvbuff, uint64_t b)
{
    uint64_t width = gsTypeWidth(spec->type);
    if (!spec->list)
        return (char *)recvbuff + b * GS_BLOCK * width;
    return (char *)((void *const *)recvbuff)[spec->list[b].tensor] + spec->list[b].offset * width;
}

/* Element i of a vector; `type` is a constant wherever this is inlined. */
GS_INLINE gsReal loadElement(uint32_t type, const void *buffer, uint64_t i)
{
    switch (type) {
    case GS_BFLOAT16: return (gsReal)gsFromBf16(((const uint16_t *)buffer)[i]);
    case GS_FLOAT16: return (gsReal)gsFromF16(((const uint16_t *)buffer)[i]);
    case GS_FLOAT64: return (gsReal)((const double *)buffer)[i];
    default: return (gsReal)((const float *)buffer)[i];
    }
}

GS_INLINE void storeElement(uint32_t type, void *buffer, uint64_t i, gsReal x)
{
    switch (type) {
    case GS_BFLOAT16: ((uint16_t *)buffer)[i] = gsToBf16((float)x); break;
    case GS_FLOAT16: ((uint16_t *)buffer)[i] = gsToF16((float)x); break;
    case GS_FLOAT64: ((double *)buffer)[i] = (double)x; break;
    default: ((float *)buffer)[i] = (float)x; break;
    }
}

/* What a stage reads that has been written as gsReal. */
#ifdef GS_WIDE
enum { GS_REAL_TYPE = GS_FLOAT64 };
#else
enum { GS_REAL_TYPE = GS_FLOAT32 };
#endif

/* The bits of |a|: their order is that of the magnitudes. */
#ifdef GS_WIDE
typedef uint64_t keyBits;
GS_INLINE uint64_t keyOf(gsReal a)
{
    uint64_t bits;
    memcpy(&bits, &a, sizeof bits);
    return bits & 0x7fffffffffffffffu;
}
GS_INLINE gsReal realOf(uint64_t bits)
{
    gsReal a;
    memcpy(&a, &bits, sizeof a);
    return a;
}
enum { KEY_BITS = 63 };
#else
typedef uint32_t keyBits;
GS_INLINE uint32_t keyOf(gsReal a)
{
    return gsMagnitudeBits(a);
}
GS_INLINE gsReal realOf(uint32_t bits)
{
    return gsFloat(bits);
}
enum { KEY_BITS = 31 };
#endif

/* Runs the statement with T, the type, a constant. */
#define GS_WITH_TYPE(constant, statement) \
    {                                     \
        enum { T = constant };            \
        statement;                        \
    }
#ifdef GS_WIDE
#define GS_FOR_TYPE(type, statement) \
    do                               \
    GS_WITH_TYPE(GS_FLOAT64, statement) while (0)
#else
#define GS_FOR_TYPE(type, statement)                                  \
    do {                                                              \
        switch (type) {                                               \
        case GS_BFLOAT16: GS_WITH_TYPE(GS_BFLOAT16, statement) break; \
        case GS_FLOAT16: GS_WITH_TYPE(GS_FLOAT16, statement) break;   \
        default: GS_WITH_TYPE(GS_FLOAT32, statement) break;           \
        }                                                             \
    } while (0)
#endif

/* The reducer's double-buffered vectors: what this call reads, and what it leaves to the next. */
GS_INLINE gsReal *currentOf(const gsReducer_t r, void *const pair[2])
{
    return pair[r->state->phase];
}

GS_INLINE gsReal *nextOf(const gsReducer_t r, void *const pair[2])
{
    return pair[r->state->phase ^ 1];
}

/* Parameters, step factors: whatever type the caller's are, as gsReal. */
GS_INLINE void loadForeign(uint32_t type, const void *buffer, uint64_t first, uint32_t n, gsReal *out)
{
    switch (type) {
    case GS_BFLOAT16:
        for (uint32_t i = 0; i < n; i++)
            out[i] = loadElement(GS_BFLOAT16, buffer, first + i);
        break;
    case GS_FLOAT16:
        for (uint32_t i = 0; i < n; i++)
            out[i] = loadElement(GS_FLOAT16, buffer, first + i);
        break;
    case GS_FLOAT64:
        for (uint32_t i = 0; i < n; i++)
            out[i] = loadElement(GS_FLOAT64, buffer, first + i);
        break;
    default:
        for (uint32_t i = 0; i < n; i++)
            out[i] = loadElement(GS_FLOAT32, buffer, first + i);
        break;
    }
}

/* Lanes of the fixed tree: lane l of 32 sums a block's elements = l mod 32 in index order; lanes fold 16, 8, 4, 2, 1. */
enum { GS_LANES = 32 };

GS_INLINE double foldLanes(double *lane)
{
    for (int off = GS_LANES / 2; off > 0; off /= 2)
        for (int l = 0; l < off; l++)
            lane[l] += lane[l + off];
    return lane[0];
}

/* Blocks fold in pairs over the block number. The sums are lost. */
static inline double foldBlocks(double *sum, uint64_t blocks)
{
    for (uint64_t w = 1; w < blocks; w *= 2)
        for (uint64_t b = 0; b + w < blocks; b += 2 * w)
            sum[b] += sum[b + w];
    return blocks ? sum[0] : 0.0;
}

/* The sum over a block of x[i] y[i], by the tree; rows of lanes first, for the vectoriser. */
GS_INLINE double dotBlock(const gsReal *x, const gsReal *y, uint32_t n)
{
    double lane[GS_LANES] = {0};
    for (uint32_t i = 0; i < n / GS_LANES * GS_LANES; i += GS_LANES)
        for (uint32_t l = 0; l < GS_LANES; l++)
            lane[l] += (double)x[i + l] * (double)y[i + l];
    for (uint32_t i = n / GS_LANES * GS_LANES; i < n; i++)
        lane[i % GS_LANES] += (double)x[i] * (double)y[i];
    return foldLanes(lane);
}

GS_INLINE double magnitudesOfBlock(const gsReal *x, uint32_t n)
{
    double lane[GS_LANES] = {0};
    for (uint32_t i = 0; i < n / GS_LANES * GS_LANES; i += GS_LANES)
        for (uint32_t l = 0; l < GS_LANES; l++)
            lane[l] += (double)gsAbs(x[i + l]);
    for (uint32_t i = n / GS_LANES * GS_LANES; i < n; i++)
        lane[i % GS_LANES] += (double)gsAbs(x[i]);
    return foldLanes(lane);
}

#endif
