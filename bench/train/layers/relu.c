/* relu.c: negative values become 0. */
#include "layer.h"

static void forward(const layer_t *layer, const float *parameters, const float *in, float *out, int batch,
                    float *scratch)
{
    (void)parameters, (void)scratch;
    for (size_t i = 0; i < (size_t)batch * shapeSize(layer->in); i++)
        out[i] = in[i] > 0.0f ? in[i] : 0.0f;
}

static void backward(const layer_t *layer, const float *parameters, const float *in, const float *slopes, float *before,
                     int batch, float *gradient, float *scratch)
{
    (void)parameters, (void)gradient, (void)scratch;
    for (size_t i = 0; before && i < (size_t)batch * shapeSize(layer->in); i++)
        before[i] = in[i] > 0.0f ? slopes[i] : 0.0f;
}

layer_t reluLayer(shape_t in)
{
    return (layer_t){.in = in, .out = in, .forward = forward, .backward = backward};
}
