/*
 * What a phase of an exchange takes: closed forms in the alpha-beta model, with a third term for what a rank spends on a message.
 *
 * Every rank has a port each way inside its node (latency a, bandwidth b), and every node one to the other nodes (alpha, B) that its L
 * ranks share. A message of m bytes occupies a port for m / b or m / B, and has come a latency after it has left. Its sender is busy for o
 * before the next. P ranks on N nodes.
 *
 *   posted     A rank's messages all wait at its ports. Inside a node it sends L - 1 of them; a node's port carries what its ranks send
 *              to P - L others each. Sending a message every o may take longer than the ports do:
 *                  a + max((P - 1) o + m/b, o + (L - 1) m/b)  and  alpha + max((P - 1) o + m/B, o + L (P - L) m/B)
 *              and the slower one counts. Among peers L groups share the ports: L (N - 1) m/B.
 *   ring       In one node every step waits for the one before: (P - 1)(o + a + m/b) a round. Over nodes, of which a ring leaves each in
 *              one place, a round is as long as a message's way, N (o + alpha + m/B) + (P - 1 - N)(o + a + m/b), or as what a node's
 *              port has to carry, (P - 2) max(o, m/B) + (o + alpha + m/B), if that is more.
 *   tree       Half of the vector each goes up and down one of two binary trees over the nodes, in chunks of v bytes. The first chunk's
 *              way leads over D = ceil(log2 N) levels and back, 2 D (o + alpha); at each but the root's the chunks of two children
 *              queue, up and down, o + 4 v/B; and through the chains inside the nodes, 2 (L - 1)(o + a + v/b). A rank that is inside
 *              one tree and a leaf of the other sends four chunks for each further one: 4 v/B, or what it spends on the messages.
 *
 * Records differ in length, and owners in load. The slowest rank or node counts: the largest of as many draws from a lognormal law. An
 * average over a node's ranks deviates by a factor of sqrt(L) less.
 */
#include "plan.h"

#include <math.h>

/* ---- the largest of many ---- */

/* The mean of the largest of 2^k draws from a standard normal law. */
static const double largestNormal[] = {0,     0.564, 1.029, 1.424, 1.766, 2.070, 2.344, 2.595, 2.827,
                                       3.044, 3.248, 3.442, 3.626, 3.802, 3.971, 4.134, 4.291, 4.443,
                                       4.590, 4.733, 4.872, 5.008, 5.140, 5.269, 5.395};
enum { LARGEST_KNOWN = sizeof largestNormal / sizeof *largestNormal - 1 };

/* The mean of the largest of `draws` from a lognormal law with mean 1. */
static double largestOf(double deviation, double draws)
{
    double k = draws > 1 ? log2(draws) : 0, sigma = sqrt(log1p(deviation * deviation));
    int below = k < LARGEST_KNOWN ? (int)k : LARGEST_KNOWN - 1;
    double normal = largestNormal[below] + (k - below) * (largestNormal[below + 1] - largestNormal[below]);
    return exp(sigma * normal - sigma * sigma / 2);
}

/* Of the mean, what the blocks of the first `together` owners come to: some have one more than others, or the only one. */
static double blocksOf(const gsSchedule *s, double together)
{
    double each = s->ownerBlocks, fewer = floor(each), longer = round((each - fewer) * s->cluster.ranks);
    return (fewer + fmin(longer, together) / together) / each;
}

/* What the busiest of `draws` has to do more than the mean, where each is the sum over `together` ranks. */
static double loadOf(const gsSchedule *s, const gsPhase *p, double draws, double together)
{
    if (p->load == GS_LOAD_EVEN)
        return 1.0;
    if (p->load == GS_LOAD_RECORD)
        return largestOf(s->recordSpread / sqrt(together), draws);
    double owners = fmin(s->cluster.ranks, s->ownerBlocks * s->cluster.ranks), working = fmin(together, owners);
    return blocksOf(s, together) * largestOf(s->ownerSpread / sqrt(working), fmin(draws, owners / working));
}

/* ---- groups ---- */

/* A rank's group, and how many of its messages stay inside the node. */
typedef struct {
    double members, inside, outside;
} group;

static group groupOf(const gsCluster_t *c, gsPhaseGroup with)
{
    double ranks = c->ranks, local = c->ranksPerNode;
    if (with == GS_WITH_NODE)
        return (group){local, local - 1, 0};
    if (with == GS_WITH_PEERS)
        return (group){gsClusterNodes(c), 0, gsClusterNodes(c) - 1};
    return (group){ranks, local - 1, ranks - local};
}

/* ---- the closed forms ---- */

static double larger(double a, double b)
{
    return a > b ? a : b;
}

