/* Ordered workers: a CPU stream is one thread that runs enqueued calls in turn and remembers the first error. */
#include "core.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct job {
    struct job *next;
    gsTask task;
    max_align_t arguments[];
} job;

typedef struct {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    job *first, **last;
    int running, closing;
    gsResult_t error;
    char errorText[512];
} worker;

static void finish(worker *w, gsResult_t result)
{
    w->running = 0;
    if (result != GS_SUCCESS && w->error == GS_SUCCESS) {
        w->error = result;
        strncpy(w->errorText, gsGetLastError(), sizeof w->errorText - 1);
    }
    pthread_cond_broadcast(&w->changed);
}

static void *work(void *argument)
{
    worker *w = argument;
    pthread_mutex_lock(&w->lock);
    for (;;) {
        while (!w->first && !w->closing)
            pthread_cond_wait(&w->changed, &w->lock);
        job *j = w->first;
        if (!j)
            break;
        w->first = j->next;
        if (!w->first)
            w->last = &w->first;
        w->running = 1;
        pthread_mutex_unlock(&w->lock);
        gsResult_t result = j->task(j->arguments);
        free(j);
        pthread_mutex_lock(&w->lock);
        finish(w, result);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

gsResult_t gsStreamCreate(gsStream_t *stream)
{
    if (!stream)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "stream is NULL; expected a place for the stream");
    *stream = NULL;
    worker *w = calloc(1, sizeof *w);
    if (!w)
        return gsFail(GS_ERROR_OUT_OF_MEMORY, "no %zu bytes for a stream", sizeof *w);
    w->last = &w->first;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    int failed = pthread_create(&w->thread, NULL, work, w);
    if (failed) {
        free(w);
        return gsFail(GS_ERROR_SYSTEM, "no thread for a stream: %s", strerror(failed));
    }
    *stream = w;
    return GS_SUCCESS;
}

gsResult_t gsStreamPush(gsStream_t stream, gsTask task, const void *arguments, size_t bytes)
{
    worker *w = stream;
    job *j = malloc(sizeof *j + bytes);
    if (!j)
        return gsFail(GS_ERROR_OUT_OF_MEMORY, "no %zu bytes for an enqueued call", sizeof *j + bytes);
    j->next = NULL;
    j->task = task;
    memcpy(j->arguments, arguments, bytes);
    pthread_mutex_lock(&w->lock);
    *w->last = j;
    w->last = &j->next;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    return GS_SUCCESS;
}

gsResult_t gsStreamSynchronize(gsStream_t stream)
{
    worker *w = stream;
    if (!w)
        return GS_SUCCESS; /* the NULL stream is always done */
    pthread_mutex_lock(&w->lock);
    while (w->first || w->running)
        pthread_cond_wait(&w->changed, &w->lock);
    gsResult_t error = w->error;
    if (error != GS_SUCCESS)
        gsFail(error, "%s", w->errorText);
    w->error = GS_SUCCESS;
    pthread_mutex_unlock(&w->lock);
    return error;
}

gsResult_t gsStreamDestroy(gsStream_t stream)
{
    worker *w = stream;
    if (!w)
        return GS_SUCCESS;
    pthread_mutex_lock(&w->lock);
    w->closing = 1;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->changed);
    free(w);
    return GS_SUCCESS;
}
