/* The CUDA backend's stages, as gsBackend in core.h describes them. Each enqueues kernels and returns. */
#ifndef GS_KERNELS_CUH
#define GS_KERNELS_CUH

#include "block.cuh"
#include "core.h"

/* A vector of which there are two, and the phase, a device word, says which is current. Chosen, not indexed: an index that is not a
 * constant takes a copy of the parameter in local memory, and what is behind such a pointer is no longer known to be global. */
template <typename Real> struct gsPair {
    Real *of[2];
    __device__ __forceinline__ Real *current(const gsState *state) const
    {
        return state->phase ? of[1] : of[0];
    }
    __device__ __forceinline__ Real *next(const gsState *state) const
    {
        return state->phase ? of[0] : of[1];
    }
};

template <typename Real> gsPair<Real> gsPairOf(void *const pair[2])
{
    return {{(Real *)pair[0], (Real *)pair[1]}};
}

/* What a rule looks at: the gradient, or what was prepared, which with feedback stands in the residual to be. */
struct gsInput {
    const void *of[2];       /* by phase */
    uint32_t type;           /* gsDataType_t */
    const gsListBlock *list; /* the vectors are a list's tables of tensors; NULL otherwise */
    template <typename T> __device__ __forceinline__ const T *block(const gsState *state, uint64_t b) const
    {
        return gsBlockOf<T>(list, state->phase ? of[1] : of[0], b);
    }
    /* The same where the type is known at run time alone. */
    __device__ __forceinline__ const void *anyBlock(const gsState *state, uint64_t b) const
    {
        switch (gsTypeWidth(type)) {
        case 8: return block<double>(state, b);
        case 4: return block<float>(state, b);
        default: return block<gsBf16>(state, b);
        }
    }
};

inline gsInput gsGradient(gsReducer_t r, const void *sendbuff)
{
    return {{sendbuff, sendbuff}, r->spec.type, r->spec.list};
}

/* What is compared, once it stands there; without memory of any kind the gradient itself. */
inline gsInput gsCompared(gsReducer_t r, const void *sendbuff)
{
    const uint32_t real = r->spec.wide ? GS_FLOAT64 : GS_FLOAT32;
    if (r->spec.feedback && !r->spec.denseNow)
        return {{r->residual[1], r->residual[0]}, real, nullptr};
    if (gsSpecPrepares(&r->spec))
        return {{r->work, r->work}, real, nullptr};
    return gsGradient(r, sendbuff);
}

/* Calls f with a T of this gsDataType_t; with a Real. */
template <typename F> gsResult_t gsByType(uint32_t type, F f)
{
    switch (type) {
    case GS_BFLOAT16: return f(gsBf16());
    case GS_FLOAT16: return f(gsF16());
    case GS_FLOAT64: return f(double());
    default: return f(float());
    }
}

template <typename F> gsResult_t gsByReal(const gsSpec &spec, F f)
{
    return spec.wide ? f(double()) : f(float());
}

/* Tells the call that a non-finite value was seen: one atomic a warp, and only then. */
__device__ __forceinline__ void gsReportNonFinite(gsState *state, bool bad)
{
    if (__any_sync(GS_ALL_LANES, bad) && gsLane() == 0)
        atomicOr(&state->call.nonFinite, 1u);
}

/* statistics.cu: begins the call; sums of a vector, and what becomes of them. Sums of the elements with s |x| < 1 where there
 * is an s, by what is in GS_SUM_; rows of blockSum are folded by the fixed tree, a bit a row. Of whole tensors only the largest
 * counts, unless all do. */
