/* pool.c: the largest of each 2x2 values; a last row or column that has no partner is left out. */
#include "layer.h"

#include <string.h>

/* Of the four values at `corner` and their partners, where the first of the largest lies. */
static size_t largest(const float *corner, size_t width)
{
    size_t best = 0;
    const size_t others[] = {1, width, width + 1};
    for (int o = 0; o < 3; o++)
        best = corner[others[o]] > corner[best] ? others[o] : best;
    return best;
}

/* A channel of an image is a plane; so are the channels of a batch, one after the other. */
static size_t planes(const layer_t *layer, int batch)
{
    return (size_t)batch * (size_t)layer->in.channels;
}

static size_t cornerOf(const layer_t *layer, size_t plane, size_t y, size_t x)
{
    return (plane * (size_t)layer->in.height + 2 * y) * (size_t)layer->in.width + 2 * x;
}

static void forward(const layer_t *layer, const float *parameters, const float *in, float *out, int batch,
                    float *scratch)
{
    size_t height = (size_t)layer->out.height, width = (size_t)layer->out.width;
    (void)parameters, (void)scratch;
    for (size_t plane = 0; plane < planes(layer, batch); plane++)
        for (size_t y = 0; y < height; y++)
            for (size_t x = 0; x < width; x++) {
                const float *corner = in + cornerOf(layer, plane, y, x);
                *out++ = corner[largest(corner, (size_t)layer->in.width)];
            }
}

static void backward(const layer_t *layer, const float *parameters, const float *in, const float *slopes, float *before,
                     int batch, float *gradient, float *scratch)
{
    size_t height = (size_t)layer->out.height, width = (size_t)layer->out.width;
    (void)parameters, (void)gradient, (void)scratch;
    if (!before)
        return;
    memset(before, 0, (size_t)batch * shapeSize(layer->in) * sizeof *before);
    for (size_t plane = 0; plane < planes(layer, batch); plane++)
        for (size_t y = 0; y < height; y++)
            for (size_t x = 0; x < width; x++) {
                size_t corner = cornerOf(layer, plane, y, x);
                before[corner + largest(in + corner, (size_t)layer->in.width)] = *slopes++;
            }
}

layer_t poolLayer(shape_t in)
{
    return (
        layer_t){.in = in, .out = {in.channels, in.height / 2, in.width / 2}, .forward = forward, .backward = backward};
}
