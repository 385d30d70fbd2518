/* What has become of every reduction, told on stderr when the program ends. */
#include "preload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

preloadTally preloadCounts;

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
    fprintf(stderr, "gradsieve: %llu plans learned, %llu broken, %llu votes lost\n", n->plans, n->broken, n->refused);
}

static void printDevice(void)
{
    const preloadTally *n = &preloadCounts;
    fprintf(stderr,
            "gradsieve: %llu exchanges on devices (%llu calls went into graphs), %llu with NaN, %llu reducers failed\n",
            n->exchanges, n->captured, n->nonFinite, n->faults);
    fprintf(stderr, "gradsieve: %llu bytes left ranks where a dense ring sends %llu\n", n->wireBytes, n->denseBytes);
}

static void print(void)
{
    addLiving();
    printNccl();
    printCalls();
    printDevice();
}

void preloadReportBegin(ncclComm_t first)
{
    static atomic_flag begun = ATOMIC_FLAG_INIT;
    const char *wanted = preloadGetSettings()->report;
    int rank = 0;
    if (atomic_flag_test_and_set(&begun))
        return;
    preloadFindNccl()->ncclCommUserRank(first, &rank);
    if (strcmp(wanted, "all") == 0 || (strcmp(wanted, "none") != 0 && rank == 0))
        atexit(print);
}
