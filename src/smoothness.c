/* The smoothness of a function, from differences of its gradients: the power iteration behind lag-ps's L. */
#include "core.h"

#include <stdlib.h>

typedef struct {
    gsGradientFunction gradient;
    void *context;
    size_t count;
    gsDataType_t type;
    const void *params;
    void *moved, *slope, *slopeMoved; /* of the type */
    double *direction;
} search;

static double get(const search *s, const void *vector, size_t i)
{
    return s->type == GS_FLOAT64 ? ((const double *)vector)[i] : (double)((const float *)vector)[i];
}

static void set(const search *s, void *vector, size_t i, double x)
{
    if (s->type == GS_FLOAT64)
        ((double *)vector)[i] = x;
    else
        ((float *)vector)[i] = (float)x;
}

static gsResult_t callGradient(const search *s, const void *params, void *gradient)
{
    int code = s->gradient(params, gradient, s->context);
    if (code)
        return gsFail(GS_ERROR_INVALID_USAGE, "the gradient function returned %d; expected 0", code);
    return GS_SUCCESS;
}

static double norm(const double *x, size_t n)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sqrt(sum);
}

/* One step: the direction v, made a unit vector, becomes (g(x + h v) - g(x)) / h. */
static gsResult_t iterate(const search *s, double h, double *smoothness)
{
    double length = norm(s->direction, s->count);
    for (size_t i = 0; i < s->count; i++) {
        s->direction[i] = length > 0.0 ? s->direction[i] / length : 0.0;
        set(s, s->moved, i, get(s, s->params, i) + h * s->direction[i]);
    }
    GS_CHECK(callGradient(s, s->moved, s->slopeMoved));
    for (size_t i = 0; i < s->count; i++)
        s->direction[i] = (get(s, s->slopeMoved, i) - get(s, s->slope, i)) / h;
    *smoothness = norm(s->direction, s->count);
    return GS_SUCCESS;
}

/* Signs by the seed; the step is a share of the iterate's length, larger where gradients have fewer digits. */
static gsResult_t run(const search *s, int iterations, uint64_t seed, double *smoothness)
{
    double size = 0.0, share = s->type == GS_FLOAT64 ? 1e-4 : 1e-2;
    for (size_t i = 0; i < s->count; i++) {
        s->direction[i] = gsDraw(seed, i, 0, 0, GS_DRAW_MASK) >> 31 ? 1.0 : -1.0;
        size += get(s, s->params, i) * get(s, s->params, i);
    }
    GS_CHECK(callGradient(s, s->params, s->slope));
    for (int k = 0; k < iterations; k++)
        GS_CHECK(iterate(s, share * (1.0 + sqrt(size)), smoothness));
    return GS_SUCCESS;
}

static gsResult_t checkArguments(gsGradientFunction gradient, const void *params, size_t count, gsDataType_t type,
                                 int iterations, const double *smoothness)
{
    if (!gradient || !params || !smoothness)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "%s is NULL",
                      !gradient ? "gradient"
                      : !params ? "params"
                                : "smoothness");
    if (type != GS_FLOAT32 && type != GS_FLOAT64)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "datatype is %d; expected GS_FLOAT32 (7) or GS_FLOAT64 (8)", type);
    if (count < 1 || iterations < 1)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "count is %zu and iterations %d; expected 1 or more", count,
                      iterations);
    return GS_SUCCESS;
}

gsResult_t gsEstimateSmoothness(gsGradientFunction gradient, void *context, const void *params, size_t count,
                                gsDataType_t datatype, int iterations, uint64_t seed, double *smoothness)
{
    GS_CHECK(checkArguments(gradient, params, count, datatype, iterations, smoothness));
    size_t width = gsTypeBytes(datatype);
    search s = {.gradient = gradient,
                .context = context,
                .count = count,
                .type = datatype,
                .params = params,
                .moved = malloc(count * width),
                .slope = malloc(count * width),
                .slopeMoved = malloc(count * width),
                .direction = malloc(count * sizeof(double))};
    gsResult_t result = GS_ERROR_OUT_OF_MEMORY;
    if (s.moved && s.slope && s.slopeMoved && s.direction)
        result = run(&s, iterations, seed, smoothness);
    else
        gsFail(result, "no memory for four vectors of %zu elements", count);
    free(s.moved);
    free(s.slope);
    free(s.slopeMoved);
    free(s.direction);
    return result;
}
