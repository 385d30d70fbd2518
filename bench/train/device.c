/* device.c: the CPU as a device, and the way to CUDA's, which is loaded when it is asked for. */
#include "device.h"

#include "failure.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#define CUDA_PART "libgs_train_cuda.so"

/* ---- the CPU ---- */

static bool enoughProcessors(int ranks)
{
    (void)ranks; /* may share */
    return true;
}

static bool enter(const rank_t *rank, gsComm_t *comm)
{
    *comm = rank->comm;
    return true;
}

static void leave(gsComm_t comm)
{
    (void)comm; /* stays the rank's */
}

static void *allocate(size_t bytes)
{
    return calloc(bytes ? bytes : 1, 1);
}

static void copy(void *to, const void *from, size_t bytes)
{
    memcpy(to, from, bytes);
}

static bool finish(void)
{
    return true;
}

const device_t cpuDevice = {.check = enoughProcessors,
                            .enter = enter,
                            .leave = leave,
                            .allocate = allocate,
                            .release = free,
                            .upload = copy,
                            .download = copy,
                            .finish = finish,
                            .dense = denseLayer,
                            .relu = reluLayer,
                            .conv = convLayer,
                            .pool = poolLayer,
                            .loss = softmaxLoss};

/* ---- CUDA ---- */

/* What is computed by functions of the host alone. */
static bool checkOptions(const options_t *options)
{
    if (options->model != MODEL_MLP && options->model != MODEL_SOFTMAX)
        return fail("--device: got cuda, which computes the models softmax and mlp alone");
    if (options->dtype != DTYPE_F32)
        return fail("--device: got cuda beside --dtype; expected gradients in f32");
    if (options->overlap)
        return fail("--device: got cuda beside --overlap; the example mlp shows it on GPUs");
    for (int i = 0; i < options->compare.count; i++)
        if (strncmp(options->compare.texts[i], "lag-ps", 6) == 0 ||
            strncmp(options->compare.texts[i], "lasg-wk", 7) == 0)
            return fail("--device: got cuda beside %s, which asks for further gradients", options->compare.texts[i]);
    return true;
}

/* Not linked: this program runs where CUDA's libraries are not. */
static const device_t *loadCuda(void)
{
    void *part = dlopen(CUDA_PART, RTLD_NOW);
    const device_t *device = part ? dlsym(part, "gsTrainCuda") : NULL;
    if (!device)
        fail("--device: got cuda, but %s; it is built where CUDA, NCCL and cuBLAS are found", dlerror());
    return device;
}

const device_t *deviceOpen(const options_t *options, int localRanks)
{
    if (options->device == DEVICE_CPU)
        return &cpuDevice;
    const device_t *device = checkOptions(options) ? loadCuda() : NULL;
    return device && device->check(localRanks) ? device : NULL;
}