enum {
    GS_SUM_MAGNITUDES = 1,
    GS_SUM_SQUARES = 2,
    GS_SUM_PLAIN = 4,
    GS_SUM_LARGEST = 8,
    GS_SUM_BELOW = 16,
    GS_SUM_ALL = 32
};
enum gsPurpose {
    GS_FOR_CLIP,
    GS_FOR_TRIGGER,
    GS_FOR_CODED,
    GS_FOR_MOVED,
    GS_FOR_GAP,
    GS_FOR_GSPAR,
    GS_FOR_SCALES,
    GS_FOR_RESULT
};
gsResult_t gsCudaBegin(gsReducer_t r, gsStream_t stream);
gsResult_t gsCudaSumVector(gsReducer_t r, const gsInput &x, uint32_t what, gsStream_t stream);
gsResult_t gsCudaFold(gsReducer_t r, uint64_t rows, gsStream_t stream);
gsResult_t gsCudaTakeSums(gsReducer_t r, gsPurpose purpose, int pass, uint32_t what, gsStream_t stream);
/* What a rule must know of all of x before it can look at one coordinate. */
gsResult_t gsCudaMeasure(gsReducer_t r, const gsInput &x, gsStream_t stream);

/* reference.cu: the iterate's distances and the server's trigger; a = the gradient against what is remembered */
gsResult_t gsCudaWatchIterate(gsReducer_t r, gsStream_t stream);
gsResult_t gsCudaPrepare(gsReducer_t r, const void *sendbuff, gsStream_t stream);
gsResult_t gsCudaCompare(gsReducer_t r, const void *sendbuff, gsStream_t stream);
gsResult_t gsCudaWantsGradient(gsReducer_t r, int *wants);

/* select.cu */
gsResult_t gsCudaSelect(gsReducer_t r, const void *sendbuff, gsStream_t stream);
gsResult_t gsCudaPlanParts(gsReducer_t r, gsStream_t stream);
/* owner.cu */
gsResult_t gsCudaHandDown(gsReducer_t r, gsStream_t stream);
gsResult_t gsCudaHandBack(gsReducer_t r, gsStream_t stream);
gsResult_t gsCudaMakeResult(gsReducer_t r, gsRedOp_t op, gsStream_t stream);
gsResult_t gsCudaRememberParts(gsReducer_t r, gsStream_t stream);
/* pack.cu: laq's trigger, which looks at what the coding does; the record */
gsResult_t gsCudaWatchCoding(gsReducer_t r, const gsInput &x, gsStream_t stream);
gsResult_t gsCudaPack(gsReducer_t r, const void *sendbuff, void *record, gsStream_t stream);
/* validate.cu */
gsResult_t gsCudaValidate(gsReducer_t r, const void *records, gsStream_t stream);
/* accumulate.cu */
gsResult_t gsCudaAccumulate(gsReducer_t r, const void *records, void *recvbuff, gsRedOp_t op, gsStream_t stream);
gsResult_t gsCudaValidateDense(gsReducer_t r, const void *sum, gsStream_t stream);
gsResult_t gsCudaAccumulateDense(gsReducer_t r, const void *sum, void *recvbuff, gsRedOp_t op, gsStream_t stream);
gsResult_t gsCudaCommit(gsReducer_t r, gsStream_t stream);
/* dense.cu; the sum is a vector, or a list's table */
gsResult_t gsCudaCheckDense(gsReducer_t r, const gsInput &sum, gsStream_t stream);
gsResult_t gsCudaFinishDense(gsReducer_t r, const void *sum, void *recvbuff, gsStream_t stream);
gsResult_t gsCudaScaleState(gsReducer_t r, float factor, gsStream_t stream);
gsResult_t gsCudaScale(gsReducer_t r, void *vector, float factor, gsStream_t stream);
/* list.cu */
gsResult_t gsCudaSetTensors(gsReducer_t r, void *const *tensors, uint32_t first, uint32_t n, gsStream_t stream);
gsResult_t gsCudaGather(gsReducer_t r, const void *from, void *to, gsStream_t stream);
/* hierarchy.cu */
gsResult_t gsCudaSeal(gsReducer_t r, const int32_t *ranks, gsSeal *seal, gsStream_t stream);
gsResult_t gsCudaOpenSeals(gsReducer_t r, const gsHierarchy *h, uint32_t half, gsStream_t stream);
gsResult_t gsCudaAssemble(gsReducer_t r, const gsHierarchy *h, void *recvbuff, gsStream_t stream);
/* optimizer.cu */
gsResult_t gsCudaOptimize(const gsOptimizerCall *call, gsStream_t stream);
gsResult_t gsCudaCountStep(gsReducer_t r, const gsOptimizerCall *call, gsStream_t stream);

#endif
