/*
 * plan.h: the inside of the cost model: one call in one mode as phases, one after the other on every rank, and what a phase takes.
 * bench/plan/simulate.c runs the same phases message by message.
 */
#ifndef GS_PLAN_H
#define GS_PLAN_H

#include "core.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    GS_PHASE_COMPUTE, /* `seconds` on every rank */
    GS_PHASE_POSTED,  /* a message to every other member of the group, all of them posted at once */
    GS_PHASE_RING, /* a message goes to the next member as often as there are others, `rounds` times; each is what came before */
    GS_PHASE_TREE /* NCCL's all-reduce in two binary trees over the nodes, a chain inside each */
} gsPhaseKind;

/* With whom a rank exchanges: all ranks, those of its node, or those in its place on the other nodes. */
typedef enum { GS_WITH_ALL, GS_WITH_NODE, GS_WITH_PEERS } gsPhaseGroup;

/* What makes ranks' messages and times differ: the lengths of records, or an owner's load, where it receives or where it sends or computes. */
typedef enum { GS_LOAD_EVEN, GS_LOAD_RECORD, GS_LOAD_TO_OWNER, GS_LOAD_OF_OWNER } gsPhaseLoad;

typedef enum { GS_STAGE_ENCODE, GS_STAGE_EXCHANGE, GS_STAGE_DECODE, GS_STAGES } gsPhaseStage;

typedef struct {
    gsPhaseKind kind;
    gsPhaseGroup group;
    gsPhaseLoad load;
    gsPhaseStage stage;
    int rounds;
    int announces;  /* lengths and preambles: no payload */
    double seconds; /* of GS_PHASE_COMPUTE, the mean */
    double bytes;   /* of a message, the mean; GS_PHASE_TREE: of the vector */
    double pieces;  /* that a message is cut into */
} gsPhase;

enum { GS_MAX_PHASES = 24 };

typedef struct {
    gsCluster_t cluster; /* all figures known */
    gsPhase phases[GS_MAX_PHASES];
    int count;
    double recordSpread; /* standard deviation over mean, of ranks' records */
    double ownerSpread;  /* of owners' loads, besides their numbers of blocks */
    double ownerBlocks;  /* blocks of an owner, the mean: the first ranks may have one more than the others */
} gsSchedule;

/* plan.c, of a cluster whose figures are all known. NULL, or why the mode is not possible. */
GS_INTERNAL const char *gsPlanSchedule(const gsReducerConfig_t *config, const gsCluster_t *cluster, gsMode_t mode,
                                       gsSchedule *schedule);
GS_INTERNAL double gsPhaseSeconds(const gsSchedule *schedule, const gsPhase *phase);
GS_INTERNAL double gsScheduleSeconds(const gsSchedule *schedule);
/* That leave a rank, the mean; and a node. */
GS_INTERNAL double gsScheduleBytes(const gsSchedule *schedule);
GS_INTERNAL double gsScheduleNodeBytes(const gsSchedule *schedule);
/* The cluster with its defaults, which the recipe has a say in. */
GS_INTERNAL gsResult_t gsPlanComplete(const gsReducerConfig_t *config, const gsCluster_t *cluster, gsCluster_t *whole);
/* An all-gather of slots of so many bytes. */
double gsGatherSeconds(const gsCluster_t *cluster, gsPhaseGroup group, double bytes);
/* The chunks that a tree's vector is cut into. */
GS_INTERNAL double gsTreeChunks(double bytes);

/* measure.c: gsCommMeasure, but what this communicator has measured before is not measured again; collective. */
gsResult_t gsMeasureOnce(gsComm_t comm, const gsReducerConfig_t *config, gsCluster_t *cluster);

static inline int gsClusterNodes(const gsCluster_t *c)
{
    return (c->ranks + c->ranksPerNode - 1) / c->ranksPerNode;
}

#ifdef __cplusplus
}
#endif
#endif
