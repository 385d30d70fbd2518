/* model.c: forward and backward pass, matrix products by OpenBLAS. */
#include "model.h"

#include "random.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void addLayer(model_t *model, int inputs, int outputs)
{
    layer_t *layer = &model->layers[model->layerCount++];
    layer->inputs = inputs;
    layer->outputs = outputs;
    layer->weights = model->parameters;
    layer->biases = layer->weights + (size_t)inputs * (size_t)outputs;
    model->parameters = layer->biases + (size_t)outputs;
}

void modelMake(model_t *model, int inputs, int hidden, int classes)
{
    *model = (model_t){0};
    if (hidden > 0)
        addLayer(model, inputs, hidden);
    addLayer(model, hidden > 0 ? hidden : inputs, classes);
}

/* Weights uniform within 1 / sqrt(inputs), biases zero. */
void modelStart(const model_t *model, float *parameters, uint64_t seed)
{
    memset(parameters, 0, model->parameters * sizeof *parameters);
    for (int l = 0; l < model->layerCount; l++) {
        const layer_t *layer = &model->layers[l];
        random_t random = randomMake(seed, UINT64_MAX - (uint64_t)l);
        float range = 1.0f / sqrtf((float)layer->inputs);
        for (size_t i = layer->weights; i < layer->biases; i++)
            parameters[i] = range * randomSigned(&random);
    }
}

static float *floats(int rows, int columns)
{
    return malloc((size_t)rows * (size_t)columns * sizeof(float));
}

bool workspaceMake(workspace_t *workspace, const model_t *model, int batch)
{
    *workspace = (workspace_t){0};
    workspace->values[0] = floats(batch, model->layers[0].inputs);
    bool complete = workspace->values[0];
    for (int l = 0; l < model->layerCount; l++) {
        workspace->values[l + 1] = floats(batch, model->layers[l].outputs);
        workspace->slopes[l] = floats(batch, model->layers[l].outputs);
        complete = complete && workspace->values[l + 1] && workspace->slopes[l];
    }
    return complete;
}

void workspaceFree(workspace_t *workspace)
{
    free(workspace->values[0]);
    for (int l = 0; l < MODEL_MAX_LAYERS; l++) {
        free(workspace->values[l + 1]);
        free(workspace->slopes[l]);
    }
}

static void forward(const model_t *model, const float *parameters, workspace_t *workspace, int batch)
{
    for (int l = 0; l < model->layerCount; l++) {
        const layer_t *layer = &model->layers[l];
        size_t outputs = (size_t)layer->outputs;
        float *result = workspace->values[l + 1];
        for (int row = 0; row < batch; row++)
            memcpy(result + (size_t)row * outputs, parameters + layer->biases, outputs * sizeof *result);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, batch, layer->outputs, layer->inputs, 1.0f,
                    workspace->values[l], layer->inputs, parameters + layer->weights, layer->outputs, 1.0f, result,
                    layer->outputs);
        if (l + 1 == model->layerCount)
            return;
        for (size_t i = 0; i < (size_t)batch * outputs; i++)
            result[i] = result[i] > 0.0f ? result[i] : 0.0f;
    }
}

/* Cross entropy of one row of logits; slopes are those of the batch's mean. */
static double softmaxLoss(const float *logits, float *slopes, int classes, int label, float scale)
{
    float largest = logits[0], sum = 0.0f;
    for (int c = 1; c < classes; c++)
        largest = fmaxf(largest, logits[c]);
    for (int c = 0; c < classes; c++)
        sum += slopes[c] = expf(logits[c] - largest);
    for (int c = 0; c < classes; c++)
        slopes[c] = scale * (slopes[c] / sum - (c == label ? 1.0f : 0.0f));
    return (double)(logf(sum) - (logits[label] - largest));
}

static void layerGradient(const layer_t *layer, const float *inputs, const float *slopes, int batch, float *gradient)
{
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, layer->inputs, layer->outputs, batch, 1.0f, inputs,
                layer->inputs, slopes, layer->outputs, 0.0f, gradient + layer->weights, layer->outputs);
    float *biases = gradient + layer->biases;
    memset(biases, 0, (size_t)layer->outputs * sizeof *biases);
    for (int row = 0; row < batch; row++)
        for (int o = 0; o < layer->outputs; o++)
            biases[o] += slopes[(size_t)row * (size_t)layer->outputs + (size_t)o];
}

/* Carries slopes through a layer, and through the ReLU before it. */
static void slopesBefore(const layer_t *layer, const float *parameters, const float *inputs, const float *slopes,
                         int batch, float *before)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, batch, layer->inputs, layer->outputs, 1.0f, slopes,
                layer->outputs, parameters + layer->weights, layer->outputs, 0.0f, before, layer->inputs);
    for (size_t i = 0; i < (size_t)batch * (size_t)layer->inputs; i++)
        before[i] = inputs[i] > 0.0f ? before[i] : 0.0f;
}

double modelGradient(const model_t *model, const float *parameters, workspace_t *workspace, const uint8_t *labels,
                     int batch, float *gradient)
{
    int last = model->layerCount - 1;
    int classes = model->layers[last].outputs;
    double loss = 0.0;
    forward(model, parameters, workspace, batch);
    for (int row = 0; row < batch; row++) {
        size_t at = (size_t)row * (size_t)classes;
        loss += softmaxLoss(workspace->values[last + 1] + at, workspace->slopes[last] + at, classes, labels[row],
                            1.0f / (float)batch);
    }
    for (int l = last; l >= 0; l--) {
        const layer_t *layer = &model->layers[l];
        layerGradient(layer, workspace->values[l], workspace->slopes[l], batch, gradient);
        if (l > 0)
            slopesBefore(layer, parameters, workspace->values[l], workspace->slopes[l], batch,
                         workspace->slopes[l - 1]);
    }
    return loss;
}

int modelCountCorrect(const model_t *model, const float *parameters, workspace_t *workspace, const uint8_t *labels,
                      int batch)
{
    int classes = model->layers[model->layerCount - 1].outputs, correct = 0;
    forward(model, parameters, workspace, batch);
    const float *logits = workspace->values[model->layerCount];
    for (int row = 0; row < batch; row++, logits += classes) {
        int best = 0;
        for (int c = 1; c < classes; c++)
            best = logits[c] > logits[best] ? c : best;
        correct += best == labels[row];
    }
    return correct;
}
