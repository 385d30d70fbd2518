/* network.c: classifiers of images, as a row of layers under a softmax; the matrix products are OpenBLAS's. */
#include "data/images.h"
#include "failure.h"
#include "layers/layer.h"
#include "model.h"
#include "random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LAYERS = 2 * OPTIONS_MAX_DEPTH + 1 };
_Static_assert(MAX_LAYERS >= 7 && OPTIONS_MAX_DEPTH + 1 <= MODEL_MAX_PARTS, "room for both kinds of networks");

typedef struct {
    dataset_t dataset;
    int layerCount;
    layer_t layers[MAX_LAYERS];
    size_t parameters;
} network_t;

/* On the device, but for the host's copies of what goes in and comes out. */
typedef struct {
    const device_t *device;
    int batch;
    float *values[MAX_LAYERS + 1]; /* values[0] is the input, values[l + 1] what layer l gives */
    float *slopes[MAX_LAYERS + 1]; /* of the loss by those values; none by the input */
    float *scratch;
    uint8_t *labels;
    float *hostImages, *hostLogits;
    uint8_t *hostLabels;
} workspace_t;

/* ---- making ---- */

static shape_t lastShape(const network_t *network)
{
    const images_t *images = &network->dataset.train;
    if (network->layerCount == 0)
        return (shape_t){1, (int)images->height, (int)images->width};
    return network->layers[network->layerCount - 1].out;
}

static void addLayer(network_t *network, layer_t layer)
{
    layer.weights = network->parameters;
    layer.biases = layer.weights + layer.weightCount;
    network->parameters = layer.biases + layer.biasCount;
    network->layers[network->layerCount++] = layer;
}

static void addDense(network_t *network, const device_t *device, int outputs)
{
    addLayer(network, device->dense(lastShape(network), outputs));
}

static void addRelu(network_t *network, const device_t *device)
{
    addLayer(network, device->relu(lastShape(network)));
}

static void addConvolution(network_t *network, const device_t *device, int channels)
{
    addLayer(network, device->conv(lastShape(network), channels));
    addRelu(network, device);
    addLayer(network, device->pool(lastShape(network)));
}

/* The images, and a network without layers. */
static network_t *load(model_t *model, const options_t *options)
{
    network_t *network = model->content = calloc(1, sizeof *network);
    if (!network) {
        fail("no memory for a network");
        return NULL;
    }
    if (!datasetLoad(&network->dataset, options->data, options->dataDir))
        return NULL;
    model->trainCount = network->dataset.train.count;
    model->testCount = network->dataset.test.count;
    model->ownTest = true;
    model->features = network->dataset.train.pixels;
    return network;
}

static bool finish(model_t *model, network_t *network)
{
    addDense(network, model->device, IMAGE_CLASSES);
    model->parameters = network->parameters;
    for (int l = network->layerCount - 1; l >= 0; l--) {
        const layer_t *layer = &network->layers[l];
        if (layer->weightCount)
            model->parts[model->partCount++] = (part_t){layer->weights, layer->weightCount + layer->biasCount};
    }
    return true;
}

static bool makeSoftmax(model_t *model, const options_t *options)
{
    network_t *network = load(model, options);
    return network && finish(model, network);
}

static bool makeMlp(model_t *model, const options_t *options)
{
    network_t *network = load(model, options);
    if (!network)
        return false;
    for (int i = 0; i < options->depth; i++) {
        addDense(network, model->device, options->hidden);
        addRelu(network, model->device);
    }
    return finish(model, network);
}

static bool makeCnn(model_t *model, const options_t *options)
{
    network_t *network = load(model, options);
    if (!network)
        return false;
    const images_t *images = &network->dataset.train;
    if (images->height < 4 || images->width < 4)
        return fail("%s: images of %u x %u pixels, expected 4 x 4 or more for --model cnn", options->data,
                    images->height, images->width);
    addConvolution(network, model->device, 8);
    addConvolution(network, model->device, 16);
    return finish(model, network);
}

