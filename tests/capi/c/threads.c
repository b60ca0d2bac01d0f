/* Several threads at once. */
#include "check.h"

#include <pthread.h>
#include <stdatomic.h>

struct worker {
    hgpt_model *model;
    hgpt_image *image;
};

static void *converse(void *argument)
{
    struct worker *worker = argument;
    hgpt_session *session = new_session(worker->model);
    hgpt_memory memory;
    hgpt_stats stats;
    int i;

    memory.struct_size = sizeof memory;
    stats.struct_size = sizeof stats;
    OK(hgpt_session_set_image(session, worker->image));
    for (i = 0; i < 2; ++i) {
        expect(session, GOLDEN_QUESTION, NULL, GOLDEN_ANSWER);
        OK(hgpt_model_memory(worker->model, &memory));
        expect(session, SECOND_QUESTION, NULL, SECOND_ANSWER);
        OK(hgpt_session_stats(session, &stats));
        OK(hgpt_session_reset(session, 1));
    }
    hgpt_session_destroy(session);
    return NULL;
}

/* What a callback may do, and what it is told if it tries more. */
struct inner {
    hgpt_session *session;
    hgpt_model *model;
    uint32_t calls, reserved;
};

static int32_t from_inside(void *user_data, const hgpt_token *token)
{
    struct inner *inner = user_data;
    size_t needed;

    (void)token;
    ++inner->calls;
    CHECK(hgpt_abi_version() == HGPT_ABI_VERSION);
    IS(HGPT_ERROR_BUSY, hgpt_session_ask(inner->session, "Why?", HGPT_NUL_TERMINATED, NULL));
    IS(HGPT_ERROR_BUSY, hgpt_session_answer(inner->session, NULL, 0, &needed));
    IS(HGPT_ERROR_BUSY, hgpt_session_reset(inner->session, 1));
    CHECK(error_says("another call"));
    OK(hgpt_session_pause(inner->session));
    OK(hgpt_session_resume(inner->session));
    OK(hgpt_session_set_pace(inner->session, 0, 0));
    return 0;
}

/* Two threads that use one session: each call either has its turn or is told. */
struct rivals {
    hgpt_session *session;
    atomic_uint ok, busy;
};

static void *rival(void *argument)
{
    struct rivals *rivals = argument;
    int i;

    for (i = 0; i < 20; ++i) {
        hgpt_ask_options options;
        hgpt_status status;

        hgpt_ask_options_init(&options, sizeof options);
        options.max_tokens = 1;
        status = hgpt_session_ask(rivals->session, "Why?", HGPT_NUL_TERMINATED, &options);
        CHECK(status == HGPT_OK || status == HGPT_ERROR_BUSY || status == HGPT_ERROR_CONTEXT_FULL);
        atomic_fetch_add(status == HGPT_ERROR_BUSY ? &rivals->busy : &rivals->ok, 1);
    }
    return NULL;
}

/* The last error belongs to the thread. */
static void *fails(void *argument)
{
    (void)argument;
    CHECK(hgpt_last_error(NULL, 0) == 0);
    IS(HGPT_ERROR_ARGUMENT, hgpt_session_cancel(NULL));
    CHECK(error_says("session is NULL"));
    return NULL;
}

void threads(void)
{
    hgpt_runtime *runtime = new_runtime();
    struct worker worker;
    struct inner inner;
    struct rivals rivals;
    hgpt_ask_options options;
    pthread_t both[2];
    hgpt_memory before, after;
    int i;

    worker.model = open_model(runtime);
    worker.image = open_image(worker.model);
    before.struct_size = after.struct_size = sizeof before;
    OK(hgpt_model_memory(worker.model, &before));
    for (i = 0; i < 2; ++i)
        CHECK(pthread_create(&both[i], NULL, converse, &worker) == 0);
    for (i = 0; i < 2; ++i)
        CHECK(pthread_join(both[i], NULL) == 0);
    OK(hgpt_model_memory(worker.model, &after));
    CHECK(after.total == before.total && after.kv_reserved == 0 && after.scratch == before.scratch);

    inner.session = new_session(worker.model);
    inner.model = worker.model;
    inner.calls = 0;
    OK(hgpt_session_set_image(inner.session, worker.image));
    hgpt_ask_options_init(&options, sizeof options);
    options.on_token = from_inside;
    options.user_data = &inner;
    expect(inner.session, GOLDEN_QUESTION, &options, GOLDEN_ANSWER);
    CHECK(inner.calls >= GOLDEN_TOKENS);

    rivals.session = inner.session;
    atomic_init(&rivals.ok, 0);
    atomic_init(&rivals.busy, 0);
    for (i = 0; i < 2; ++i)
        CHECK(pthread_create(&both[i], NULL, rival, &rivals) == 0);
    for (i = 0; i < 2; ++i)
        CHECK(pthread_join(both[i], NULL) == 0);
    CHECK(atomic_load(&rivals.ok) + atomic_load(&rivals.busy) == 40 && atomic_load(&rivals.ok) >= 20);

    IS(HGPT_ERROR_ARGUMENT, hgpt_runtime_create(NULL, NULL));
    CHECK(pthread_create(&both[0], NULL, fails, NULL) == 0 && pthread_join(both[0], NULL) == 0);
    CHECK(error_says("out is NULL"));

    hgpt_session_destroy(inner.session);
    hgpt_image_release(worker.image);
    hgpt_model_close(worker.model);
    hgpt_runtime_destroy(runtime);
}
