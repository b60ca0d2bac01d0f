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

void growth(void)
{
    hgpt_ask_options options;
    long round;

    heap_begin();
    hgpt_ask_options_init(&options, sizeof options);
    options.max_tokens = 2;
    for (round = 0; round < count; ++round) {
        hgpt_runtime *runtime = new_runtime();
        hgpt_model *model = open_model(runtime);
        hgpt_image *image = open_image(model);
        hgpt_session *session = new_session(model);

        OK(hgpt_session_set_image(session, image));
        OK(hgpt_session_ask(session, GOLDEN_QUESTION, HGPT_NUL_TERMINATED, &options));
        hgpt_session_destroy(session);
        hgpt_image_release(image);
        hgpt_model_close(model);
        hgpt_runtime_destroy(runtime);
        printf("%ld ours %ld theirs %ld resident %ld\n", round, heap_ours(), heap_theirs(), resident());
    }
}
