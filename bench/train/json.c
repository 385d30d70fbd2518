/*
 * json.c: writes the runs as a list with one object each. Totals are over the whole run,
 * bytes and seconds those of rank 0.
 */
#include "json.h"

#include "failure.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static void writeText(FILE *file, const char *text)
{
    putc('"', file);
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c < 0x20)
            fprintf(file, "\\u%04x", c);
        else if (c == '"' || c == '\\')
            fprintf(file, "\\%c", c);
        else
            putc(c, file);
    }
    putc('"', file);
}

/* JSON has no word for NaN and infinity. */
static void writeNumber(FILE *file, double number)
{
    if (isfinite(number))
        fprintf(file, "%.12g", number);
    else
        fputs("null", file);
}

static void writeReal(FILE *file, const char *lead, const char *name, double number)
{
    fprintf(file, "%s\"%s\": ", lead, name);
    writeNumber(file, number);
}

static void writeCount(FILE *file, const char *lead, const char *name, uint64_t count)
{
    fprintf(file, "%s\"%s\": %" PRIu64, lead, name, count);
}

static void writeString(FILE *file, const char *lead, const char *name, const char *text)
{
    fprintf(file, "%s\"%s\": ", lead, name);
    writeText(file, text);
}

static void writeEpoch(FILE *file, const epoch_t *epoch)
{
    writeReal(file, "{", "loss", epoch->loss);
    writeReal(file, ", ", "accuracy", epoch->accuracy);
    writeReal(file, ", ", "density", epoch->density);
    writeCount(file, ", ", "payload_bytes", epoch->payloadBytes);
    writeCount(file, ", ", "wire_bytes", epoch->wireBytes);
    writeReal(file, ", \"seconds\": {", "compute", epoch->compute);
    writeReal(file, ", ", "encode", epoch->encode);
    writeReal(file, ", ", "exchange", epoch->exchange);
    writeReal(file, ", ", "decode", epoch->decode);
    fputs("}}", file);
}

static void writeRun(FILE *file, const run_t *run)
{
    epoch_t total = runTotal(run);
    writeString(file, "  {", "recipe", run->recipe);
    writeCount(file, ",\n   ", "ranks", (uint64_t)run->ranks);
    writeString(file, ",\n   ", "model", run->model);
    writeCount(file, ",\n   ", "parameters", run->parameters);
    writeCount(file, ",\n   ", "steps", run->steps);
    writeCount(file, ",\n   ", "payload_bytes_per_rank", total.payloadBytes);
    writeCount(file, ",\n   ", "wire_bytes_per_rank", total.wireBytes);
    writeReal(file, ",\n   ", "dense_wire_bytes_fp32", runDenseBytes(run, 4));
    writeReal(file, ",\n   ", "dense_wire_bytes_bf16", runDenseBytes(run, 2));
    writeReal(file, ",\n   ", "density_after_100_steps", run->settledDensity);
    fputs(",\n   \"epochs\": [", file);
    for (int e = 0; e < run->epochCount; e++) {
        fputs(e ? ",\n    " : "\n    ", file);
        writeEpoch(file, &run->epochs[e]);
    }
    fputs("],\n   \"parameters_hash\": [", file);
    for (int r = 0; r < run->ranks; r++)
        fprintf(file, "%s\"%016" PRIx64 "\"", r ? ", " : "", run->hashes[r]);
    fputs("]}", file);
}

bool jsonWrite(const char *path, const run_t *runs, int count)
{
    FILE *file = fopen(path, "w");
    if (!file)
        return fail("--json %s: %s", path, strerror(errno));
    fputs("[\n", file);
    for (int i = 0; i < count; i++) {
        writeRun(file, &runs[i]);
        fputs(i + 1 < count ? ",\n" : "\n", file);
    }
    fputs("]\n", file);
    bool written = !ferror(file);
    if (fclose(file) || !written)
        return fail("--json %s: %s", path, strerror(errno));
    return true;
}
