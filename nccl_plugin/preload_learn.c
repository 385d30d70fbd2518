/* Watches a communicator's calls until they repeat, then follows them. See preload.c for the whole of it. */
#include "preload_learn.h"

#include <string.h>

static bool sameKey(const preloadKey *a, const preloadKey *b)
{
    return a->count == b->count && a->type == b->type && a->op == b->op && a->collective == b->collective;
}

bool preloadSameSight(const preloadSight *a, const preloadSight *b)
{
    return sameKey(&a->key, &b->key) && a->buffer == b->buffer;
}

/* Three times the same, two of them repetitions; longer after a plan that ended early, like the loop over a model's equal layers. */
static uint64_t runNeeded(const preloadLearner *l, uint32_t period)
{
    return l->doubt > 2 * (uint64_t)period ? l->doubt : 2 * (uint64_t)period;
}

static const preloadSight *sightBefore(const preloadLearner *l, uint32_t calls)
{
    return &l->seen[(l->watched - calls) % PRELOAD_MAX_PERIOD];
}

static void watch(preloadLearner *l, const preloadSight *now)
{
    uint32_t most = l->watched < PRELOAD_MAX_PERIOD ? (uint32_t)l->watched : PRELOAD_MAX_PERIOD;
    l->repeats = false;
    for (uint32_t p = 1; p <= most; p++) {
        const preloadSight *before = sightBefore(l, p);
        l->keyRun[p] = sameKey(&before->key, &now->key) ? l->keyRun[p] + 1 : 0;
        l->bufferRun[p] = preloadSameSight(before, now) ? l->bufferRun[p] + 1 : 0;
        l->repeats |= l->keyRun[p] >= runNeeded(l, p);
    }
    l->seen[l->watched++ % PRELOAD_MAX_PERIOD] = *now;
}

static void forget(preloadLearner *l)
{
    if (l->run < (uint64_t)PRELOAD_TRUSTED * l->period && l->doubt < 2 * l->run)
        l->doubt = 2 * l->run;
    l->period = 0;
    l->watched = l->voteAt = 0;
    memset(l->keyRun, 0, sizeof l->keyRun);
    memset(l->bufferRun, 0, sizeof l->bufferRun);
}

static int follow(preloadLearner *l)
{
    int place = (int)l->at;
    l->at = (l->at + 1) % l->period;
    l->run++;
    return place;
}

int preloadLearnCall(preloadLearner *l, preloadKey key, const void *buffer)
{
    bool planned = l->period != 0;
    if (planned && sameKey(&l->plan[l->at].key, &key))
        return follow(l);
    if (planned)
        forget(l);
    watch(l, &(preloadSight){key, buffer});
    return planned ? PRELOAD_BROKE : PRELOAD_WATCHED;
}

bool preloadLearnIsDue(const preloadLearner *l)
{
    return l->period == 0 && l->repeats && l->watched >= l->voteAt;
}

uint32_t preloadLearnProposal(const preloadLearner *l)
{
    for (uint32_t p = 1; p <= PRELOAD_MAX_PERIOD; p++)
        if (l->keyRun[p] >= runNeeded(l, p) && l->bufferRun[p] >= 2 * (uint64_t)p)
            return p;
    return 0;
}

const preloadSight *preloadLearnSight(const preloadLearner *l, uint32_t period, uint32_t place)
{
    return sightBefore(l, period - place);
}

void preloadLearnAdopt(preloadLearner *l, uint32_t period)
{
    for (uint32_t i = 0; i < period; i++)
        l->plan[i] = *preloadLearnSight(l, period, i);
    l->period = period;
    l->at = 0;
    l->run = l->keyRun[period];
    l->repeats = false;
}

void preloadLearnRefuse(preloadLearner *l)
{
    l->voteAt = 2 * l->watched;
}
