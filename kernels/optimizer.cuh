/* Where results go: to the caller's buffer, or into an optimizer's step, of which they are the gradient. */
#ifndef GS_OPTIMIZER_CUH
#define GS_OPTIMIZER_CUH

#include "kernels.cuh"

/* One element's step, with the moments that its kind has. */
template <typename Real>
static __device__ __forceinline__ Real gsStepOf(const gsOptimizerCall &o, const double *correct, Real x, Real g,
                                                Real *m, Real *v, Real *vmax)
{
    switch (o.kind) {
    case GS_MOMENTUM: return gsMomentum(&o, x, g, m);
    case GS_AMSGRAD: return gsAmsgrad(&o, x, g, m, v, vmax);
    default: return gsAdamw(&o, (Real)correct[0], (Real)correct[1], x, g, m, v);
    }
}

/* The step of four neighbours, which stand at `at` in the block that begins with element `first` of the vectors. */
template <typename Real>
static __device__ __forceinline__ void gsStepQuad(const gsOptimizerCall &o, uint64_t first, unsigned at,
                                                  unsigned length, const Real *g)
{
    Real *all[4] = {(Real *)o.params, (Real *)o.m, (Real *)o.v, (Real *)o.vmax};
    const uint32_t moments = gsMoments(o.kind);
    const bool wide = o.aligned && length == GS_BLOCK && first % 4 == 0;
    Real x[4][4] = {};
#pragma unroll
    for (unsigned i = 0; i < 4; i++)
        if (i <= moments)
            gsLoadQuad((const Real *)all[i] + first, at, length, wide, x[i]);
#pragma unroll
    for (unsigned c = 0; c < 4; c++)
        x[0][c] = gsStepOf(o, gsCorrections(&o), x[0][c], g[c], &x[1][c], &x[2][c], &x[3][c]);
#pragma unroll
    for (unsigned i = 0; i < 4; i++)
        if (i <= moments)
            gsStoreQuad(all[i] + first, at, length, wide, x[i]);
}

/* Of a call. */
struct gsSink {
    void *out; /* of the result's type, or of a list the table of its tensors; NULL: the step's */
    gsOptimizerCall step;
};

inline gsSink gsSinkOf(gsReducer_t r, void *recvbuff)
{
    gsSink sink = {recvbuff, {}};
    if (!recvbuff && r->optimizer)
        sink.step = *r->optimizer;
    return sink;
}

/* A block's part of it: block `place` of the buffer, or the elements from `first` on of the optimizer's vectors. */
template <typename T> class gsSinkBlock
{
  public:
    __device__ __forceinline__ gsSinkBlock(const gsSink &sink, const gsListBlock *list, uint64_t place, uint64_t first,
                                           unsigned length)
        : step_(sink.step), out_(sink.out ? gsBlockOf<T>(list, sink.out, place) : nullptr), first_(first),
          length_(length), wide_(gsIsWide(out_, length))
    {
    }

    __device__ __forceinline__ bool isStep() const
    {
        return !out_;
    }

    __device__ __forceinline__ void store(unsigned at, const gsRealOf<T> *x) const
    {
        gsStoreQuad(out_, at, length_, wide_, x);
    }

    /* load(at, g): four neighbours of the gradient. Quad by quad: a step has five vectors in registers. */
    template <typename Load> __device__ __forceinline__ void step(Load load) const
    {
#pragma unroll 1
        for (unsigned v = 0; v < GS_QUADS; v++) {
            gsRealOf<T> g[4];
            load(gsQuadAt(v), g);
            gsStepQuad(step_, first_, gsQuadAt(v), length_, g);
        }
    }

    /* The finished result; NaN instead if it is bad, of which no step may be made. */
    __device__ __forceinline__ void finish(const T *result, bool bad) const
    {
        gsRealOf<T> x[16];
        if (isStep()) {
            const bool wide = gsIsWide(result, length_);
            step([&](unsigned at, gsRealOf<T> *g) { gsLoadQuad(result, at, length_, wide, g); });
            return;
        }
        gsLoadTile(result, length_, x);
#pragma unroll
        for (unsigned i = 0; i < 16; i++)
            x[i] = bad ? gsVector<T>::to(gsVector<T>::nan()) : x[i];
        gsStoreTile(out_, length_, x);
    }

  private:
    const gsOptimizerCall &step_;
    T *out_;
    uint64_t first_;
    unsigned length_;
    bool wide_;
};

#endif
