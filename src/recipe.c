/* Recipes: one line of text -> the pipeline's fields of a gsSpec. The names and keys are rules/rules.def. */
#include "core.h"

#include <ctype.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A bit for each row of GS_KEY, in its order. */
enum {
#define GS_KEY(bit, text, expected) bit##_AT,
#include "rules/rules.def"
    KEYS
};
enum {
#define GS_KEY(bit, text, expected) bit = (int)(1u << bit##_AT),
#include "rules/rules.def"
};

enum {
    GS_DOES_FEEDBACK = 1, /* e */
    GS_DOES_MEMORY = 2,   /* h and H */
    GS_DOES_MOMENTUM = 4, /* u */
    GS_DOES_TWOWAY = 8,
    GS_DOES_FIRST_DENSE = 16,
    GS_DOES_WORKER_TRIGGER = 32,
    GS_DOES_SERVER_TRIGGER = 64,
    GS_DOES_EXACT = 128,
    GS_DOES_COMPARE = 256, /* with a pool of references */
    GS_DOES_DAMP = 512,    /* lambda is 1/(1 + omega) by default: the compressor is unbiased */
    GS_DOES_STALE_TRIGGER = 1024,
    GS_DOES_CODED_TRIGGER = 2048,
    GS_DOES_CHANGE_TRIGGER = 4096,
    GS_DOES_TRIGGER = GS_DOES_WORKER_TRIGGER | GS_DOES_SERVER_TRIGGER | GS_DOES_STALE_TRIGGER | GS_DOES_CODED_TRIGGER |
                      GS_DOES_CHANGE_TRIGGER,
    GS_DOES_LOSE_NOTHING = 8192
};

/* What a value coding is by default, before the gradient's type is looked at. */
enum { GS_VALUE_HALF = 100, GS_VALUE_FULL = 101, GS_VALUE_OWN = 102 };

typedef struct {
    const char *name;
    uint32_t select, layout, value;
    uint8_t unbiased;
    double density;
    int keys;
} compressorRow;

static const compressorRow compressors[] = {
#define GS_COMPRESSOR(name, select, layout, value, unbiased, density, keys) \
    {name, select, layout, value, unbiased, density, keys},
#include "rules/rules.def"
};

typedef struct {
    const char *name, *compressor;
    int does, keys;
} recipeRow;

static const recipeRow recipes[] = {
#define GS_RECIPE(name, compressor, does, keys) {name, compressor, does, keys},
#include "rules/rules.def"
};

static const struct {
    const char *text, *expected;
} keys[] = {
#define GS_KEY(bit, text, expected) {text, expected},
#include "rules/rules.def"
};

enum { RECIPES = sizeof recipes / sizeof *recipes, COMPRESSORS = sizeof compressors / sizeof *compressors };
enum { OWN_COMPRESSORS = 2 }; /* the last ones are one recipe's own */
_Static_assert(KEYS <= 32, "a bit a key");

/* What was read, before it is a spec. */
typedef struct {
    const char *text; /* the recipe */
    const recipeRow *recipe;
    const compressorRow *compressor;
    int given;           /* GS_KEY_ bits */
    double number[KEYS]; /* of keys that are numbers */
    uint32_t value, references;
} reading;

/* ---- words ---- */

/* A list "a, b, c" of what could have stood there. */
static const char *listOf(char *text, size_t room, const char *(*item)(int), int n, int64_t mask)
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

static const char *compressorName(int i)
{
    return compressors[i].name;
}

static const char *keyText(int i)
{
    return keys[i].text;
}

/* The place of a word among n names; -1 if it is none of them. */
static int wordAmong(const char *text, size_t length, const char *(*item)(int), int n)
{
    for (int i = 0; i < n; i++)
        if (strlen(item(i)) == length && strncmp(item(i), text, length) == 0)
            return i;
    return -1;
}

/* Positions count from 1, in characters of the recipe. */
static gsResult_t unreadable(const reading *in, const char *at, size_t length, const char *what, const char *expected)
{
    return gsFail(GS_ERROR_INVALID_RECIPE, "recipe \"%s\", position %d: %s \"%.*s\"; expected %s", in->text,
                  (int)(at - in->text) + 1, what, (int)length, at, expected);
}

