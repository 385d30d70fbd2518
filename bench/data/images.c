/* images.c: finds, reads and checks the four idx files of a data set, gzipped or not. */
#include "images.h"

#include "train/failure.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

enum { PATH_LENGTH = 1024, MAX_DIMENSIONS = 4, IDX_UNSIGNED_BYTE = 8 };
#define MAX_BYTES (UINT64_C(1) << 34)

/* The content of one idx file: a count of items, each of `itemBytes` bytes with sides[1] .. sides[dimensions - 1]. */
typedef struct {
    uint32_t count;
    uint32_t itemBytes;
    uint32_t sides[MAX_DIMENSIONS];
    uint8_t *bytes;
} idx_t;

static const char *const knownSets[][2] = {
    {"fashion-mnist", "/usr/share/datasets/fashion-mnist"},
    {"mnist", NULL},
};

/* Downloads differ in the last separator, in a prefix with the set's name, and in whether they are unpacked. */
static const char *const namePatterns[] = {
    "%s/%s-idx%d-ubyte",
    "%s/%s-idx%d-ubyte.gz",
    "%s/%s.idx%d-ubyte",
    "%s/%s.idx%d-ubyte.gz",
};
enum { PATTERN_COUNT = sizeof namePatterns / sizeof namePatterns[0] };

