/* Parts of a communicator: who is in them, and in what order. */
#include "core.h"

#include <stdlib.h>

typedef struct {
    int color, key, rank;
} choice;

static int compareChoices(const void *left, const void *right)
{
    const choice *a = left, *b = right;
    if (a->color != b->color)
        return a->color < b->color ? -1 : 1;
    if (a->key != b->key)
        return a->key < b->key ? -1 : 1;
    return (a->rank > b->rank) - (a->rank < b->rank);
}

/* From the sorted choices of all ranks to this rank's part. */
static gsResult_t makePart(gsComm_t parent, const choice *all, int color, gsComm_t *part)
{
    int first = 0, n = 0;
    while (all[first].color != color)
        first++;
    while (first + n < parent->nranks && all[first + n].color == color)
        n++;
    gsComm_t made = calloc(1, sizeof *made);
    int *members = calloc((size_t)n, sizeof *members);
    if (!made || !members) {
        free(made);
        free(members);
        return gsFail(GS_ERROR_OUT_OF_MEMORY, "no memory for a part of %d ranks", n);
    }
    *made = (struct gsComm){.transport = parent->transport,
                            .backend = parent->backend,
                            .nranks = n,
                            .localRanks = parent->localRanks,
                            .parent = parent,
                            .members = members,
                            .color = color,
                            .split = parent->parts ? parent->parts->split + 1 : 1,
                            .next = parent->parts};
    for (int i = 0; i < n; i++) {
        members[i] = all[first + i].rank;
        if (members[i] == parent->rank)
            made->rank = i;
    }
    parent->parts = made;
    *part = made;
    return GS_SUCCESS;
}

gsResult_t gsCommMakePart(gsComm_t parent, int color, int key, gsComm_t *part)
{
    choice own = {color, key, parent->rank};
    choice *all = calloc((size_t)parent->nranks, sizeof *all);
    *part = NULL;
    if (!all)
        return gsFail(GS_ERROR_OUT_OF_MEMORY, "no memory to split %d ranks", parent->nranks);
    gsResult_t result = parent->transport->allGatherHost(parent, &own, all, sizeof own);
    if (result == GS_SUCCESS) {
        qsort(all, (size_t)parent->nranks, sizeof *all, compareChoices);
        result = makePart(parent, all, color, part);
    }
    free(all);
    return result;
}

void gsCommFreeParts(gsComm_t parent)
{
    while (parent->parts) {
        gsComm_t part = parent->parts;
        parent->parts = part->next;
        free(part->members);
        free(part);
    }
}
