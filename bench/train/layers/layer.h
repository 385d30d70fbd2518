/* layer.h: what a network knows of a layer: its shapes, where its parameters lie, and two functions. */
#ifndef TRAIN_LAYER_H
#define TRAIN_LAYER_H

#include <stddef.h>
#include <stdint.h>

/* Values of one image, row by row, channel by channel. */
typedef struct {
    int channels, height, width;
} shape_t;

typedef struct layer layer_t;
struct layer {
    shape_t in, out;
    size_t weightCount; /* 0: a layer without parameters */
    size_t biasCount;
    size_t weights; /* offsets in the network's parameters, set by the network */
    size_t biases;
    int fanIn;      /* weights that meet in one value */
    size_t scratch; /* floats that a call may use */

    void (*forward)(const layer_t *layer, const float *parameters, const float *in, float *out, int batch,
                    float *scratch);

    /* From the slopes of the loss by `out`: this layer's part of the gradient, and the slopes by `in`, where `before` is
     * not NULL. */
    void (*backward)(const layer_t *layer, const float *parameters, const float *in, const float *slopes, float *before,
                     int batch, float *gradient, float *scratch);
};

layer_t denseLayer(shape_t in, int outputs);
layer_t reluLayer(shape_t in);
layer_t convLayer(shape_t in, int channels); /* 3x3, of the same height and width */
layer_t poolLayer(shape_t in);               /* the largest of 2x2 */

/* Cross entropy of rows of logits: the sum of the losses, and the slopes of their mean. scratch: a float a row. */
double softmaxLoss(const float *logits, float *slopes, const uint8_t *labels, int classes, int rows, float *scratch);

static inline size_t shapeSize(shape_t shape)
{
    return (size_t)shape.channels * (size_t)shape.height * (size_t)shape.width;
}

#endif
