/*
 * json.c: writes the runs as a list with one object each. Totals are over the whole run,
 * bytes and seconds those of rank 0, skipped rounds those of all ranks.
 */
#include "json.h"

#include "json_values.h"

#include <inttypes.h>

static void writeEpoch(FILE *file, const epoch_t *epoch, const measure_t *measure)
{
    jsonReal(file, "{", "loss", epoch->loss);
    jsonReal(file, ", ", measure->key, epoch->measure);
    jsonReal(file, ", ", "density", epoch->density);
    jsonCount(file, ", ", "payload_bytes", epoch->payloadBytes);
    jsonCount(file, ", ", "wire_bytes", epoch->wireBytes);
    if (epoch->skippedRounds)
        jsonCount(file, ", ", "skipped_rounds", epoch->skippedRounds);
    jsonReal(file, ", \"seconds\": {", "compute", epoch->compute);
    jsonReal(file, ", ", "encode", epoch->encode);
    jsonReal(file, ", ", "exchange", epoch->exchange);
    jsonReal(file, ", ", "decode", epoch->decode);
    jsonReal(file, ", ", "exposed", epoch->exposed);
    fputs("}}", file);
}

static void writeRun(FILE *file, const void *runs, int index)
{
    static const char *const ways[] = {"whole", "by layer, after the backward pass",
                                       "by layer, during the backward pass"};
    const run_t *run = (const run_t *)runs + index;
    epoch_t total = runTotal(run);
    jsonString(file, "  {", "recipe", run->recipe);
    jsonString(file, ",\n   ", "exchanged", ways[run->way]);
    jsonCount(file, ",\n   ", "ranks", (uint64_t)run->ranks);
    jsonString(file, ",\n   ", "model", run->model->type->name);
    jsonString(file, ",\n   ", "tested_on", run->model->ownTest ? "test" : "training");
    jsonCount(file, ",\n   ", "parameters", run->model->parameters);
    jsonCount(file, ",\n   ", "steps", run->steps);
    jsonCount(file, ",\n   ", "payload_bytes_per_rank", total.payloadBytes);
    jsonCount(file, ",\n   ", "wire_bytes_per_rank", total.wireBytes);
    if (total.skippedRounds)
        jsonCount(file, ",\n   ", "skipped_rounds", total.skippedRounds);
    jsonReal(file, ",\n   ", "dense_wire_bytes_fp32", runDenseBytes(run, 4));
    jsonReal(file, ",\n   ", "dense_wire_bytes_bf16", runDenseBytes(run, 2));
    jsonReal(file, ",\n   ", "density_after_100_steps", run->settledDensity);
    jsonReal(file, ",\n   ", "step_ms", runStepTime(run));
    jsonReal(file, ",\n   ", "exposed_ms", runExposedTime(run));
    fputs(",\n   \"epochs\": [", file);
    for (int e = 0; e < run->epochCount; e++) {
        fputs(e ? ",\n    " : "\n    ", file);
        writeEpoch(file, &run->epochs[e], run->model->type->measure);
    }
    fputs("],\n   \"parameters_hash\": [", file);
    for (int r = 0; r < run->ranks; r++)
        fprintf(file, "%s\"%016" PRIx64 "\"", r ? ", " : "", run->hashes[r]);
    fputs("]}", file);
}

bool jsonWrite(const char *path, const run_t *runs, int count)
{
    return jsonWriteList(path, writeRun, runs, count);
}
