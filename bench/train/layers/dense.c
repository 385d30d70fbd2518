/* dense.c: every output is a weighted sum of all inputs; the weights lie as inputs x outputs, row by row. */
#include "layer.h"

#include <cblas.h>
#include <string.h>

static void forward(const layer_t *layer, const float *parameters, const float *in, float *out, int batch,
                    float *scratch)
{
    int inputs = layer->fanIn, outputs = layer->out.channels;
    (void)scratch;
    for (int row = 0; row < batch; row++)
        memcpy(out + (size_t)row * (size_t)outputs, parameters + layer->biases, layer->biasCount * sizeof *out);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, batch, outputs, inputs, 1.0f, in, inputs,
                parameters + layer->weights, outputs, 1.0f, out, outputs);
}

static void backward(const layer_t *layer, const float *parameters, const float *in, const float *slopes, float *before,
                     int batch, float *gradient, float *scratch)
{
    int inputs = layer->fanIn, outputs = layer->out.channels;
    float *biases = gradient + layer->biases;
    (void)scratch;
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, inputs, outputs, batch, 1.0f, in, inputs, slopes, outputs,
                0.0f, gradient + layer->weights, outputs);
    memset(biases, 0, layer->biasCount * sizeof *biases);
    for (int row = 0; row < batch; row++)
        for (int o = 0; o < outputs; o++)
            biases[o] += slopes[(size_t)row * (size_t)outputs + (size_t)o];
    if (before)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, batch, inputs, outputs, 1.0f, slopes, outputs,
                    parameters + layer->weights, outputs, 0.0f, before, inputs);
}

layer_t denseLayer(shape_t in, int outputs)
{
    return (layer_t){.in = in,
                     .out = {outputs, 1, 1},
                     .weightCount = shapeSize(in) * (size_t)outputs,
                     .biasCount = (size_t)outputs,
                     .fanIn = (int)shapeSize(in),
                     .forward = forward,
                     .backward = backward};
}
