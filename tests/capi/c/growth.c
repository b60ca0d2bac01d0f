/* Opening and closing again and again: no growth. */
#include "check.h"

#include <unistd.h>

/* Bytes of memory in use, by the system's account. */
static long resident(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    long all, in_use;

    CHECK(file != NULL && fscanf(file, "%ld %ld", &all, &in_use) == 2);
    fclose(file);
    return in_use * sysconf(_SC_PAGESIZE);
}

void growth(void)
{
    hgpt_ask_options options;
    long round, settled = 0, last;

    hgpt_ask_options_init(&options, sizeof options);
    options.max_tokens = 2;
    for (round = 0; round < count; ++round) {
        hgpt_runtime *runtime = new_runtime();
        hgpt_model *model = open_model(runtime);
        hgpt_image *image = open_image(model);
        hgpt_session *session = new_session(model);
        hgpt_memory memory;

        OK(hgpt_session_set_image(session, image));
        OK(hgpt_session_ask(session, GOLDEN_QUESTION, HGPT_NUL_TERMINATED, &options));
        hgpt_session_destroy(session);
        hgpt_image_release(image);
        memory.struct_size = sizeof memory;
        OK(hgpt_model_memory(model, &memory));
        CHECK(memory.total == memory.weights + memory.adapters + memory.vision + memory.scratch + memory.staging);
        hgpt_model_close(model);
        hgpt_runtime_destroy(runtime);
        /* The driver's own caches fill in the first rounds. */
        if (round == count / 10)
            settled = resident();
    }
    last = resident();
    if (output_path != NULL) {
        FILE *file = fopen(output_path, "w");
        CHECK(file != NULL && fprintf(file, "%ld %ld\n", settled, last) > 0 && fclose(file) == 0);
    }
    if ((double)last > (double)settled * 1.02) {
        fprintf(stderr, "%ld bytes after %ld rounds, %ld after %ld\n", settled, count / 10, last, count);
        exit(1);
    }
}