static double postedSeconds(const gsSchedule *s, const gsPhase *p)
{
    const gsCluster_t *c = &s->cluster;
    group g = groupOf(c, p->group);
    double o = c->message * p->pieces, local = c->ranksPerNode, inside = 0, outside = 0;
    if (g.inside > 0) {
        double m = p->bytes / c->nodeBandwidth, all = g.inside * m * loadOf(s, p, c->ranks, 1);
        inside = c->nodeLatency + larger((g.members - 1) * o + m, o + all);
    }
    if (g.outside > 0) {
        double m = p->bytes / c->bandwidth, all = local * g.outside * m * loadOf(s, p, gsClusterNodes(c), local);
        outside = c->latency + larger((g.members - 1) * o + m, o + all);
    }
    return larger(inside, outside);
}

static double ringSeconds(const gsSchedule *s, const gsPhase *p)
{
    const gsCluster_t *c = &s->cluster;
    group g = groupOf(c, p->group);
    double o = c->message * p->pieces, nodes = gsClusterNodes(c), m = p->bytes / c->bandwidth;
    double step = o + c->nodeLatency + p->bytes / c->nodeBandwidth, crossing = o + c->latency + m;
    if (g.outside == 0)
        return p->rounds * (g.members - 1) * step;
    if (p->group == GS_WITH_PEERS)
        return larger(p->rounds * (g.members - 1) * crossing + (c->ranksPerNode - 1) * m,
                      p->rounds * (g.members - 1) * c->ranksPerNode * m + o + c->latency);
    if (c->ranksPerNode == 1)
        return p->rounds * (g.members - 1) * crossing;
    double way = nodes * crossing + (g.members - 1 - nodes) * step;
    return p->rounds * larger(way, (g.members - 2) * larger(o, m) + crossing);
}

double gsTreeChunks(double bytes)
{
    enum { MOST = 64, LEAST_BYTES = 1 << 17 };
    double chunks = ceil(bytes / 2 / LEAST_BYTES);
    return chunks < 1 ? 1 : chunks < MOST ? chunks : MOST;
}

static double treeSeconds(const gsSchedule *s, const gsPhase *p)
{
    const gsCluster_t *c = &s->cluster;
    double nodes = gsClusterNodes(c), depth = ceil(log2(nodes)), forks = larger(0, log2(nodes) - 1);
    double links = c->ranksPerNode - 1, chunks = gsTreeChunks(p->bytes), chunk = p->bytes / 2 / chunks;
    double out = chunk / c->bandwidth, in = chunk / c->nodeBandwidth, o = c->message;
    double way = 2 * depth * (o + c->latency) + forks * (o + 4 * out) + (depth > 0 ? 2 * out : 0);
    double chain = 2 * links * (o + c->nodeLatency + in);
    double turn = larger(depth > 0 ? 4 * out : 0, links > 0 ? 4 * in : 0);
    return way + chain + (chunks - 1) * larger(turn, (links > 0 ? 6 : 4) * o);
}

double gsPhaseSeconds(const gsSchedule *s, const gsPhase *p)
{
    switch (p->kind) {
    case GS_PHASE_COMPUTE: return p->seconds * loadOf(s, p, s->cluster.ranks, 1);
    case GS_PHASE_POSTED: return postedSeconds(s, p);
    case GS_PHASE_RING: return ringSeconds(s, p);
    default: return treeSeconds(s, p);
    }
}

double gsScheduleSeconds(const gsSchedule *s)
{
    double seconds = 0;
    for (int i = 0; i < s->count; i++)
        seconds += gsPhaseSeconds(s, &s->phases[i]);
    return seconds;
}

double gsScheduleBytes(const gsSchedule *s)
{
    double bytes = 0;
    for (int i = 0; i < s->count; i++) {
        const gsPhase *p = &s->phases[i];
        double others = groupOf(&s->cluster, p->group).members - 1;
        if (p->announces || p->kind == GS_PHASE_COMPUTE)
            continue;
        bytes += p->bytes * (p->kind == GS_PHASE_TREE ? 2 * others / (others + 1) : p->rounds * others);
    }
    return bytes;
}

double gsScheduleNodeBytes(const gsSchedule *s)
{
    double bytes = 0, nodes = gsClusterNodes(&s->cluster), local = s->cluster.ranksPerNode;
    for (int i = 0; i < s->count; i++) {
        const gsPhase *p = &s->phases[i];
        group g = groupOf(&s->cluster, p->group);
        if (p->announces || p->kind == GS_PHASE_COMPUTE || g.outside == 0)
            continue;
        if (p->kind == GS_PHASE_TREE)
            bytes += p->bytes * 2 * (nodes - 1) / nodes;
        else if (p->kind == GS_PHASE_RING && p->group == GS_WITH_ALL)
            bytes += p->bytes * p->rounds * (g.members - 1); /* in one place of the ring */
        else
            bytes += p->bytes * p->rounds * local * g.outside;
    }
    return bytes;
}
