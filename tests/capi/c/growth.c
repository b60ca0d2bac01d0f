/* Opening and closing again and again: no growth. */
#include "check.h"
#include "heap.h"

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

/* Writes a line for each tenth of the rounds: bytes on the heap of the library, of others, and bytes of memory in use. */
void growth(void)
{
    FILE *file = fopen(output_path, "w");
    hgpt_ask_options options;
    long round;

    CHECK(file != NULL);
    heap_begin();
    hgpt_ask_options_init(&options, sizeof options);
    options.max_tokens = 2;
    for (round = 1; round <= count; ++round) {
        hgpt_runtime *runtime = new_runtime();
        hgpt_model *model = open_model(runtime);
        hgpt_image *image = open_image(model);
        hgpt_memory before, after;
        hgpt_session *session;

        before.struct_size = after.struct_size = sizeof before;
        OK(hgpt_model_memory(model, &before));
        session = new_session(model);
        OK(hgpt_session_set_image(session, image));
        OK(hgpt_session_ask(session, GOLDEN_QUESTION, HGPT_NUL_TERMINATED, &options));
        hgpt_session_destroy(session);
        hgpt_image_release(image);
        OK(hgpt_model_memory(model, &after));
        CHECK(after.total == before.total);
        hgpt_model_close(model);
        hgpt_runtime_destroy(runtime);
        if (round * 10 % count == 0)
            CHECK(fprintf(file, "%ld %ld %ld\n", heap_ours(), heap_theirs(), resident()) > 0);
    }
    CHECK(fclose(file) == 0);
}