static gsResult_t senseless(const reading *in, const char *why)
{
    return gsFail(GS_ERROR_INVALID_RECIPE, "recipe \"%s\": %s", in->text, why);
}

/* ---- values of keys ---- */

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

static const char *valueName(int i)
{
    static const char *const names[GS_VALUES] = {
        [GS_VALUE_F32] = "f32", [GS_VALUE_BF16] = "bf16",     [GS_VALUE_SHARED] = "shared", [GS_VALUE_F64] = "f64",
        [GS_VALUE_F16] = "f16", [GS_VALUE_LEVELS] = "levels", [GS_VALUE_BOOK] = "2bit"};
    return names[i] ? names[i] : "";
}

static const char *referenceName(int i)
{
    static const char *const names[GS_MAX_POOL] = {"zero", "mean",   "last",   "ema",
                                                   "ema2", "window", "params", "snapshot"};
    return names[i];
}

/* Words joined by +. */
static int readReferences(const char *text, size_t length, uint32_t *references)
{
    const char *end = text + length;
    while (text < end) {
        const char *plus = memchr(text, '+', (size_t)(end - text));
        size_t word = (size_t)((plus ? plus : end) - text);
        int which = wordAmong(text, word, referenceName, GS_MAX_POOL);
        if (which < 0 || (plus && plus + 1 == end))
            return 0;
        *references |= 1u << which;
        text += word + 1;
    }
    return length > 0;
}

/* The words that stand for a number, in the order of the numbers from 0. */
static int readChoice(const char *words, const char *text, size_t length, double *value)
{
    for (int i = 0; *words; i++) {
        size_t n = strcspn(words, "|");
        if (n == length && strncmp(words, text, n) == 0) {
            *value = i;
            return 1;
        }
        words += n + (words[n] == '|');
    }
    return 0;
}

static int takeValue(int key, const char *text, size_t length, reading *in)
{
    double *x = &in->number[key];
    int which;
    switch (key) {
    case GS_KEY_VALUE_AT:
        return (which = wordAmong(text, length, valueName, GS_VALUES)) >= 0 && length &&
               ((in->value = (uint32_t)which), 1);
    case GS_KEY_SELECT_AT: return in->compressor != NULL; /* read before */
    case GS_KEY_REFERENCE_AT: return readReferences(text, length, &in->references);
    case GS_KEY_BUCKET_AT: return readChoice("4096|all", text, length, x);
    case GS_KEY_EXCHANGE_AT: return readChoice("capacity|exact|owner|owner-exact|hierarchical|auto", text, length, x);
    case GS_KEY_FIRST_AT: return readChoice("zero|dense", text, length, x);
    case GS_KEY_MODE_AT: return readChoice("difference|quotient", text, length, x);
    case GS_KEY_SEARCH_AT: return readChoice("none|worker|hindsight|fit", text, length, x);
    case GS_KEY_TWOWAY_AT:
    case GS_KEY_EC_AT: return readChoice("0|1", text, length, x);
    default: break;
    }
    if (!readNumber(text, length, x))
        return 0;
    switch (key) {
    case GS_KEY_TAU_AT:
    case GS_KEY_RMS_AT:
    case GS_KEY_CLIP_AT:
    case GS_KEY_XI_AT: return *x >= 0 && *x <= 3.4e38;
    case GS_KEY_EPSILON_AT: return *x > 0 && *x <= 3.4e38;
    case GS_KEY_MOMENTUM_AT: return *x >= 0 && *x < 1;
    case GS_KEY_WIDTH_AT:
    case GS_KEY_K_AT: return *x >= 1 && *x <= 4294967295.0 && *x == floor(*x);
    case GS_KEY_LEVELS_AT: return *x >= 1 && *x <= 127 && *x == floor(*x);
    case GS_KEY_WINDOW_AT: return *x >= 1 && *x <= GS_MAX_WINDOW && *x == floor(*x);
    case GS_KEY_STALENESS_AT:
    case GS_KEY_WARMUP_AT:
    case GS_KEY_PARTICIPATE_AT:
    case GS_KEY_RESYNC_AT:
    case GS_KEY_REFRESH_AT: return *x >= 0 && *x <= 4294967295.0 && *x == floor(*x);
    default: return *x > 0 && *x <= 1;
    }
}

