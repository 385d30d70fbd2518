/* cuda.cuh: what an MLP does on a GPU: cuBLAS's products, and small kernels around them. Matrices lie row by row; to
 * cuBLAS, which counts by columns, each is its transpose. */
#ifndef TRAIN_LAYERS_CUDA_CUH
#define TRAIN_LAYERS_CUDA_CUH

#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <stdint.h>

static const unsigned blockThreads = 256;

/* Enqueues a kernel with a thread for each item. */
template <typename... Params, typename... Args>
static void forEach(size_t items, cudaStream_t stream, void (*kernel)(Params...), Args... args)
{
    kernel<<<(unsigned)((items + blockThreads - 1) / blockThreads), blockThreads, 0, stream>>>(args...);
}

static __device__ inline size_t itemIndex()
{
    return (size_t)blockIdx.x * blockDim.x + threadIdx.x;
}

/* Bytes become a range of 2 around the mean of all training images. */
static __global__ void gatherImages(float *rows, uint8_t *labels, const uint8_t *images, const uint8_t *allLabels,
                                    const uint32_t *items, float mean, uint32_t pixels, size_t count)
{
    size_t i = itemIndex(), row = i / pixels;
    if (i >= count)
        return;
    rows[i] = ((float)images[(size_t)items[row] * pixels + i % pixels] - mean) * (2.0f / 255.0f);
    if (i % pixels == 0)
        labels[row] = allLabels[items[row]];
}

static __global__ void fillRows(float *rows, const float *row, int columns, size_t count)
{
    size_t i = itemIndex();
    if (i < count)
        rows[i] = row[i % (size_t)columns];
}

/* A column is added up by one thread, so that the order is that of the rows. */
static __global__ void sumRows(float *sums, const float *rows, int columns, int count)
{
    int column = (int)itemIndex();
    float sum = 0.0f;
    if (column >= columns)
        return;
    for (int row = 0; row < count; row++)
        sum += rows[(size_t)row * (size_t)columns + (size_t)column];
    sums[column] = sum;
}

static __global__ void relu(float *out, const float *in, size_t count)
{
    size_t i = itemIndex();
    if (i < count)
        out[i] = in[i] > 0.0f ? in[i] : 0.0f;
}

/* `values`: what relu was given, or what it gave. */
static __global__ void reluSlopes(float *before, const float *slopes, const float *values, size_t count)
{
    size_t i = itemIndex();
    if (i < count)
        before[i] = values[i] > 0.0f ? slopes[i] : 0.0f;
}

/* Cross entropy of each row of logits, and the slopes of the rows' mean. */
static __global__ void softmaxLosses(const float *logits, float *slopes, float *losses, const uint8_t *labels,
                                     int classes, int rows)
{
    int row = (int)itemIndex();
    if (row >= rows)
        return;
    const float *logit = logits + (size_t)row * (size_t)classes;
    float *slope = slopes + (size_t)row * (size_t)classes, largest = logit[0], sum = 0.0f, scale = 1.0f / (float)rows;
    int label = labels[row];
    for (int c = 1; c < classes; c++)
        largest = fmaxf(largest, logit[c]);
    for (int c = 0; c < classes; c++)
        sum += slope[c] = expf(logit[c] - largest);
    for (int c = 0; c < classes; c++)
        slope[c] = scale * (slope[c] / sum - (c == label ? 1.0f : 0.0f));
    losses[row] = logf(sum) - (logit[label] - largest);
}

/* One thread, so that the order is that of the rows. */
static __global__ void meanLoss(double *loss, const float *losses, int count)
{
    double sum = 0.0;
    for (int i = 0; i < count; i++)
        sum += losses[i];
    *loss = sum / count;
}

/* From 0 .. 1 to -range .. range. */
static __global__ void scaleWeights(float *weights, float range, size_t count)
{
    size_t i = itemIndex();
    if (i < count)
        weights[i] = range * (2.0f * weights[i] - 1.0f);
}

/* out = in * weights + biases. `weights`: inputs x outputs, the biases behind them. */
static inline cublasStatus_t denseForward(cublasHandle_t cublas, cudaStream_t stream, const float *weights,
                                          const float *in, float *out, int inputs, int outputs, int batch)
{
    const float one = 1.0f, *biases = weights + (size_t)inputs * (size_t)outputs;
    size_t count = (size_t)batch * (size_t)outputs;
    forEach(count, stream, fillRows, out, biases, outputs, count);
    return cublasSgemm(cublas, CUBLAS_OP_N, CUBLAS_OP_N, outputs, batch, inputs, &one, weights, outputs, in, inputs,
                       &one, out, outputs);
}

/* The gradient, laid out as weights and biases are, and the slopes by `in`, where `before` is not NULL. */
static inline cublasStatus_t denseBackward(cublasHandle_t cublas, cudaStream_t stream, const float *weights,
                                           const float *in, const float *slopes, float *before, float *gradient,
                                           int inputs, int outputs, int batch)
{
    const float one = 1.0f, zero = 0.0f;
    float *biases = gradient + (size_t)inputs * (size_t)outputs;
    forEach((size_t)outputs, stream, sumRows, biases, slopes, outputs, batch);
    cublasStatus_t status = cublasSgemm(cublas, CUBLAS_OP_N, CUBLAS_OP_T, outputs, inputs, batch, &one, slopes, outputs,
                                        in, inputs, &zero, gradient, outputs);
    if (status != CUBLAS_STATUS_SUCCESS || !before)
        return status;
    return cublasSgemm(cublas, CUBLAS_OP_T, CUBLAS_OP_N, inputs, batch, outputs, &one, weights, outputs, slopes,
                       outputs, &zero, before, inputs);
}

#endif
