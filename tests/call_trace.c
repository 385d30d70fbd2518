/*
 * Preloaded into a training program, this writes what its rank 0 gives to gradsieve, and what a reducer then still owes: a line an element,
 * "call element gradient residual", to the file CALL_TRACE. For gradients of float32.
 */
#include "core.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_REDUCERS = 16, TO_HOST = 2 /* cudaMemcpyDeviceToHost */ };

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static gsReducer_t reducers[MAX_REDUCERS]; /* of rank 0 */
static int made;
static FILE *file;

/* CUDA's functions where the program has CUDA. */
static int (*copyOf)(void *, const void *, size_t, int);
static int (*synchronizeOf)(void *);

static void *next(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

static void begin(void)
{
    *(void **)&copyOf = next("cudaMemcpy");
    *(void **)&synchronizeOf = next("cudaStreamSynchronize");
    file = fopen(getenv("CALL_TRACE"), "w");
    if (!file)
        exit(3);
}

static void awaitStream(gsStream_t stream)
{
    if (synchronizeOf)
        synchronizeOf(stream);
    else
        gsStreamSynchronize(stream);
}

static float *copyGradient(const void *gradient, size_t count, gsStream_t stream)
{
    float *values = calloc(count, sizeof *values);
    awaitStream(stream);
    if (copyOf)
        copyOf(values, gradient, count * sizeof *values, TO_HOST);
    else
        memcpy(values, gradient, count * sizeof *values);
    return values;
}

static int isTraced(gsReducer_t reducer)
{
    int traced = 0;
    pthread_mutex_lock(&guard);
    for (int i = 0; i < made; i++)
        traced |= reducers[i] == reducer;
    pthread_mutex_unlock(&guard);
    return traced;
}

static void writeCall(float *gradient, size_t count, gsReducer_t reducer, gsStream_t stream)
{
    static int calls;
    float *residual = calloc(count, sizeof *residual);
    awaitStream(stream);
    if (reducer->residual[0] && gsReducerRead(reducer, "residual", residual, count) != GS_SUCCESS)
        exit(3);
    for (size_t i = 0; i < count; i++)
        fprintf(file, "%d %zu %.9g %.9g\n", calls, i, (double)gradient[i], (double)residual[i]);
    calls++;
    fflush(file);
    free(residual);
    free(gradient);
}

gsResult_t gsReducerCreate(gsReducer_t *reducer, gsComm_t comm, const gsReducerConfig_t *config)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    __typeof__(&gsReducerCreate) create;
    *(void **)&create = next("gsReducerCreate");
    pthread_once(&once, begin);
    gsResult_t result = create(reducer, comm, config);
    if (result != GS_SUCCESS || comm->rank != 0)
        return result;
    pthread_mutex_lock(&guard);
    if (made < MAX_REDUCERS)
        reducers[made++] = *reducer;
    pthread_mutex_unlock(&guard);
    return result;
}

gsResult_t gsAllReduce(const void *sendbuff, void *recvbuff, size_t count, gsDataType_t type, gsRedOp_t op,
                       gsReducer_t reducer, gsStream_t stream)
{
    __typeof__(&gsAllReduce) call;
    *(void **)&call = next("gsAllReduce");
    float *gradient = isTraced(reducer) ? copyGradient(sendbuff, count, stream) : NULL;
    gsResult_t result = call(sendbuff, recvbuff, count, type, op, reducer, stream);
    if (gradient)
        writeCall(gradient, count, reducer, stream);
    return result;
}

gsResult_t gsAllReduceStep(const void *gradient, size_t count, gsDataType_t type, gsRedOp_t op,
                           const gsOptimizer_t *optimizer, gsReducer_t reducer, gsStream_t stream)
{
    __typeof__(&gsAllReduceStep) call;
    *(void **)&call = next("gsAllReduceStep");
    float *values = isTraced(reducer) ? copyGradient(gradient, count, stream) : NULL;
    gsResult_t result = call(gradient, count, type, op, optimizer, reducer, stream);
    if (values)
        writeCall(values, count, reducer, stream);
    return result;
}
