/* model.c: the list of models, and what is asked of the options by each. */
#include "model.h"

#include "failure.h"

static const modelType_t *const types[] = {
    [MODEL_SOFTMAX] = &softmaxModel, [MODEL_MLP] = &mlpModel,       [MODEL_CNN] = &cnnModel,
    [MODEL_LOGREG] = &logregModel,   [MODEL_LINREG] = &linregModel,
};

const measure_t accuracy = {"accuracy", "accuracy", 100.0, " %"};

static const modelType_t *typeOf(const options_t *options)
{
    return types[options->model];
}

bool modelSettle(options_t *options)
{
    const modelType_t *type = typeOf(options);
    bool fromFile = !type->defaultData;
    if (fromFile && !options->data)
        return fail("--data: got nothing, expected a LIBSVM file for --model %s", type->name);
    if (fromFile && options->dataDir)
        return fail("--data-dir: got '%s' beside --model %s, which reads the file that --data names", options->dataDir,
                    type->name);
    if (!fromFile && options->test)
        return fail("--test: got '%s' beside --model %s, whose images come with test images", options->test,
                    type->name);
    if (options->dtype == DTYPE_F64 && !type->doubles)
        return fail("--dtype: got f64 beside --model %s, which computes in float; expected f32, bf16 or f16",
                    type->name);
    if (!options->data)
        options->data = type->defaultData;
    return true;
}

bool modelMake(model_t *model, const options_t *options, const device_t *device)
{
    *model = (model_t){.type = typeOf(options), .device = device, .data = options->data};
    return model->type->make(model, options);
}

void modelFree(model_t *model)
{
    if (model->type)
        model->type->free(model);
}
