/* Optimizer steps as the API has them: checks, then one call of the backend. */
#include "core.h"

static gsResult_t checkOptimizer(gsComm_t comm, const gsOptimizer_t *o)
{
    if (!comm || !o)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "%s is NULL; expected %s", comm ? "optimizer" : "comm",
                      comm ? "GS_OPTIMIZER_INIT and its settings" : "a communicator");
    if (o->size != sizeof *o)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "optimizer->size is %zu; expected %zu: begin with GS_OPTIMIZER_INIT",
                      o->size, sizeof *o);
    if (o->version / 100 != GS_VERSION_CODE / 100)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "optimizer->version is %u; this library is %d", o->version,
                      GS_VERSION_CODE);
    if (o->datatype != GS_FLOAT32 && o->datatype != GS_FLOAT64)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "optimizer->datatype is %d; expected GS_FLOAT32 (7) or GS_FLOAT64 (8)",
                      o->datatype);
    if (!isfinite(o->stepSize) || !isfinite(o->weightDecay) || !isfinite(o->epsilon) || !(o->epsilon >= 0) ||
        !(o->beta1 >= 0 && o->beta1 < 1) || !(o->beta2 >= 0 && o->beta2 < 1))
        return gsFail(GS_ERROR_INVALID_ARGUMENT,
                      "stepSize %g, weightDecay %g, beta1 %g, beta2 %g, epsilon %g; expected finite numbers, betas in "
                      "[0, 1), epsilon 0 or more",
                      o->stepSize, o->weightDecay, o->beta1, o->beta2, o->epsilon);
    return GS_SUCCESS;
}

static gsResult_t checkVectors(const gsOptimizer_t *o, const void *const *vectors, const char *const *names, int n,
                               size_t count)
{
    for (int i = 0; i < n && count; i++)
        if (!vectors[i] || (uintptr_t)vectors[i] % gsTypeBytes(o->datatype))
            return gsFail(GS_ERROR_INVALID_ARGUMENT, "%s is %p; expected a vector aligned to its element's %zu bytes",
                          names[i], vectors[i], gsTypeBytes(o->datatype));
    return GS_SUCCESS;
}

static gsResult_t step(gsComm_t comm, const gsOptimizer_t *o, gsOptimizerCall *call, int vectors, gsStream_t stream)
{
    static const char *const names[] = {"params", "gradient", "m", "v", "vmax"};
    const void *all[] = {call->params, call->gradient, call->m, call->v, call->vmax};
    GS_CHECK(checkOptimizer(comm, o));
    GS_CHECK(checkVectors(o, all, names, vectors, call->count));
    call->type = o->datatype;
    call->stepSize = o->stepSize;
    call->beta1 = o->beta1;
    call->beta2 = o->beta2;
    call->epsilon = o->epsilon;
    call->weightDecay = o->weightDecay;
    return comm->backend->optimize(call, stream);
}

gsResult_t gsMomentumStep(gsComm_t comm, const gsOptimizer_t *optimizer, void *params, const void *gradient, void *m,
                          size_t count, gsStream_t stream)
{
    gsOptimizerCall call = {
        .params = params, .gradient = gradient, .m = m, .count = count, .kind = GS_OPTIMIZER_MOMENTUM};
    return step(comm, optimizer, &call, 3, stream);
}

gsResult_t gsAmsgradStep(gsComm_t comm, const gsOptimizer_t *optimizer, void *params, const void *gradient, void *m,
                         void *v, void *vmax, size_t count, gsStream_t stream)
{
    gsOptimizerCall call = {.params = params,
                            .gradient = gradient,
                            .m = m,
                            .v = v,
                            .vmax = vmax,
                            .count = count,
                            .kind = GS_OPTIMIZER_AMSGRAD};
    return step(comm, optimizer, &call, 5, stream);
}

/* beta^n by squaring: products alone, so that every machine finds the same bits. */
static double power(double beta, uint64_t n)
{
    double result = 1.0;
    for (; n; n >>= 1, beta *= beta)
        if (n & 1)
            result *= beta;
    return result;
}

gsResult_t gsAdamwStep(gsComm_t comm, const gsOptimizer_t *optimizer, void *params, const void *gradient, void *m,
                       void *v, size_t count, gsStream_t stream)
{
    gsOptimizerCall call = {
        .params = params, .gradient = gradient, .m = m, .v = v, .count = count, .kind = GS_OPTIMIZER_ADAMW};
    GS_CHECK(checkOptimizer(comm, optimizer));
    if (optimizer->step < 1)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "optimizer->step is 0; AdamW's bias correction counts steps from 1");
    call.correct1 = 1.0 / (1.0 - power(optimizer->beta1, optimizer->step));
    call.correct2 = 1.0 / (1.0 - power(optimizer->beta2, optimizer->step));
    return step(comm, optimizer, &call, 4, stream);
}
