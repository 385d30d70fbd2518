/*
 * conv.c: a 3x3 convolution with zeros around the image. The nine values that one output sees become a column of a matrix
 * (im2col), so that an image is one matrix product: weights, channels x (9 * inputs), times patches, (9 * inputs) x pixels.
 */
#include "layer.h"

#include <cblas.h>
#include <string.h>

enum { SIDE = 3, WINDOW = SIDE * SIDE };

/* What a row of patches sees in a plane's row: pixels from[x + shift], zeros beyond the edge. */
static void copyShifted(float *to, const float *from, int width, int shift)
{
    int first = shift < 0 ? -shift : 0, end = shift > 0 ? width - shift : width;
    memset(to, 0, (size_t)width * sizeof *to);
    for (int x = first; x < end; x++)
        to[x] = from[x + shift];
}

static void addShifted(float *to, const float *from, int width, int shift)
{
    int first = shift < 0 ? -shift : 0, end = shift > 0 ? width - shift : width;
    for (int x = first; x < end; x++)
        to[x + shift] += from[x];
}

static void gatherPatches(const layer_t *layer, const float *image, float *patches)
{
    int height = layer->in.height, width = layer->in.width;
    size_t pixels = (size_t)height * (size_t)width;
    for (int row = 0; row < layer->fanIn; row++) {
        const float *plane = image + (size_t)(row / WINDOW) * pixels;
        int down = row % WINDOW / SIDE - 1, right = row % SIDE - 1;
        for (int y = 0; y < height; y++, patches += width)
            if (y + down >= 0 && y + down < height)
                copyShifted(patches, plane + (y + down) * width, width, right);
            else
                memset(patches, 0, (size_t)width * sizeof *patches);
    }
}

/* The transpose of gatherPatches. */
static void scatterPatches(const layer_t *layer, const float *patches, float *image)
{
    int height = layer->in.height, width = layer->in.width;
    size_t pixels = (size_t)height * (size_t)width;
    memset(image, 0, shapeSize(layer->in) * sizeof *image);
    for (int row = 0; row < layer->fanIn; row++) {
        float *plane = image + (size_t)(row / WINDOW) * pixels;
        int down = row % WINDOW / SIDE - 1, right = row % SIDE - 1;
        for (int y = 0; y < height; y++, patches += width)
            if (y + down >= 0 && y + down < height)
                addShifted(plane + (y + down) * width, patches, width, right);
    }
}

static void forward(const layer_t *layer, const float *parameters, const float *in, float *out, int batch,
                    float *scratch)
{
    int channels = layer->out.channels, pixels = layer->out.height * layer->out.width;
    for (int image = 0; image < batch; image++) {
        gatherPatches(layer, in, scratch);
        for (int i = 0; i < channels * pixels; i++)
            out[i] = parameters[layer->biases + (size_t)(i / pixels)];
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, channels, pixels, layer->fanIn, 1.0f,
                    parameters + layer->weights, layer->fanIn, scratch, pixels, 1.0f, out, pixels);
        in += shapeSize(layer->in);
        out += shapeSize(layer->out);
    }
}

static void addBiasGradient(const float *slopes, float *biases, int channels, int pixels)
{
    for (int c = 0; c < channels; c++)
        for (int i = 0; i < pixels; i++)
            biases[c] += *slopes++;
}

static void backward(const layer_t *layer, const float *parameters, const float *in, const float *slopes, float *before,
                     int batch, float *gradient, float *scratch)
{
    int channels = layer->out.channels, pixels = layer->out.height * layer->out.width;
    memset(gradient + layer->weights, 0, layer->weightCount * sizeof *gradient);
    memset(gradient + layer->biases, 0, layer->biasCount * sizeof *gradient);
    for (int image = 0; image < batch; image++) {
        gatherPatches(layer, in, scratch);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, channels, layer->fanIn, pixels, 1.0f, slopes, pixels,
                    scratch, pixels, 1.0f, gradient + layer->weights, layer->fanIn);
        addBiasGradient(slopes, gradient + layer->biases, channels, pixels);
        if (before) {
            cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, layer->fanIn, pixels, channels, 1.0f,
                        parameters + layer->weights, layer->fanIn, slopes, pixels, 0.0f, scratch, pixels);
            scatterPatches(layer, scratch, before);
            before += shapeSize(layer->in);
        }
        in += shapeSize(layer->in);
        slopes += shapeSize(layer->out);
    }
}

layer_t convLayer(shape_t in, int channels)
{
    int fanIn = WINDOW * in.channels;
    return (layer_t){.in = in,
                     .out = {channels, in.height, in.width},
                     .weightCount = (size_t)channels * (size_t)fanIn,
                     .biasCount = (size_t)channels,
                     .fanIn = fanIn,
                     .scratch = (size_t)fanIn * (size_t)in.height * (size_t)in.width,
                     .forward = forward,
                     .backward = backward};
}
