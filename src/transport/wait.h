/* wait.h: how a rank polls for something that another rank or a device must do first, with a deadline. */
#ifndef GS_TRANSPORT_WAIT_H
#define GS_TRANSPORT_WAIT_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

enum {
    GS_WAIT_SPINS = 200,          /* polls in a row before the processor is offered to another rank */
    GS_WAIT_PATIENCE_NS = 300000, /* of yielding before sleeping */
    GS_WAIT_NAP_NS = 50000
};

/* Nanoseconds, CLOCK_MONOTONIC. */
typedef struct {
    int64_t progress; /* when something was last heard */
    int64_t deadline;
    int spins;
} gsWait;

static inline int64_t gsWaitNow(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline gsWait gsWaitBegin(int64_t timeoutMs)
{
    int64_t now = gsWaitNow();
    return (gsWait){now, now + timeoutMs * 1000000, 0};
}

/* What was waited for has come; the next wait has the same deadline. */
static inline void gsWaitProgress(gsWait *wait)
{
    wait->progress = gsWaitNow();
    wait->spins = 0;
}

/* A moment's pause, or false past the deadline. Ranks may outnumber processors: whoever is waited for must get one. */
static inline bool gsWaitPause(gsWait *wait)
{
    int64_t now = gsWaitNow();
    if (now > wait->deadline)
        return false;
    if (wait->spins < GS_WAIT_SPINS)
        wait->spins++;
    else if (now - wait->progress < GS_WAIT_PATIENCE_NS)
        sched_yield();
    else
        nanosleep(&(struct timespec){.tv_nsec = GS_WAIT_NAP_NS}, NULL);
    return true;
}

#endif
