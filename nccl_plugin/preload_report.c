/* What has become of every reduction, told on stderr when the program ends. */
#include "preload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

preloadTally preloadCounts;
static char why[512];

void preloadReportWhy(const char *reason)
{
    static atomic_flag told = ATOMIC_FLAG_INIT;
    if (!atomic_flag_test_and_set(&told))
        strncpy(why, reason, sizeof why - 1);
}

/* Communicators that are still there: their counts so far. The device is not asked, for it may never answer. */
static void addLiving(void)
{
    for (const preloadComm *c = preloadCommList(); c; c = c->next) {
        preloadPlanTally(c->plan);
        for (const preloadPlan *plan = c->old; plan; plan = plan->next)
            preloadPlanTally(plan);
    }
}

static unsigned long long passedInAll(void)
{
    unsigned long long all = 0;
    for (int reason = 0; reason < PASS_REASONS; reason++)
        all += preloadCounts.passed[reason];
    return all;
}

static void printNccl(void)
{
    const preloadNccl *nccl = preloadFindNccl();
    fprintf(stderr, "gradsieve: NCCL %d, built for %d, recipe \"%s\"\n", nccl->version, NCCL_VERSION_CODE,
            preloadGetSettings()->recipe);
    if (nccl->version > NCCL_VERSION_CODE)
        fprintf(stderr, "gradsieve: this NCCL is newer: functions that it has and %d had not were not watched\n",
                NCCL_VERSION_CODE);
#ifdef PRELOAD_UNKNOWN
    fprintf(stderr, "gradsieve: not watched, for nobody knew what they do: %s\n", PRELOAD_UNKNOWN);
#endif
    if (nccl->libraries > 1)
        fprintf(stderr, "gradsieve: %d NCCLs are loaded; only calls of one were watched\n", nccl->libraries);
    if (preloadGetSettings()->refusal[0])
        fprintf(stderr, "gradsieve: %s\n", preloadGetSettings()->refusal);
}

static void printCalls(void)
{
    const preloadTally *n = &preloadCounts;
    unsigned long long passed = passedInAll();
    fprintf(stderr, "gradsieve: %llu reductions: %llu compressed, %llu dense while learning, %llu passed\n",
            n->compressed + n->learning + passed, n->compressed, n->learning, passed);
    for (int reason = 0; reason < PASS_REASONS; reason++)
        if (n->passed[reason])
            fprintf(stderr, "gradsieve:   passed: %llu %s\n", n->passed[reason], preloadPassText((preloadPass)reason));
    if (why[0])
        fprintf(stderr, "gradsieve:   no reducer, for: %s\n", why);
    fprintf(stderr, "gradsieve: %llu plans learned, %llu broken, %llu of them taken up again, %llu votes lost\n",
            n->plans, n->broken, n->resumed, n->refused);
}

static void printDevice(void)
{
    const preloadTally *n = &preloadCounts;
    fprintf(stderr,
            "gradsieve: %llu exchanges on devices (%llu calls went into graphs), %llu with NaN, %llu reducers failed\n",
            n->exchanges, n->captured, n->nonFinite, n->faults);
    fprintf(stderr, "gradsieve: %llu bytes left ranks where a dense ring sends %llu\n", n->wireBytes, n->denseBytes);
    if (n->measured)
        fprintf(stderr, "gradsieve: %.1f us to encode and %.1f to decode, the mean of %llu calls on devices\n",
                1e-3 * (double)n->encodeNs / (double)n->measured, 1e-3 * (double)n->decodeNs / (double)n->measured,
                n->measured);
}

/* Rank 0 of the largest communicator speaks for all. */
static bool isFirst(void)
{
    int most = 0;
    bool first = false;
    for (const preloadComm *c = preloadCommList(); c; c = c->next) {
        first = c->nranks > most ? c->rank == 0 : first || (c->nranks == most && c->rank == 0);
        most = c->nranks > most ? c->nranks : most;
    }
    return first;
}

static void print(void)
{
    const char *who = preloadGetSettings()->report;
    if (strcmp(who, "none") == 0 || (strcmp(who, "all") != 0 && !isFirst()))
        return;
    addLiving();
    printNccl();
    printCalls();
    printDevice();
}

static void begin(void)
{
    atexit(print);
}

void preloadReportAtExit(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, begin);
}
