/* What a gradient is compared with, four elements at a time: for the comparison, and for the sum that gives it back. */
#ifndef GS_REFERENCE_CUH
#define GS_REFERENCE_CUH

#include "kernels.cuh"

/* The vectors that references are made of, and the iterates. */
template <typename Real> struct gsReferences {
    const Real *pool[GS_MAX_POOL];
    const Real *history;
    gsPair<Real> previous;
    const void *params; /* the caller's, of any type */
};

template <typename Real> gsReferences<Real> gsReferencesOf(gsReducer_t r)
{
    gsReferences<Real> refs = {};
    for (int p = 0; p < GS_MAX_POOL; p++)
        refs.pool[p] = (const Real *)r->pool[p];
    refs.history = (const Real *)r->history;
    refs.previous = gsPairOf<Real>(r->previous);
    refs.params = r->params;
    return refs;
}

template <typename Real, typename T>
__device__ __forceinline__ void gsLoadForeignAs(const T *x, uint64_t i, uint64_t count, Real *out)
{
    constexpr uintptr_t each = sizeof(typename gsVector<T>::Type) < 16 ? sizeof(typename gsVector<T>::Type) : 16;
    const uint64_t left = i < count ? count - i : 0;
    gsRealOf<T> four[4];
    gsLoadQuad(x + i, 0, left < 4 ? (unsigned)left : 4, left >= 4 && (uintptr_t)(x + i) % each == 0, four);
#pragma unroll
    for (unsigned c = 0; c < 4; c++)
        out[c] = (Real)four[c];
}

/* Elements i .. i + 3 of a caller's vector, of whatever type and alignment, zeros beyond `count`. */
template <typename Real>
__device__ __forceinline__ void gsLoadForeign(uint32_t type, const void *x, uint64_t i, uint64_t count, Real *out)
{
    switch (type) {
    case GS_BFLOAT16: gsLoadForeignAs((const gsBf16 *)x, i, count, out); break;
    case GS_FLOAT16: gsLoadForeignAs((const gsF16 *)x, i, count, out); break;
    case GS_FLOAT64: gsLoadForeignAs((const double *)x, i, count, out); break;
    default: gsLoadForeignAs((const float *)x, i, count, out); break;
    }
}

/* Elements i .. i + 3 of one reference, zeros beyond the vector's end. */
template <typename Real>
__device__ __forceinline__ void gsLoadOneReference(const gsSpec &spec, const gsState *state,
                                                   const gsReferences<Real> &refs, uint32_t which, uint64_t i,
                                                   Real *out)
{
    Real x[4];
    if (which == GS_REFERENCE_ZERO || which == GS_REFERENCE_MEAN) {
        const uint64_t end = i / GS_BLOCK * GS_BLOCK + gsBlockLength(&spec, i / GS_BLOCK);
#pragma unroll
        for (unsigned c = 0; c < 4; c++)
            out[c] = which == GS_REFERENCE_MEAN && i + c < end ? (Real)1 : (Real)0;
    } else if (which == GS_REFERENCE_WINDOW) { /* added in the order of their places */
        const uint64_t there = state->step < spec.window ? state->step : spec.window;
        const Real share = there ? (Real)1 / (Real)there : (Real)0;
        out[0] = out[1] = out[2] = out[3] = (Real)0;
        for (uint64_t w = 0; w < there; w++) {
            gsLoadState(refs.history + w * spec.blocks * GS_BLOCK + i, x);
#pragma unroll
            for (unsigned c = 0; c < 4; c++)
                out[c] += x[c];
        }
#pragma unroll
        for (unsigned c = 0; c < 4; c++)
            out[c] *= share;
    } else if (which == GS_REFERENCE_PARAMS) {
        const Real steps = (Real)gsMovedFactor(&spec, state->step);
        gsLoadForeign(spec.paramsType, refs.params, i, spec.count, x);
        gsLoadState(refs.previous.current(state) + i, out);
#pragma unroll
        for (unsigned c = 0; c < 4; c++)
            out[c] = (out[c] - x[c]) * steps;
    } else {
        gsLoadState(refs.pool[which] + i, out);
    }
}

/* Elements i .. i + 3 of the references with these coefficients, summed. */
template <typename Real>
__device__ __forceinline__ void gsLoadReference(const gsSpec &spec, const gsState *state,
                                                const gsReferences<Real> &refs, const double *coefficient, uint64_t i,
                                                Real *out)
{
    Real one[4];
    out[0] = out[1] = out[2] = out[3] = (Real)0;
#pragma unroll 1
    for (uint32_t p = 0; p < GS_MAX_POOL; p++) {
        const double weight = coefficient[p];
        if (!(spec.pool >> p & 1u) || weight == 0.0)
            continue;
        gsLoadOneReference(spec, state, refs, p, i, one);
#pragma unroll
        for (unsigned c = 0; c < 4; c++)
            out[c] += (Real)weight * one[c];
    }
}

#endif
