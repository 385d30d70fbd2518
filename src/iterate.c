/* What the caller tells a reducer beside gradients, and asks of it: the iterate, whose turn it is, what is remembered. */
#include "core.h"

#include <string.h>

static gsResult_t checkParams(gsReducer_t r, const gsParams_t *p)
{
    if (p->size != sizeof *p)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "params->size is %zu; expected %zu: begin with GS_PARAMS_INIT",
                      p->size, sizeof *p);
    if (p->version / 100 != GS_VERSION_CODE / 100)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "params->version is %u; this library is %d", p->version,
                      GS_VERSION_CODE);
    if (!gsIsFloating(p->datatype))
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "params->datatype is %d; expected a floating type", p->datatype);
    if (!p->params && r->spec.count)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "params->params is NULL; expected the iterate");
    if ((uintptr_t)p->params % gsTypeBytes(p->datatype) || (uintptr_t)p->xi % gsTypeBytes(p->datatype))
        return gsFail(GS_ERROR_INVALID_ARGUMENT,
                      "params->params is %p and params->xi %p; expected multiples of %zu, the element's size",
                      p->params, p->xi, gsTypeBytes(p->datatype));
    if (!(p->stepSize >= 0) || !isfinite(p->stepSize) || !(p->smoothness >= 0) || !isfinite(p->smoothness))
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "stepSize is %g and smoothness %g; expected finite numbers, 0 or more",
                      p->stepSize, p->smoothness);
    if (r->spec.trigger == GS_TRIGGER_STALE && (uintptr_t)p->stale % gsTypeBytes(r->spec.type))
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "params->stale is %p; expected a multiple of %zu, the element's size",
                      p->stale, gsTypeBytes(r->spec.type));
    if (r->spec.trigger == GS_TRIGGER_STALE && !p->stale && r->spec.count)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "params->stale is NULL; lasg-wk compares with the gradient there");
    if (r->spec.trigger && !(p->stepSize > 0))
        return gsFail(GS_ERROR_INVALID_ARGUMENT,
                      "stepSize is %g; this recipe divides iterates' steps by it, expected it above 0", p->stepSize);
    if (r->spec.trigger == GS_TRIGGER_SERVER && !(p->smoothness > 0))
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "smoothness is %g; lag-ps decides by it, expected it above 0",
                      p->smoothness);
    return GS_SUCCESS;
}

gsResult_t gsReducerSetParams(gsReducer_t r, const gsParams_t *params)
{
    GS_CHECK(gsCheckReducer(r));
    if (!params)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "params is NULL; expected GS_PARAMS_INIT and the iterate");
    if (r->spec.tensors)
        return gsFail(GS_ERROR_UNSUPPORTED, "the reducer is of a list of tensors, whose recipes look at no iterate");
    GS_CHECK(checkParams(r, params));
    uint64_t skipped = gsHierarchyFirst(r) * gsTypeBytes(params->datatype);
    r->params = (const char *)params->params + skipped;
    r->xi = params->xi ? (const char *)params->xi + skipped : NULL;
    r->stale = params->stale;
    r->spec.iterate = 1;
    r->spec.paramsType = params->datatype;
    r->spec.stepSize = params->stepSize;
    r->spec.smoothness = params->smoothness;
    return GS_SUCCESS;
}

gsResult_t gsReducerWantsGradient(gsReducer_t r, int *wants)
{
    GS_CHECK(gsCheckReducer(r));
    if (!wants)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "wants is NULL; expected a place for the answer");
    *wants = 1;
    if (r->spec.trigger != GS_TRIGGER_SERVER)
        return GS_SUCCESS;
    if (!r->spec.iterate)
        return gsFail(GS_ERROR_INVALID_USAGE,
                      "lag-ps compares iterates; call gsReducerSetParams before gsReducerWantsGradient");
    return r->comm->backend->wantsGradient(r, wants);
}

gsResult_t gsReducerSetParticipation(gsReducer_t r, int takesPart)
{
    GS_CHECK(gsCheckReducer(r));
    if (!r->spec.memory)
        return gsFail(
            GS_ERROR_UNSUPPORTED,
            "only a recipe that remembers h (ef21, diana, cdadam, gdsec, lag and its kin) can do without a rank");
    if (r->nodes.ranks > 1)
        return gsFail(GS_ERROR_UNSUPPORTED, "with exchange=hierarchical a node's sum needs all of its ranks");
    if (r->spec.layout == GS_LAYOUT_MASK)
        return gsFail(GS_ERROR_UNSUPPORTED,
                      "randk's mask is drawn by all ranks together; a rank that is left out needs select=uniform");
    r->spec.absent = !takesPart;
    return GS_SUCCESS;
}

static const gsStateVector *findVector(const gsStateVector *list, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (strcmp(list[i].name, name) == 0)
            return &list[i];
    return NULL;
}

/* Tensors begin at blocks; their elements go one behind the other. */
static gsResult_t readList(gsReducer_t r, const char *vector, uint32_t tensors, char *values)
{
    size_t width = gsRealBytes(&r->spec);
    for (uint32_t t = 0; t < tensors; t++) {
        GS_CHECK(r->comm->backend->get(values, vector, r->sizes[t] * width, NULL));
        values += r->sizes[t] * width;
        vector += (r->sizes[t] + GS_BLOCK - 1) / GS_BLOCK * GS_BLOCK * width;
    }
    return GS_SUCCESS;
}

/* Tensors that a vector is of; of one gradient none. A scattered H is of the own slice, a gathered one of all. */
static uint32_t tensorsOf(const gsReducer_t r, const gsStateVector *v)
{
    if (!r->spec.half || v->place != &r->shared)
        return r->spec.tensors;
    return r->spec.half == GS_HALF_GATHER ? r->spec.nranks : 1;
}

gsResult_t gsReducerRead(gsReducer_t r, const char *name, void *values, size_t count)
{
    gsStateVector list[GS_MAX_VECTORS];
    gsState state;
    GS_CHECK(gsCheckReducer(r));
    if (!name || !values)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "%s is NULL; expected %s", name ? "values" : "name",
                      name ? "a place for the vector" : "a vector's name");
    if (strncmp(name, "server.", 7) == 0 && r->server)
        return gsReducerRead(r->server, name + 7, values, count);
    int n = gsListVectors(r, list);
    const gsStateVector *v = findVector(list, n, name);
    if (!v)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "this recipe remembers no \"%s\"", name);
    /* An owner's H is of its blocks; a list's tensors come without their blocks' rest, and of a history its first. */
    uint32_t tensors = tensorsOf(r, v);
    uint64_t elements = v->place == &r->shared && !tensors ? r->sharedCount : r->spec.count;
    if (r->spec.half)
        elements = tensors * gsSliceCount(&r->spec);
    if (count != elements)
        return gsFail(GS_ERROR_INVALID_ARGUMENT, "count is %zu; \"%s\" has %llu elements", count, name,
                      (unsigned long long)elements);
    GS_CHECK(r->comm->backend->get(&state, r->state, sizeof state, NULL));
    const char *vector = gsVectorNow(v, state.phase);
    if (tensors)
        return readList(r, vector, tensors, values);
    return r->comm->backend->get(values, vector, count * gsRealBytes(&r->spec), NULL);
}
