/* model.h: softmax regression, or one hidden ReLU layer before it; parameters and gradient are flat vectors. */
#ifndef TRAIN_MODEL_H
#define TRAIN_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MODEL_MAX_LAYERS = 2 };

typedef struct {
    int inputs;
    int outputs;
    size_t weights; /* offset of inputs x outputs, row by row */
    size_t biases;  /* offset of outputs */
} layer_t;

typedef struct {
    int layerCount;
    layer_t layers[MODEL_MAX_LAYERS];
    size_t parameters;
} model_t;

/* What one rank needs for batches of up to some size. values[0] is the input, filled by the caller. */
typedef struct {
    float *values[MODEL_MAX_LAYERS + 1]; /* values[l + 1]: what layer l gives */
    float *slopes[MODEL_MAX_LAYERS];     /* slopes[l]: of the loss by what layer l gives */
} workspace_t;

/* hidden 0: softmax regression. */
void modelMake(model_t *model, int inputs, int hidden, int classes);
void modelStart(const model_t *model, float *parameters, uint64_t seed);

bool workspaceMake(workspace_t *workspace, const model_t *model, int batch);
void workspaceFree(workspace_t *workspace);

/* The gradient of the batch's mean loss; returns the sum of the losses. */
double modelGradient(const model_t *model, const float *parameters, workspace_t *workspace, const uint8_t *labels,
                     int batch, float *gradient);

/* How many images of the batch are classified right. */
int modelCountCorrect(const model_t *model, const float *parameters, workspace_t *workspace, const uint8_t *labels,
                      int batch);

#endif
