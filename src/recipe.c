/* Recipes: one line of text -> the pipeline's fields of a gsSpec. The names and keys are rules/rules.def. */
#include "core.h"

#include <ctype.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GS_KEY_DENSITY = 1, GS_KEY_TAU = 2, GS_KEY_K = 4, GS_KEY_VALUE = 8, GS_KEY_CAPACITY = 16 };

typedef struct {
    const char *name;
    uint32_t select, layout;
    uint8_t feedback, random;
    double density;
    int keys;
} recipeRow;

static const recipeRow recipes[] = {
#define GS_RECIPE(name, select, layout, feedback, random, density, keys) \
    {name, select, layout, feedback, random, density, keys},
#include "rules/rules.def"
};

static const struct {
    int bit;
    const char *text, *expected;
} keys[] = {
#define GS_KEY(bit, text, expected) {bit, text, expected},
#include "rules/rules.def"
};

enum { RECIPES = sizeof recipes / sizeof *recipes, KEYS = sizeof keys / sizeof *keys };

/* A list "a, b or c" of what could have stood there. */
static const char *listOf(char *text, size_t room, const char *(*item)(int), int n, int mask)
{
    size_t at = 0;
    text[0] = 0;
    for (int i = 0; i < n; i++)
        if (mask >> i & 1 && at < room)
            at += (size_t)snprintf(text + at, room - at, "%s%s", at ? ", " : "", item(i));
    return text;
}

static const char *recipeName(int i)
{
    return recipes[i].name;
}

static const char *keyText(int i)
{
    return keys[i].text;
}

/* Positions count from 1, in characters of the recipe. */
static gsResult_t unreadable(const char *recipe, const char *at, size_t length, const char *what, const char *expected)
{
    return gsFail(GS_ERROR_INVALID_RECIPE, "recipe \"%s\", position %d: %s \"%.*s\"; expected %s", recipe,
                  (int)(at - recipe) + 1, what, (int)length, at, expected);
}

static int readNumber(const char *text, size_t length, double *value)
{
    char copy[64], *end;
    if (length == 0 || length >= sizeof copy || isspace((unsigned char)text[0]))
        return 0;
    memcpy(copy, text, length);
    copy[length] = 0;
    locale_t plain = newlocale(LC_NUMERIC_MASK, "C", (locale_t)0); /* a point, whatever the program's language writes */
    *value = plain ? strtod_l(copy, &end, plain) : strtod(copy, &end);
    if (plain)
        freelocale(plain);
    return *end == 0 && isfinite(*value);
}

static int readValueCoding(const char *text, size_t length, uint32_t *value)
{
    static const char *const names[] = {[GS_VALUE_F32] = "f32", [GS_VALUE_BF16] = "bf16", [GS_VALUE_SHARED] = "shared"};
    for (uint32_t i = 0; i < 3; i++)
        if (strlen(names[i]) == length && strncmp(names[i], text, length) == 0) {
            *value = i;
            return 1;
        }
    return 0;
}

typedef struct {
    double density, tau, k, capacity;
    uint32_t value;
    int given; /* GS_KEY_ bits */
} recipeKeys;

static int takeValue(int bit, const char *text, size_t length, recipeKeys *k)
{
    double x;
    if (bit == GS_KEY_VALUE)
        return readValueCoding(text, length, &k->value);
    if (!readNumber(text, length, &x))
        return 0;
    switch (bit) {
    case GS_KEY_DENSITY: k->density = x; return x > 0 && x <= 1;
    case GS_KEY_CAPACITY: k->capacity = x; return x > 0 && x <= 1;
    case GS_KEY_TAU: k->tau = x; return x >= 0 && x <= 3.4e38;
    default: k->k = x; return x >= 1 && x <= GS_BLOCK && x == (int)x;
    }
}

/* One key=value at `at`; its end in *next. */
static gsResult_t readKey(const char *recipe, const recipeRow *row, const char *at, recipeKeys *k, const char **next)
{
    char list[160];
    const char *stop = at + strcspn(at, ",");
    const char *equals = memchr(at, '=', (size_t)(stop - at));
    size_t length = (size_t)((equals ? equals : stop) - at);
    *next = stop;
    for (int i = 0; i < KEYS; i++) {
        if (!(row->keys & keys[i].bit) || strlen(keys[i].text) != length || strncmp(keys[i].text, at, length) != 0)
            continue;
        if (!equals)
            return unreadable(recipe, at, length, "no value after", "KEY=VALUE");
        if (k->given & keys[i].bit)
            return unreadable(recipe, at, length, "repeated key", "each key once");
        k->given |= keys[i].bit;
        if (!takeValue(keys[i].bit, equals + 1, (size_t)(stop - equals - 1), k))
            return unreadable(recipe, equals + 1, (size_t)(stop - equals - 1), "value", keys[i].expected);
        return GS_SUCCESS;
    }
    int mask = 0;
    for (int i = 0; i < KEYS; i++)
        mask |= (row->keys & keys[i].bit ? 1 : 0) << i;
    return unreadable(recipe, at, length, "key",
                      mask ? listOf(list, sizeof list, keyText, KEYS, mask) : "no key for this recipe");
}

/* Settings that read well and cannot work. */
static gsResult_t checkSense(const char *recipe, const recipeRow *row, const recipeKeys *k)
{
    if (k->given & GS_KEY_TAU && k->given & GS_KEY_DENSITY)
        return gsFail(GS_ERROR_INVALID_RECIPE,
                      "recipe \"%s\": tau is fixed and density would move it; give one of them", recipe);
    if (k->given & GS_KEY_TAU && !(k->given & GS_KEY_CAPACITY))
        return gsFail(GS_ERROR_INVALID_RECIPE,
                      "recipe \"%s\": a fixed tau says nothing of a record's size; add capacity=C", recipe);
    if (k->value == GS_VALUE_SHARED && row->select != GS_SELECT_GSPAR)
        return gsFail(GS_ERROR_INVALID_RECIPE,
                      "recipe \"%s\": only gspar's values share a magnitude; expected value=f32 or bf16", recipe);
    return GS_SUCCESS;
}

static void fill(gsSpec *spec, const recipeRow *row, const recipeKeys *k)
{
    spec->select = row->select;
    spec->layout = row->layout;
    spec->feedback = row->feedback;
    spec->random = row->random;
    spec->value = k->value;
    spec->k = (uint32_t)k->k;
    spec->density = row->select == GS_SELECT_TOPK ? k->k / GS_BLOCK : k->density;
    spec->tau = k->given & GS_KEY_TAU ? (float)k->tau : -1.0f;
    spec->capacityShare = k->given & GS_KEY_CAPACITY ? k->capacity : 0.0;
}

gsResult_t gsRecipeParse(const char *recipe, gsSpec *spec)
{
    char list[160];
    size_t length = strcspn(recipe, ":");
    const recipeRow *row = NULL;
    for (int i = 0; i < RECIPES && !row; i++)
        if (strlen(recipes[i].name) == length && strncmp(recipes[i].name, recipe, length) == 0)
            row = &recipes[i];
    if (!row)
        return unreadable(recipe, recipe, length, "name",
                          listOf(list, sizeof list, recipeName, RECIPES, (1 << RECIPES) - 1));
    recipeKeys k = {.density = row->density, .k = 64, .value = GS_VALUE_BF16};
    for (const char *at = recipe + length; *at;)
        GS_CHECK(readKey(recipe, row, at + 1, &k, &at));
    GS_CHECK(checkSense(recipe, row, &k));
    fill(spec, row, &k);
    return GS_SUCCESS;
}
