/* An owner's share of a call whose sums it keeps or compresses again: what its blocks' sum becomes, and what is remembered once the call has succeeded. */
#include "stages.h"

/* H + nu sum, or the sum, times what the average asks for. */
void GS_STAGE(gsMakeResult)(gsReducer_t r, gsRedOp_t op)
{
    const gsReal *sum = r->ownSum, *all = r->shared;
    gsReal *result = r->ownResult, nu = (gsReal)r->spec.nu;
    gsReal factor = op == GS_AVG ? (gsReal)1 / (gsReal)r->spec.nranks : (gsReal)1;
    uint64_t n = gsPartCount(&r->spec, r->spec.rank);
    GS_PRAGMA(omp parallel for schedule(static) num_threads(r->cpuThreads) if (r->cpuThreads > 1))
    for (uint64_t i = 0; i < n; i++)
        result[i] = (r->spec.memory ? all[i] + nu * sum[i] : sum[i]) * factor;
}

/* h takes its share of the own record, which stands in `work`, and H of the own blocks' sum. */
void GS_STAGE(gsRememberParts)(gsReducer_t r)
{
    const gsReal *own = r->work, *sum = r->ownSum;
    gsReal *h = r->memory, *all = r->shared, lambda = (gsReal)r->spec.lambda;
    uint64_t n = gsPartCount(&r->spec, r->spec.rank);
    GS_PRAGMA(omp parallel for schedule(static) num_threads(r->cpuThreads) if (r->cpuThreads > 1))
    for (uint64_t i = 0; i < gsVectorElements(&r->spec); i++)
        h[i] += lambda * own[i];
    GS_PRAGMA(omp parallel for schedule(static) num_threads(r->cpuThreads) if (r->cpuThreads > 1))
    for (uint64_t i = 0; i < n; i++)
        all[i] += lambda * sum[i];
}