static bool isFile(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

static bool isDirectory(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

static bool findFile(char *path, const char *directory, const char *set, const char *stem, int dimensions)
{
    char prefixed[64];
    snprintf(prefixed, sizeof prefixed, "%s-%s", set, stem);
    const char *stems[] = {stem, prefixed};
    for (int s = 0; s < 2; s++)
        for (int p = 0; p < PATTERN_COUNT; p++) {
            int length = snprintf(path, PATH_LENGTH, namePatterns[p], directory, stems[s], dimensions);
            if (length < PATH_LENGTH && isFile(path))
                return true;
        }
    bool packaged = strcmp(set, "fashion-mnist") == 0;
    return fail("%s: no file %s-idx%d-ubyte or %s-idx%d-ubyte.gz there%s", directory, stem, dimensions, stem,
                dimensions, packaged ? " (Debian: apt-get install dataset-fashion-mnist, or give --data-dir)" : "");
}

static uint32_t bigEndian(const uint8_t bytes[4])
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static bool readBytes(gzFile file, void *bytes, size_t count, const char *path, const char *what)
{
    for (size_t done = 0; done < count;) {
        size_t left = count - done;
        int got = gzread(file, (char *)bytes + done, left < (1u << 30) ? (unsigned)left : 1u << 30);
        if (got <= 0) {
            int code;
            const char *reason = gzerror(file, &code);
            return fail("%s: truncated or damaged: %zu of %zu bytes of its %s could be read%s%s", path, done, count,
                        what, code == Z_OK ? "" : "; zlib says: ", code == Z_OK ? "" : reason);
        }
        done += (size_t)got;
    }
    return true;
}

/* Magic 0, 0, type, dimensions; then each dimension, the count of items first. */
static bool readHeader(gzFile file, idx_t *idx, const char *path, int dimensions)
{
    uint8_t magic[4];
    uint8_t sizes[4 * MAX_DIMENSIONS];
    if (!readBytes(file, magic, 4, path, "magic number"))
        return false;
    if (bigEndian(magic) != (uint32_t)(IDX_UNSIGNED_BYTE << 8 | dimensions))
        return fail("%s: magic number 0x%08x, expected 0x%08x (idx, unsigned bytes, %d dimensions)", path,
                    bigEndian(magic), IDX_UNSIGNED_BYTE << 8 | dimensions, dimensions);
    if (!readBytes(file, sizes, 4 * (size_t)dimensions, path, "sizes"))
        return false;
    uint64_t itemBytes = 1;
    for (int d = 0; d < dimensions; d++)
        idx->sides[d] = bigEndian(sizes + 4 * d);
    for (int d = 1; d < dimensions; d++)
        itemBytes *= idx->sides[d] <= 1 << 15 ? idx->sides[d] : 0;
    idx->count = idx->sides[0];
    if (idx->count == 0 || itemBytes == 0 || itemBytes > 1 << 24 || idx->count * itemBytes > MAX_BYTES)
        return fail("%s: %u items of %" PRIu64 " bytes, expected 1 byte to 2^24 each, 2^34 in all, no side above 2^15",
                    path, idx->count, itemBytes);
    idx->itemBytes = (uint32_t)itemBytes;
    return true;
}

static bool readBody(gzFile file, idx_t *idx, const char *path)
{
    size_t bytes = (size_t)idx->count * idx->itemBytes;
    uint8_t extra;
    idx->bytes = malloc(bytes);
    if (!idx->bytes)
        return fail("%s: no memory for %zu bytes", path, bytes);
    if (!readBytes(file, idx->bytes, bytes, path, "items"))
        return false;
    if (gzread(file, &extra, 1) != 0)
        return fail("%s: longer than the %u items of %u bytes that its header names, or damaged at its end", path,
                    idx->count, idx->itemBytes);
    return true;
}

static bool readIdx(idx_t *idx, const char *path, int dimensions)
{
    gzFile file = gzopen(path, "rb");
    if (!file)
        return fail("%s: cannot be opened", path);
    bool done = readHeader(file, idx, path, dimensions) && readBody(file, idx, path);
    gzclose(file);
    return done;
}

static bool checkLabels(const images_t *images, const char *path)
{
    for (uint32_t i = 0; i < images->count; i++)
        if (images->labels[i] >= IMAGE_CLASSES)
            return fail("%s: label %u of item %u, expected 0 to %d", path, images->labels[i], i, IMAGE_CLASSES - 1);
    return true;
}

static bool loadImages(images_t *images, const char *directory, const char *set, const char *part)
{
    char stem[32], path[PATH_LENGTH];
    idx_t values = {0}, labels = {0};
    snprintf(stem, sizeof stem, "%s-images", part);
    bool done = findFile(path, directory, set, stem, 3) && readIdx(&values, path, 3);
    snprintf(stem, sizeof stem, "%s-labels", part);
    done = done && findFile(path, directory, set, stem, 1) && readIdx(&labels, path, 1);
    *images = (images_t){values.count, values.sides[1], values.sides[2], values.itemBytes, values.bytes, labels.bytes};
    if (done && values.count != labels.count)
        return fail("%s: %u labels for %u images, expected equally many", path, labels.count, values.count);
    return done && checkLabels(images, path);
}

/* Where the set lies, NULL with a failure text where that cannot be told; *set is its name, or "" for a directory. */
static const char *findDirectory(const char *name, const char *directory, const char **set)
{
    for (size_t i = 0; i < sizeof knownSets / sizeof knownSets[0]; i++) {
        if (strcmp(name, knownSets[i][0]) != 0)
            continue;
        *set = name;
        if (!directory && !knownSets[i][1])
            fail("--data %s: no package brings these files; give --data-dir DIR", name);
        return directory ? directory : knownSets[i][1];
    }
    *set = "";
    if (directory) {
        fail("--data: got '%s' beside --data-dir, expected fashion-mnist or mnist", name);
        return NULL;
    }
    if (!isDirectory(name)) {
        fail("--data: got '%s', expected fashion-mnist, mnist or a directory", name);
        return NULL;
    }
    return name;
}

static float meanValue(const images_t *images)
{
    size_t values = (size_t)images->count * images->pixels;
    uint64_t sum = 0;
    for (size_t i = 0; i < values; i++)
        sum += images->values[i];
    return (float)((double)sum / (double)values);
}

bool datasetLoad(dataset_t *dataset, const char *name, const char *directory)
{
    const char *set;
    *dataset = (dataset_t){0};
    directory = findDirectory(name, directory, &set);
    if (!directory)
        return false;
    if (!loadImages(&dataset->train, directory, set, "train") || !loadImages(&dataset->test, directory, set, "t10k"))
        return false;
    const images_t *train = &dataset->train, *test = &dataset->test;
    if (train->height != test->height || train->width != test->width)
        return fail("%s: training images of %u x %u pixels, test images of %u x %u, expected the same", directory,
                    train->height, train->width, test->height, test->width);
    dataset->mean = meanValue(&dataset->train);
    return true;
}

static void imagesFree(images_t *images)
{
    free(images->values);
    free(images->labels);
}

void datasetFree(dataset_t *dataset)
{
    imagesFree(&dataset->train);
    imagesFree(&dataset->test);
}
