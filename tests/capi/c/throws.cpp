// An exception that leaves a callback: it must end the process there and then, silently.
#include <healthgpt.h>

#include <cstdint>

int main(int, char **argv)
{
    hgpt_runtime *runtime;
    hgpt_model *model;
    hgpt_model_options options;

    hgpt_runtime_options runtime_options;
    hgpt_runtime_options_init(&runtime_options, sizeof runtime_options);
    runtime_options.flags = HGPT_RUNTIME_ALLOW_SOFTWARE;
    if (hgpt_runtime_create(&runtime_options, &runtime) != HGPT_OK)
        return 1;
    hgpt_model_options_init(&options, sizeof options);
    options.progress = [](void *, float, const char *) -> std::int32_t { throw 1; };
    try {
        hgpt_model_open(runtime, argv[1], &options, &model);
    } catch (int) {
        return 2;
    }
    return 3;
}