/* ---- the line ---- */

/* Keys that this recipe takes, with its compressor. */
static int keysOf(const reading *in)
{
    int all = in->recipe->keys | (in->compressor ? in->compressor->keys | GS_KEY_EXCHANGE : 0);
    int own = in->recipe->does & (GS_DOES_TWOWAY | GS_DOES_TRIGGER | GS_DOES_COMPARE | GS_DOES_LOSE_NOTHING);
    return in->compressor && !own ? all | GS_KEY_TWOWAY : all;
}

static size_t keyLength(const char *at)
{
    return strcspn(at, ",=");
}

/* `select` decides which keys there are: it is read first, wherever it stands. */
static gsResult_t readCompressor(reading *in, const char *line)
{
    char list[200];
    const char *name = in->recipe->compressor;
    size_t length = strlen(name);
    for (const char *at = line; *at == ':' || *at == ','; at += 1 + strcspn(at + 1, ",")) {
        if (!(in->recipe->keys & GS_KEY_SELECT) || strncmp(at + 1, "select=", 7) != 0)
            continue;
        name = at + 8;
        length = strcspn(name, ",");
        break;
    }
    int which = wordAmong(name, length, compressorName, COMPRESSORS);
    if (which < 0 && length)
        return unreadable(in, name, length, "compressor",
                          listOf(list, sizeof list, compressorName, COMPRESSORS - OWN_COMPRESSORS, -1));
    in->compressor = which < 0 ? NULL : &compressors[which];
    return GS_SUCCESS;
}

/* One key=value at `at`; its end in *next. */
static gsResult_t readKey(reading *in, const char *at, const char **next)
{
    char list[300];
    const char *stop = at + strcspn(at, ",");
    size_t length = keyLength(at);
    int taken = keysOf(in), key = wordAmong(at, length, keyText, KEYS);
    *next = stop;
    if (key < 0 || !(taken >> key & 1))
        return unreadable(in, at, length, "key",
                          taken ? listOf(list, sizeof list, keyText, KEYS, taken) : "no key for this recipe");
    if (at[length] != '=')
        return unreadable(in, at, length, "no value after", "KEY=VALUE");
    if (in->given >> key & 1)
        return unreadable(in, at, length, "repeated key", "each key once");
    in->given |= (int)(1u << key);
    at += length + 1;
    if (!takeValue(key, at, (size_t)(stop - at), in))
        return unreadable(in, at, (size_t)(stop - at), "value", keys[key].expected);
    return GS_SUCCESS;
}

/* ---- sense ---- */

static gsResult_t checkCompressor(const reading *in)
{
    const compressorRow *c = in->compressor;
    int does = in->recipe->does, identity = c->select == GS_SELECT_ALL && c->value == GS_VALUE_FULL;
    if (c->select == GS_SELECT_STEP && strcmp(in->recipe->compressor, "step") != 0)
        return senseless(in, "step is gdsec's own compressor");
    if (c->select == GS_SELECT_ROWS && !(does & GS_DOES_LOSE_NOTHING))
        return senseless(in, "rows loses nothing that could be remembered; expected \"rows:width=W\"");
    if (does & GS_DOES_DAMP && !c->unbiased)
        return senseless(in,
                         "this recipe takes an unbiased compressor: gspar, randk, uniform, ternary, levels or natural");
    if (does & GS_DOES_MEMORY && !(does & GS_DOES_DAMP) && c->unbiased && !identity)
        return senseless(
            in, "this recipe takes a contractive compressor: threshold, topk, chunk-topk, sign or grid; unbiased ones "
                "go with diana");
    if (does & GS_DOES_MOMENTUM && c->layout == GS_LAYOUT_ALL)
        return senseless(in, "momentum correction takes a compressor that selects: topk, chunk-topk or threshold");
    if (does & GS_DOES_MOMENTUM && c->unbiased)
        return senseless(in, "momentum correction takes a contractive compressor: topk, chunk-topk or threshold");
    return GS_SUCCESS;
}

