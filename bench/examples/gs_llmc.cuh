/*
 * gs_llmc.cuh: gradsieve for llm.c. Its multi_gpu_async_reduce_gradient hands over the gradients of a layer, twelve tensors, or of
 * what is outside of the layers, four; each such list has a reducer, made at its first call. The README shows the lines to add.
 */
#pragma once
#include "gradsieve.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <nccl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { GS_MAX_LISTS = 256 };

struct GsGradients {
    gsComm_t comm;
    const char *recipe;
    int lists;
    const void *first[GS_MAX_LISTS]; /* tensor of a list, which is known by it: gradients do not move */
    gsReducer_t reducers[GS_MAX_LISTS];
};

static inline void gs_check(gsResult_t result, const char *call)
{
    if (result == GS_SUCCESS)
        return;
    fprintf(stderr, "[gradsieve] %s: %s\n", call, gsGetLastError());
    exit(EXIT_FAILURE);
}

static inline gsDataType_t gs_type(const float *)
{
    return GS_FLOAT32;
}
static inline gsDataType_t gs_type(const half *)
{
    return GS_FLOAT16;
}
static inline gsDataType_t gs_type(const __nv_bfloat16 *)
{
    return GS_BFLOAT16;
}

static inline void gs_gradients_init(GsGradients *gs, ncclComm_t nccl, const char *recipe)
{
    *gs = GsGradients{};
    gs->recipe = recipe;
    gs_check(gsCommInitNccl(&gs->comm, nccl, NULL), "gsCommInitNccl");
}

static inline void gs_gradients_free(GsGradients *gs)
{
    for (int i = 0; i < gs->lists; i++)
        gs_check(gsReducerDestroy(gs->reducers[i]), "gsReducerDestroy");
    gs_check(gsCommDestroy(gs->comm), "gsCommDestroy");
}

/* All ranks meet a list for the first time in the same call. */
static inline gsReducer_t gs_gradients_reducer(GsGradients *gs, gsDataType_t type, const void *first,
                                               const uint64_t *sizes, uint32_t tensors)
{
    for (int i = 0; i < gs->lists; i++)
        if (gs->first[i] == first)
            return gs->reducers[i];
    gsReducerConfig_t config = GS_REDUCER_CONFIG_INIT;
    config.datatype = type;
    config.recipe = gs->recipe;
    config.segments = sizes;
    config.segmentCount = tensors;
    for (uint32_t i = 0; i < tensors; i++)
        config.count += sizes[i];
    if (gs->lists == GS_MAX_LISTS) {
        fprintf(stderr, "[gradsieve] more than %d lists of gradients\n", GS_MAX_LISTS);
        exit(EXIT_FAILURE);
    }
    gs_check(gsReducerCreate(&gs->reducers[gs->lists], gs->comm, &config), "gsReducerCreate");
    gs->first[gs->lists] = first;
    return gs->reducers[gs->lists++];
}

/* The averages over the ranks, in place, enqueued. */
template <typename T, int N>
static void gs_gradients_reduce(GsGradients *gs, T *const (&pointers)[N], const size_t (&sizes)[N], cudaStream_t stream)
{
    uint64_t counts[N];
    const void *from[N];
    void *to[N];
    for (int i = 0; i < N; i++) {
        counts[i] = sizes[i];
        from[i] = to[i] = pointers[i];
    }
    gsReducer_t reducer = gs_gradients_reducer(gs, gs_type(pointers[0]), pointers[0], counts, N);
    gs_check(gsAllReduceSegments(from, to, N, gs_type(pointers[0]), GS_AVG, reducer, stream), "gsAllReduceSegments");
}