static void freeNetwork(model_t *model)
{
    network_t *network = model->content;
    if (network)
        datasetFree(&network->dataset);
    free(network);
}

/* Weights uniform within 1 / sqrt(fan-in), biases zero. */
static void start(const model_t *model, void *vector, uint64_t seed)
{
    const network_t *network = model->content;
    float *parameters = vector;
    uint64_t stream = UINT64_MAX;
    memset(parameters, 0, network->parameters * sizeof *parameters);
    for (int l = 0; l < network->layerCount; l++) {
        const layer_t *layer = &network->layers[l];
        if (layer->weightCount == 0)
            continue;
        random_t random = randomMake(seed, stream--);
        float range = 1.0f / sqrtf((float)layer->fanIn);
        for (size_t i = layer->weights; i < layer->biases; i++)
            parameters[i] = range * randomSigned(&random);
    }
}

/* ---- workspace ---- */

static void workspaceFree(void *pointer)
{
    workspace_t *workspace = pointer;
    if (!workspace)
        return;
    const device_t *device = workspace->device;
    for (int l = 0; l <= MAX_LAYERS; l++) {
        device->release(workspace->values[l]);
        device->release(workspace->slopes[l]);
    }
    device->release(workspace->scratch);
    device->release(workspace->labels);
    free(workspace->hostImages);
    free(workspace->hostLogits);
    free(workspace->hostLabels);
    free(workspace);
}

static float *floats(const workspace_t *workspace, size_t columns)
{
    return workspace->device->allocate((size_t)workspace->batch * columns * sizeof(float));
}

static bool makeHostBuffers(workspace_t *workspace, const network_t *network)
{
    size_t batch = (size_t)workspace->batch;
    workspace->hostImages = malloc(batch * shapeSize(network->layers[0].in) * sizeof(float));
    workspace->hostLogits = malloc(batch * IMAGE_CLASSES * sizeof(float));
    workspace->hostLabels = malloc(batch);
    return workspace->hostImages && workspace->hostLogits && workspace->hostLabels;
}

static bool makeBuffers(workspace_t *workspace, const network_t *network)
{
    size_t scratch = (size_t)workspace->batch;
    workspace->labels = workspace->device->allocate((size_t)workspace->batch);
    workspace->values[0] = floats(workspace, shapeSize(network->layers[0].in));
    bool complete = makeHostBuffers(workspace, network) && workspace->labels && workspace->values[0];
    for (int l = 0; l < network->layerCount; l++) {
        const layer_t *layer = &network->layers[l];
        workspace->values[l + 1] = floats(workspace, shapeSize(layer->out));
        workspace->slopes[l + 1] = floats(workspace, shapeSize(layer->out));
        complete = complete && workspace->values[l + 1] && workspace->slopes[l + 1];
        scratch = layer->scratch > scratch ? layer->scratch : scratch;
    }
    workspace->scratch = workspace->device->allocate(scratch * sizeof(float));
    return complete && workspace->scratch;
}

static void *workspaceMake(const model_t *model, int batch)
{
    workspace_t *workspace = calloc(1, sizeof *workspace);
    if (!workspace)
        return NULL;
    workspace->device = model->device;
    workspace->batch = batch;
    if (makeBuffers(workspace, model->content))
        return workspace;
    workspaceFree(workspace);
    return NULL;
}

/* ---- passes ---- */

/* Values become a range of 2 around the mean of all training images. */
static void loadImage(workspace_t *workspace, const dataset_t *dataset, const images_t *images, uint32_t image, int row)
{
    const uint8_t *from = images->values + (size_t)image * images->pixels;
    float *to = workspace->hostImages + (size_t)row * images->pixels;
    for (uint32_t i = 0; i < images->pixels; i++)
        to[i] = ((float)from[i] - dataset->mean) * (2.0f / 255.0f);
    workspace->hostLabels[row] = images->labels[image];
}