static gsResult_t checkThreshold(const reading *in)
{
    int ways = !!(in->given & GS_KEY_TAU) + !!(in->given & GS_KEY_DENSITY) + !!(in->given & GS_KEY_RMS);
    if (in->compressor->select == GS_SELECT_THRESHOLD && ways > 1)
        return senseless(in, "tau, rms and density each decide alone what travels; give one of them");
    if (in->given & (GS_KEY_TAU | GS_KEY_RMS) && !(in->given & GS_KEY_CAPACITY))
        return senseless(in, "tau and rms say nothing of a record's size; add capacity=C");
    if (in->given & GS_KEY_EPSILON && in->given & GS_KEY_DENSITY)
        return senseless(in, "epsilon bounds the variance and density the size; give one of them");
    if (in->given & GS_KEY_EPSILON && !(in->given & GS_KEY_CAPACITY))
        return senseless(in, "epsilon says nothing of a record's size; add capacity=C");
    if (in->compressor->select == GS_SELECT_LARGEST && in->given & GS_KEY_K && in->given & GS_KEY_DENSITY)
        return senseless(in, "k and density both say how many travel; give one of them");
    if (in->compressor->select == GS_SELECT_TOPK && in->number[GS_KEY_K_AT] > GS_BLOCK)
        return senseless(in, "chunk-topk's k is at most 4096");
    return GS_SUCCESS;
}

static gsResult_t checkValues(const reading *in)
{
    uint32_t select = in->compressor->select;
    if (!(in->given & GS_KEY_VALUE))
        return in->given & GS_KEY_LEVELS && select == GS_SELECT_STEP ? senseless(in, "levels belong to value=levels")
                                                                     : GS_SUCCESS;
    if (in->value == GS_VALUE_SHARED && select != GS_SELECT_GSPAR)
        return senseless(in, "only gspar's values share a magnitude; expected value=f32, bf16, f16 or f64");
    if (in->value == GS_VALUE_BOOK && (in->compressor->unbiased || in->compressor->layout == GS_LAYOUT_ALL))
        return senseless(in, "value=2bit takes a contractive compressor that selects: threshold, topk, chunk-topk");
    if (in->value == GS_VALUE_LEVELS && select != GS_SELECT_STEP)
        return senseless(in, "value=levels is gdsec's; expected value=f32, bf16, f16 or f64");
    return GS_SUCCESS;
}

static gsResult_t checkReferences(const reading *in)
{
    int needs = in->references >> GS_REFERENCE_SNAPSHOT & 1;
    int search = (int)in->number[GS_KEY_SEARCH_AT], quotient = in->number[GS_KEY_MODE_AT] > 0;
    uint32_t members = gsPoolSize(in->references);
    if (!(in->recipe->does & GS_DOES_COMPARE))
        return GS_SUCCESS;
    if (members > 1 && search == GS_SEARCH_NONE)
        return senseless(in, "several references need search=worker, hindsight or fit");
    if (quotient && search == GS_SEARCH_FIT)
        return senseless(in, "a fitted combination has no quotient; expected mode=difference");
    if (quotient && !in->compressor->unbiased)
        return senseless(in, "a quotient takes an unbiased compressor");
    if (needs && in->number[GS_KEY_REFRESH_AT] < 1)
        return senseless(in, "a snapshot is refreshed by dense steps; give refresh=N, 1 or more");
    return GS_SUCCESS;
}

