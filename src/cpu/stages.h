/*
 * The CPU's stages, compiled once per instruction set from the same sources: every file that includes this header becomes an
 * object per value of GS_ISA, and isa.c picks a table at run time. Work is cut at blocks, so that the bits depend neither on
 * the number of threads nor on the instruction set.
 */
#ifndef GS_CPU_STAGES_H
#define GS_CPU_STAGES_H

#include "../core.h"

typedef struct {
    const char *name;
    /* statistics.c: gspar's s, threshold's first tau; both into the state's call */
    void (*findScale)(gsReducer_t r, const void *sendbuff);
    void (*findTau)(gsReducer_t r, const void *sendbuff);
    /* select.c: kept bits and block counts; the state to be */
    void (*select)(gsReducer_t r, const void *sendbuff);
    /* pack.c */
    void (*pack)(gsReducer_t r, const void *sendbuff, uint8_t *record);
    /* validate.c: of one received record; GS_FAULT_ */
    uint64_t (*checksum)(const gsReducer_t r, const uint8_t *record, uint64_t key, uint64_t bytes);
    /* accumulate.c */
    void (*accumulate)(gsReducer_t r, const uint8_t *records, void *recvbuff, gsRedOp_t op);
    /* dense.c */
    void (*sumSlices)(gsReducer_t r, const void *slices, uint64_t apart, void *out, uint64_t n, gsRedOp_t op);
    int (*allFinite)(gsReducer_t r, const void *values);
    void (*scale)(gsReducer_t r, float *residual, float factor);
} gsCpuStages;

/* isa.c: the best table this processor runs, or the one that GS_CPU names. */
gsResult_t gsCpuStagesFind(const gsCpuStages **stages);

#define GS_JOIN_(stem, isa) stem##_##isa
#define GS_JOIN(stem, isa) GS_JOIN_(stem, isa)
#define GS_STAGE(stem) GS_JOIN(stem, GS_ISA)

#ifdef GS_ISA
void GS_STAGE(gsFindScale)(gsReducer_t r, const void *sendbuff);
void GS_STAGE(gsFindTau)(gsReducer_t r, const void *sendbuff);
void GS_STAGE(gsSelect)(gsReducer_t r, const void *sendbuff);
void GS_STAGE(gsPack)(gsReducer_t r, const void *sendbuff, uint8_t *record);
uint64_t GS_STAGE(gsChecksum)(const gsReducer_t r, const uint8_t *record, uint64_t key, uint64_t bytes);
void GS_STAGE(gsAccumulate)(gsReducer_t r, const uint8_t *records, void *recvbuff, gsRedOp_t op);
void GS_STAGE(gsSumSlices)(gsReducer_t r, const void *slices, uint64_t apart, void *out, uint64_t n, gsRedOp_t op);
int GS_STAGE(gsAllFinite)(gsReducer_t r, const void *values);
void GS_STAGE(gsScale)(gsReducer_t r, float *residual, float factor);
#endif

#define GS_INLINE static inline __attribute__((always_inline, unused))

/* for (b = 0; b < blocks; b++), shared among the call's threads in contiguous ranges. */
#ifdef _OPENMP
#define GS_PRAGMA(text) _Pragma(#text)
#else
#define GS_PRAGMA(text)
#endif
#define GS_FOR_BLOCKS(r, b)                                                                            \
    GS_PRAGMA(omp parallel for schedule(static) num_threads((r)->cpuThreads) if ((r)->cpuThreads > 1)) \
    for (int64_t b = 0; b < (int64_t)(r)->spec.blocks; b++)

/* Elements of block b: GS_BLOCK, fewer in the last. */
GS_INLINE uint32_t blockLength(const gsSpec *spec, uint64_t b)
{
    uint64_t left = spec->count - b * GS_BLOCK;
    return left < GS_BLOCK ? (uint32_t)left : GS_BLOCK;
}

/* Element i of a gradient; `type` is a constant wherever this is inlined. */
GS_INLINE float loadElement(uint32_t type, const void *buffer, uint64_t i)
{
    return type == GS_BFLOAT16 ? gsFromBf16(((const uint16_t *)buffer)[i]) : ((const float *)buffer)[i];
}

GS_INLINE void storeElement(uint32_t type, void *buffer, uint64_t i, float x)
{
    if (type == GS_BFLOAT16)
        ((uint16_t *)buffer)[i] = gsToBf16(x);
    else
        ((float *)buffer)[i] = x;
}

/* Runs body(..., type) with the type a constant. */
#define GS_FOR_TYPE(type, statement)  \
    do {                              \
        if ((type) == GS_BFLOAT16) {  \
            enum { T = GS_BFLOAT16 }; \
            statement;                \
        } else {                      \
            enum { T = GS_FLOAT32 };  \
            statement;                \
        }                             \
    } while (0)

#endif