/* From the images that are loaded to the logits. */
static void forward(const network_t *network, workspace_t *workspace, const float *parameters, int batch)
{
    size_t pixels = (size_t)batch * shapeSize(network->layers[0].in);
    workspace->device->upload(workspace->values[0], workspace->hostImages, pixels * sizeof(float));
    for (int l = 0; l < network->layerCount; l++) {
        const layer_t *layer = &network->layers[l];
        layer->forward(layer, parameters, workspace->values[l], workspace->values[l + 1], batch, workspace->scratch);
    }
}

static void backward(const network_t *network, workspace_t *workspace, const float *parameters, int batch,
                     float *gradient, const watcher_t *watcher)
{
    int part = 0;
    for (int l = network->layerCount - 1; l >= 0; l--) {
        const layer_t *layer = &network->layers[l];
        layer->backward(layer, parameters, workspace->values[l], workspace->slopes[l + 1], workspace->slopes[l], batch,
                        gradient, workspace->scratch);
        if (watcher && layer->weightCount)
            watcher->partDone(watcher->context, part++);
    }
}

static double gradient(const model_t *model, void *pointer, const void *parameters, const uint32_t *items, int count,
                       void *gradient, const watcher_t *watcher)
{
    const network_t *network = model->content;
    workspace_t *workspace = pointer;
    for (int row = 0; row < count; row++)
        loadImage(workspace, &network->dataset, &network->dataset.train, items[row], row);
    forward(network, workspace, parameters, count);
    workspace->device->upload(workspace->labels, workspace->hostLabels, (size_t)count);
    double loss =
        workspace->device->loss(workspace->values[network->layerCount], workspace->slopes[network->layerCount],
                                workspace->labels, IMAGE_CLASSES, count, workspace->scratch);
    backward(network, workspace, parameters, count, gradient, watcher);
    return loss;
}

static int countCorrect(const float *logits, const uint8_t *labels, int batch)
{
    int correct = 0;
    for (int row = 0; row < batch; row++, logits += IMAGE_CLASSES) {
        int best = 0;
        for (int c = 1; c < IMAGE_CLASSES; c++)
            best = logits[c] > logits[best] ? c : best;
        correct += best == labels[row];
    }
    return correct;
}

static double test(const model_t *model, void *pointer, const void *parameters, uint32_t first, uint32_t end)
{
    const network_t *network = model->content;
    workspace_t *workspace = pointer;
    uint32_t batch = (uint32_t)workspace->batch;
    double correct = 0.0;
    for (uint32_t at = first; at < end; at += batch) {
        int rows = (int)(end - at < batch ? end - at : batch);
        for (int row = 0; row < rows; row++)
            loadImage(workspace, &network->dataset, &network->dataset.test, at + (uint32_t)row, row);
        forward(network, workspace, parameters, rows);
        workspace->device->download(workspace->hostLogits, workspace->values[network->layerCount],
                                    (size_t)rows * IMAGE_CLASSES * sizeof(float));
        correct += countCorrect(workspace->hostLogits, workspace->hostLabels, rows);
    }
    return correct;
}

#define NETWORK_TYPE(called, maker)                                                                                    \
    {                                                                                                                  \
        .name = called, .items = "images", .features = "pixels", .defaultData = "fashion-mnist", .measure = &accuracy, \
        .make = maker, .free = freeNetwork, .start = start, .workspaceMake = workspaceMake,                            \
        .workspaceFree = workspaceFree, .gradient = gradient, .test = test                                             \
    }
const modelType_t softmaxModel = NETWORK_TYPE("softmax", makeSoftmax);
const modelType_t mlpModel = NETWORK_TYPE("mlp", makeMlp);
const modelType_t cnnModel = NETWORK_TYPE("cnn", makeCnn);