/* What does not go by way of owners. */
static gsResult_t checkOwners(const reading *in)
{
    int does = in->recipe->does, exchange = (int)in->number[GS_KEY_EXCHANGE_AT];
    int twoway = does & GS_DOES_TWOWAY || in->number[GS_KEY_TWOWAY_AT] > 0;
    if (exchange != GS_EXCHANGE_OWNER && exchange != GS_EXCHANGE_OWNER_EXACT)
        return GS_SUCCESS;
    if (does & GS_DOES_TRIGGER)
        return senseless(in, "owners send their sums whether or not ranks are silent; expected exchange=exact");
    if (in->number[GS_KEY_MODE_AT] > 0)
        return senseless(in, "quotients of several ranks have no common sum that owners could send; expected "
                             "mode=difference");
    if (twoway && (does & GS_DOES_FIRST_DENSE || in->number[GS_KEY_FIRST_AT] > 0))
        return senseless(in, "owners alone know what a two-way recipe remembers, and have no dense steps; expected "
                             "first=zero");
    if (twoway && in->compressor->layout == GS_LAYOUT_MASK)
        return senseless(in, "of an owner's blocks the others draw no mask; expected uniform for randk");
    return GS_SUCCESS;
}

/* How many rows travel is known step by step, and may be all. */
static gsResult_t checkRows(const reading *in)
{
    int exchange = (int)in->number[GS_KEY_EXCHANGE_AT];
    if (in->compressor->select != GS_SELECT_ROWS)
        return GS_SUCCESS;
    if (!(in->given & GS_KEY_WIDTH))
        return senseless(in, "what a row is has to be said; add width=W, the elements of a row");
    if (exchange == GS_EXCHANGE_OWNER || exchange == GS_EXCHANGE_OWNER_EXACT)
        return senseless(in, "owners share out blocks, which cut rows; expected exchange=exact");
    if (exchange != GS_EXCHANGE_EXACT)
        return senseless(in, "a slot of fixed size would have to hold every row; expected exchange=exact");
    return GS_SUCCESS;
}

/* The cost model needs to know how much will travel. */
static gsResult_t checkAuto(const reading *in)
{
    if (in->number[GS_KEY_EXCHANGE_AT] != GS_EXCHANGE_AUTO ||
        !(in->recipe->does & GS_DOES_TRIGGER || in->compressor->select == GS_SELECT_STEP ||
          in->compressor->select == GS_SELECT_ROWS))
        return GS_SUCCESS;
    return senseless(in, "how much it sends is not known in advance; expected another exchange than auto");
}

static gsResult_t checkSense(const reading *in)
{
    if (!in->compressor)
        return GS_SUCCESS;
    GS_CHECK(checkAuto(in));
    GS_CHECK(checkCompressor(in));
    GS_CHECK(checkRows(in));
    GS_CHECK(checkOwners(in));
    GS_CHECK(checkThreshold(in));
    GS_CHECK(checkValues(in));
    return checkReferences(in);
}

/* ---- reading -> spec ---- */

static uint32_t valueOf(const reading *in, uint32_t type)
{
    int wide = type == GS_FLOAT64;
    uint32_t value = in->given & GS_KEY_VALUE ? in->value : in->compressor->value;
    if (value == GS_VALUE_HALF)
        return wide ? GS_VALUE_F64 : GS_VALUE_BF16;
    if (value == GS_VALUE_FULL)
        return wide ? GS_VALUE_F64 : GS_VALUE_F32;
    if (value == GS_VALUE_OWN)
        return wide ? GS_VALUE_F64 : type == GS_BFLOAT16 ? GS_VALUE_BF16 : GS_VALUE_F32;
    return value;
}

static void fillCompressor(gsSpec *spec, const reading *in)
{
    const compressorRow *c = in->compressor;
    spec->select = c->select;
    spec->layout = c->layout;
    spec->value = valueOf(in, spec->type);
    spec->random =
        c->unbiased && !(c->select == GS_SELECT_ALL && c->value == GS_VALUE_FULL && !(in->given & GS_KEY_VALUE));
    spec->levels = (uint32_t)in->number[GS_KEY_LEVELS_AT];
    spec->density = in->number[GS_KEY_DENSITY_AT];
    spec->k = (uint32_t)in->number[GS_KEY_K_AT];
    spec->width = (uint32_t)in->number[GS_KEY_WIDTH_AT];
    if (c->select == GS_SELECT_TOPK)
        spec->density = (double)spec->k / GS_BLOCK;
    spec->tau = in->given & GS_KEY_TAU ? (float)in->number[GS_KEY_TAU_AT] : -1.0f;
    spec->rms = in->number[GS_KEY_RMS_AT];
    spec->epsilon = in->number[GS_KEY_EPSILON_AT];
    spec->capacityShare = in->given & GS_KEY_CAPACITY ? in->number[GS_KEY_CAPACITY_AT] : 0.0;
    if (c->layout == GS_LAYOUT_ALL)
        spec->aux =
            gsValueBits(spec->value, spec->levels) | (in->number[GS_KEY_BUCKET_AT] > 0 ? GS_RECORD_ONE_SCALE : 0);
}

