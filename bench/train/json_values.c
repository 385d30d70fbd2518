/* json_values.c: JSON's texts and numbers, and the file around a list. */
#include "json_values.h"

#include "failure.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
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

void jsonReal(FILE *file, const char *lead, const char *name, double number)
{
    fprintf(file, "%s\"%s\": ", lead, name);
    writeNumber(file, number);
}

void jsonCount(FILE *file, const char *lead, const char *name, uint64_t count)
{
    fprintf(file, "%s\"%s\": %" PRIu64, lead, name, count);
}

void jsonString(FILE *file, const char *lead, const char *name, const char *text)
{
    fprintf(file, "%s\"%s\": ", lead, name);
    writeText(file, text);
}

bool jsonWriteList(const char *path, jsonItem_t writeItem, const void *items, int count)
{
    FILE *file = fopen(path, "w");
    if (!file)
        return fail("--json %s: %s", path, strerror(errno));
    fputs("[\n", file);
    for (int i = 0; i < count; i++) {
        writeItem(file, items, i);
        fputs(i + 1 < count ? ",\n" : "\n", file);
    }
    fputs("]\n", file);
    bool written = !ferror(file);
    if (fclose(file) || !written)
        return fail("--json %s: %s", path, strerror(errno));
    return true;
}
