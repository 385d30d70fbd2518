/* Optimizer steps: what they are asked for, checked; and a step by a gradient that is there. By the result of a call: allreduce.c. */
#include "core.h"

#include <math.h>

gsResult_t gsOptimizerCheck(const gsOptimizer_t *o)
{
    if (!o)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "optimizer is NULL; expected GS_OPTIMIZER_INIT and its settings");
    if (o->size != sizeof *o)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "optimizer->size is %zu; expected %zu: begin with GS_OPTIMIZER_INIT",
                      o->size, sizeof *o);
    if (o->version / 100 != GS_VERSION_CODE / 100)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "optimizer->version is %u; this library is %d", o->version,
                      GS_VERSION_CODE);
    if (o->kind < GS_MOMENTUM || o->kind > GS_ADAMW)
        return gsFail(GS_ERROR_INVALID_ARGUMENT,
                      "optimizer->kind is %d; expected GS_MOMENTUM (0), GS_AMSGRAD (1) or GS_ADAMW (2)", o->kind);
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

/* A vector of the step, and its size. */
typedef struct {
    const char *name;
    const void *at;
    size_t bytes, width;
} vector;

static gsResult_t checkVector(const vector *x)
{
    if (x->at && (uintptr_t)x->at % x->width == 0)
        return GS_SUCCESS;
    return gsFail(GS_ERROR_INVALID_ARGUMENT, "%s is %p; expected a vector aligned to its element's %zu bytes", x->name,
                  x->at, x->width);
}

static gsResult_t checkApart(const vector *x, const vector *y)
{
    uintptr_t a = (uintptr_t)x->at, b = (uintptr_t)y->at;
    if (a >= b + y->bytes || b >= a + x->bytes)
        return GS_SUCCESS;
    return gsFail(GS_ERROR_INVALID_ARGUMENT, "%s %p and %s %p overlap; expected vectors apart", x->name, x->at, y->name,
                  y->at);
}

gsResult_t gsOptimizerCheckVectors(const gsOptimizer_t *o, const void *gradient, gsDataType_t type, size_t count)
{
    size_t width = gsTypeBytes(o->datatype), bytes = count * width, other = gsTypeBytes(type);
    const vector all[] = {{"gradient", gradient, count * other, other},
                          {"optimizer->params", o->params, bytes, width},
                          {"optimizer->m", o->m, bytes, width},
                          {"optimizer->v", o->v, bytes, width},
                          {"optimizer->vmax", o->vmax, bytes, width}};
    uint32_t n = 2 + gsMoments((uint32_t)o->kind);
    for (uint32_t i = 0; i < n && count; i++) {
        GS_CHECK(checkVector(&all[i]));
        for (uint32_t k = 0; k < i; k++)
            GS_CHECK(checkApart(&all[i], &all[k]));
    }
    return GS_SUCCESS;
}

gsOptimizerCall gsOptimizerCallOf(const gsOptimizer_t *o, size_t count)
{
    uint32_t moments = gsMoments((uint32_t)o->kind);
    gsOptimizerCall call = {.params = o->params,
                            .m = o->m,
                            .v = moments > 1 ? o->v : NULL,
                            .vmax = moments > 2 ? o->vmax : NULL,
                            .count = count,
                            .kind = (uint32_t)o->kind,
                            .type = (uint32_t)o->datatype,
                            .stepSize = o->stepSize,
                            .beta1 = o->beta1,
                            .beta2 = o->beta2,
                            .epsilon = o->epsilon,
                            .weightDecay = o->weightDecay};
    uintptr_t addresses = (uintptr_t)call.params | (uintptr_t)call.m | (uintptr_t)call.v | (uintptr_t)call.vmax;
    call.aligned = addresses % 16 == 0;
    if (call.kind == GS_ADAMW && o->step)
        gsCorrect(&call, o->step, call.correct);
    return call;
}

gsResult_t gsOptimizerStep(gsComm_t comm, const gsOptimizer_t *optimizer, const void *gradient, size_t count,
                           gsStream_t stream)
{
    if (!comm)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "comm is NULL; expected a communicator");
    GS_CHECK(gsOptimizerCheck(optimizer));
    if (optimizer->kind == GS_ADAMW && !optimizer->step)
        return gsFail(
            GS_ERROR_INVALID_ARGUMENT,
            "optimizer->step is 0; AdamW's bias correction counts steps from 1, and only gsAllReduceStep has a "
            "reducer that counts them");
    GS_CHECK(gsOptimizerCheckVectors(optimizer, gradient, optimizer->datatype, count));
    gsOptimizerCall call = gsOptimizerCallOf(optimizer, count);
    call.gradient = gradient;
    return comm->backend->optimize(&call, stream);
}