/* |C(x) - x|^2 <= omega |x|^2 in the mean, for the unbiased compressors. */
static double omegaOf(const gsSpec *spec)
{
    double bucket = spec->aux & GS_RECORD_ONE_SCALE || gsChosen(spec) < GS_BLOCK ? (double)gsChosen(spec) : GS_BLOCK;
    double s = (double)spec->levels;
    switch (spec->value) {
    case GS_VALUE_NATURAL: return 0.125;
    case GS_VALUE_TERNARY: return sqrt(bucket);
    case GS_VALUE_LEVELS: return bucket / (s * s) < sqrt(bucket) / s ? bucket / (s * s) : sqrt(bucket) / s;
    default: return spec->epsilon > 0.0 ? spec->epsilon : 1.0 / spec->density - 1.0;
    }
}

static void fillMemory(gsSpec *spec, const reading *in)
{
    int does = in->recipe->does;
    spec->feedback = (does & GS_DOES_FEEDBACK) != 0;
    spec->memory = (does & GS_DOES_MEMORY) != 0;
    if (does & GS_DOES_COMPARE && !in->compressor->unbiased)
        spec->feedback = 1;
    if (in->given & GS_KEY_EC && in->number[GS_KEY_EC_AT] == 0)
        spec->feedback = 0;
    spec->lambda = in->number[GS_KEY_LAMBDA_AT];
    spec->nu = in->number[GS_KEY_NU_AT];
    if (does & GS_DOES_DAMP && !(in->given & GS_KEY_LAMBDA))
        spec->lambda = 1.0 / (1.0 + omegaOf(spec));
    if (in->recipe->keys & GS_KEY_BETA)
        spec->lambda = in->number[GS_KEY_BETA_AT];
    spec->momentum = does & GS_DOES_MOMENTUM ? in->number[GS_KEY_MOMENTUM_AT] : 0.0;
    spec->clip = in->number[GS_KEY_CLIP_AT];
    spec->warmup = ((uint32_t)in->number[GS_KEY_WARMUP_AT] + GS_WARMUP_STAGES - 1) / GS_WARMUP_STAGES;
}

static uint32_t triggerOf(int does)
{
    static const struct {
        int bit;
        uint32_t trigger;
    } rows[] = {{GS_DOES_WORKER_TRIGGER, GS_TRIGGER_WORKER},
                {GS_DOES_SERVER_TRIGGER, GS_TRIGGER_SERVER},
                {GS_DOES_STALE_TRIGGER, GS_TRIGGER_STALE},
                {GS_DOES_CODED_TRIGGER, GS_TRIGGER_CODED},
                {GS_DOES_CHANGE_TRIGGER, GS_TRIGGER_CHANGE}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (does & rows[i].bit)
            return rows[i].trigger;
    return GS_TRIGGER_NONE;
}

static void fillSteps(gsSpec *spec, const reading *in)
{
    int does = in->recipe->does;
    spec->xi = in->number[GS_KEY_XI_AT];
    spec->window = (uint32_t)in->number[GS_KEY_WINDOW_AT];
    spec->trigger = triggerOf(does);
    spec->staleness = (uint32_t)in->number[GS_KEY_STALENESS_AT];
    spec->firstDense = does & GS_DOES_FIRST_DENSE || in->number[GS_KEY_FIRST_AT] > 0;
    spec->resync = (uint32_t)in->number[GS_KEY_RESYNC_AT];
    spec->participate = (uint32_t)in->number[GS_KEY_PARTICIPATE_AT];
    spec->exchange = (uint8_t)in->number[GS_KEY_EXCHANGE_AT];
    spec->twoway = does & GS_DOES_TWOWAY || in->number[GS_KEY_TWOWAY_AT] > 0;
}

static void fillReferences(gsSpec *spec, const reading *in)
{
    if (!(in->recipe->does & GS_DOES_COMPARE))
        return;
    spec->search = (uint32_t)in->number[GS_KEY_SEARCH_AT];
    spec->pool = in->given & GS_KEY_REFERENCE ? in->references : 1u << GS_REFERENCE_LAST;
    if (spec->search != GS_SEARCH_NONE)
        spec->pool |= 1u << GS_REFERENCE_ZERO; /* no code is worse than the bare one */
    spec->quotient = in->number[GS_KEY_MODE_AT] > 0;
    spec->ema[0] = in->number[GS_KEY_EMA_AT];
    spec->ema[1] = in->number[GS_KEY_EMA2_AT];
    spec->refresh = (uint32_t)in->number[GS_KEY_REFRESH_AT];
}

/* The papers', of D = 10 remembered steps: 1/D, 10/D for the server's trigger, 0.8/D for laq; clag's is a free factor. */
static double defaultXi(int does)
{
    if (does & (GS_DOES_SERVER_TRIGGER | GS_DOES_CHANGE_TRIGGER))
        return 1.0;
    return does & GS_DOES_CODED_TRIGGER ? 0.08 : 0.1;
}

/* What holds where a key is not given. */
static void fillDefaults(reading *in)
{
    double *x = in->number;
    int does = in->recipe->does, lag = does & GS_DOES_TRIGGER;
    x[GS_KEY_DENSITY_AT] = in->compressor ? in->compressor->density : 1.0;
    x[GS_KEY_K_AT] = in->compressor && in->compressor->select == GS_SELECT_TOPK ? 64 : 0;
    x[GS_KEY_LEVELS_AT] = does & GS_DOES_CODED_TRIGGER ? 15 : 127; /* laq's four bits; a byte */
    x[GS_KEY_LAMBDA_AT] = x[GS_KEY_NU_AT] = 1.0;
    x[GS_KEY_MOMENTUM_AT] = 0.9;
    x[GS_KEY_BETA_AT] = 0.01; /* the paper's */
    x[GS_KEY_EC_AT] = 1;
    x[GS_KEY_WINDOW_AT] = lag ? 10 : 4;
    x[GS_KEY_XI_AT] = lag ? defaultXi(does) : 100;
    if (does & (GS_DOES_STALE_TRIGGER | GS_DOES_CODED_TRIGGER)) /* the papers' */
        x[GS_KEY_STALENESS_AT] = does & GS_DOES_STALE_TRIGGER ? 50 : 100;
    x[GS_KEY_EXCHANGE_AT] = does & GS_DOES_EXACT ? GS_EXCHANGE_EXACT : GS_EXCHANGE_CAPACITY;
    x[GS_KEY_EMA_AT] = 0.25;
    x[GS_KEY_EMA2_AT] = 1.0 / 24.0;
}

gsResult_t gsRecipeParse(const char *recipe, gsSpec *spec)
{
    char list[300];
    size_t length = strcspn(recipe, ":");
    reading in = {.text = recipe};
    int row = wordAmong(recipe, length, recipeName, RECIPES);
    if (row < 0)
        return unreadable(&in, recipe, length, "name", listOf(list, sizeof list, recipeName, RECIPES, -1));
    in.recipe = &recipes[row];
    GS_CHECK(readCompressor(&in, recipe + length));
    fillDefaults(&in);
    for (const char *at = recipe + length; *at;)
        GS_CHECK(readKey(&in, at + 1, &at));
    GS_CHECK(checkSense(&in));
    if (!in.compressor) {
        spec->select = GS_SELECT_DENSE;
        spec->density = 1.0;
        spec->tau = -1.0f;
        return GS_SUCCESS;
    }
    fillCompressor(spec, &in);
    fillMemory(spec, &in);
    fillSteps(spec, &in);
    fillReferences(spec, &in);
    return GS_SUCCESS;
}
