/* Stopping and pausing, from everywhere. */
#include "check.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

static void sleep_us(long us)
{
    struct timespec time;

    time.tv_sec = us / 1000000;
    time.tv_nsec = us % 1000000 * 1000;
    nanosleep(&time, NULL);
}

/* Stops at a token. */
static int32_t stop_at(void *user_data, const hgpt_token *token)
{
    uint32_t *left = user_data;

    (void)token;
    return (*left)-- == 0;
}

void stopping(void)
{
    hgpt_session *session = ready();
    hgpt_ask_options options;
    hgpt_stats stats;
    uint32_t at, left;
    char *answer;

    hgpt_ask_options_init(&options, sizeof options);
    options.on_token = stop_at;
    options.user_data = &left;
    stats.struct_size = sizeof stats;
    for (at = 0; at < GOLDEN_TOKENS; ++at) {
        left = at;
        IS(HGPT_CANCELLED, hgpt_session_ask(session, GOLDEN_QUESTION, HGPT_NUL_TERMINATED, &options));
        CHECK(error_says("cancelled"));
        OK(hgpt_session_stats(session, &stats));
        CHECK(stats.finish == HGPT_FINISH_CANCELLED);
    }
    /* As if nothing had been asked: the first question is a first question, and the last answer stays. */
    answer = answer_of(session);
    CHECK(answer[0] == 0);
    free(answer);
    expect(session, GOLDEN_QUESTION, NULL, GOLDEN_ANSWER);
    for (at = 0; at < 3; ++at) {
        left = at;
        IS(HGPT_CANCELLED, hgpt_session_ask(session, "Is it large?", HGPT_NUL_TERMINATED, &options));
    }
    answer = answer_of(session);
    CHECK(strcmp(answer, GOLDEN_ANSWER) == 0);
    free(answer);
    expect(session, SECOND_QUESTION, NULL, SECOND_ANSWER);

    /* A time limit, wherever it ends. */
    OK(hgpt_session_reset(session, 0));
    options.on_token = NULL;
    options.timeout_ms = 1;
    IS(HGPT_CANCELLED, hgpt_session_ask(session, TEXT_QUESTION, HGPT_NUL_TERMINATED, &options));
    CHECK(error_says("time limit of 1 ms"));
    options.timeout_ms = 600000;
    options.max_tokens = TEXT_MAX_TOKENS;
    expect(session, TEXT_QUESTION, &options, TEXT_ANSWER);
    hgpt_session_destroy(session);
}

/* A second thread that cancels after a while. */
struct canceller {
    hgpt_session *session;
    atomic_long delay_us; /* -1: nothing to do; -2: over */
};

static void *cancel_now_and_then(void *argument)
{
    struct canceller *canceller = argument;

    for (;;) {
        long delay = atomic_exchange(&canceller->delay_us, -1);
        if (delay == -2)
            return NULL;
        if (delay < 0) {
            sleep_us(20);
            continue;
        }
        sleep_us(delay);
        OK(hgpt_session_cancel(canceller->session));
    }
}

void cancelling(void)
{
    hgpt_session *session = ready();
    struct canceller canceller;
    hgpt_ask_options options;
    hgpt_stats stats;
    pthread_t thread;
    unsigned random = 1;
    long round, cancelled = 0, most;
    int whole_again = 1;
    char *whole;

    /* Short answers, so that many rounds take little time; longer ones would hold the same boundaries more often. */
    hgpt_ask_options_init(&options, sizeof options);
    options.max_tokens = 4;
    OK(hgpt_session_ask(session, GOLDEN_QUESTION, HGPT_NUL_TERMINATED, &options));
    whole = answer_of(session);
    CHECK(strncmp(whole, GOLDEN_ANSWER, strlen(whole)) == 0 && whole[0] != 0);
    stats.struct_size = sizeof stats;
    OK(hgpt_session_reset(session, 0));
    OK(hgpt_session_ask(session, TEXT_QUESTION, HGPT_NUL_TERMINATED, &options));
    OK(hgpt_session_stats(session, &stats));
    most = (long)stats.total_us + 1;

    canceller.session = session;
    atomic_init(&canceller.delay_us, -1);
    CHECK(pthread_create(&thread, NULL, cancel_now_and_then, &canceller) == 0);
    for (round = 0; round < count; ++round) {
        hgpt_status status;

        /* Now and then with nothing computed before; else with what the cancelled calls have left. */
        if (whole_again || round % 8 == 0)
            OK(hgpt_session_reset(session, 0));
        random = random * 1664525u + 1013904223u;
        {
            /* Early ones more often: they take less time, and each boundary still has its turns. */
            double share = (random >> 8) / (double)(1 << 24);
            atomic_store(&canceller.delay_us, (long)((double)most * share * share * share));
        }
        status = hgpt_session_ask(session, TEXT_QUESTION, HGPT_NUL_TERMINATED, &options);
        CHECK(status == HGPT_OK || status == HGPT_CANCELLED);
        whole_again = status == HGPT_OK;
        cancelled += status == HGPT_CANCELLED;
        if (status == HGPT_OK) {
            char *answer = answer_of(session);
            CHECK(strncmp(answer, TEXT_ANSWER, strlen(answer)) == 0 && answer[0] != 0);
            free(answer);
        }
        /* A cancel that came too late has found nothing to stop; wait for it. */
        while (atomic_load(&canceller.delay_us) != -1)
            sleep_us(20);
    }
    atomic_store(&canceller.delay_us, -2);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(cancelled > count / 10);
    OK(hgpt_session_reset(session, 0));
    options.max_tokens = TEXT_MAX_TOKENS;
    expect(session, TEXT_QUESTION, &options, TEXT_ANSWER);
    free(whole);
    hgpt_session_destroy(session);
}

static int32_t stop_row(void *user_data, float fraction, const char *stage)
{
    (void)stage;
    return fraction >= *(float *)user_data;
}

void drawing_stopped(void)
{
    hgpt_runtime *runtime = new_runtime();
    hgpt_session_options session_options;
    hgpt_generate_options options;
    hgpt_model *model;
    hgpt_session *session;
    static uint8_t before[64 * 64 * 3], after[64 * 64 * 3];
    float fraction;

    OK(hgpt_model_open(runtime, model_path, NULL, &model));
    hgpt_session_options_init(&session_options, sizeof session_options);
    session_options.task = HGPT_TASK_GENERATE;
    session_options.context_tokens = 192;
    OK(hgpt_session_create(model, &session_options, &session));
    hgpt_generate_options_init(&options, sizeof options);
    OK(hgpt_session_generate(session, DRAW_INSTRUCTION, HGPT_NUL_TERMINATED, &options, before, HGPT_PIXELS_RGB8, 0,
                             sizeof before));
    options.progress = stop_row;
    options.user_data = &fraction;
    memset(after, 7, sizeof after);
    for (fraction = 0.125f; fraction <= 1.0f; fraction += 0.125f) {
        IS(HGPT_CANCELLED, hgpt_session_generate(session, DRAW_INSTRUCTION, HGPT_NUL_TERMINATED, &options, after,
                                                 HGPT_PIXELS_RGB8, 0, sizeof after));
        CHECK(after[0] == 7 && after[sizeof after - 1] == 7);
    }
    options.progress = NULL;
    options.timeout_ms = 1;
    IS(HGPT_CANCELLED, hgpt_session_generate(session, DRAW_INSTRUCTION, HGPT_NUL_TERMINATED, &options, after,
                                             HGPT_PIXELS_RGB8, 0, sizeof after));
    OK(hgpt_session_generate(session, DRAW_INSTRUCTION, HGPT_NUL_TERMINATED, NULL, after, HGPT_PIXELS_RGB8, 0,
                             sizeof after));
    CHECK(memcmp(before, after, sizeof after) == 0);
    hgpt_session_destroy(session);
    hgpt_model_close(model);
    hgpt_runtime_destroy(runtime);
}

/* Pauses at a token. The worker goes on alone only after somebody has resumed it. */
struct pauser {
    hgpt_session *session;
    atomic_uint tokens;
    atomic_uint done;
};

static int32_t pause_at_two(void *user_data, const hgpt_token *token)
{
    struct pauser *pauser = user_data;

    (void)token;
    if (atomic_fetch_add(&pauser->tokens, 1) == 1)
        OK(hgpt_session_pause(pauser->session));
    return 0;
}

static void *ask_golden(void *argument)
{
    struct pauser *pauser = argument;
    hgpt_ask_options options;

    hgpt_ask_options_init(&options, sizeof options);
    options.on_token = pause_at_two;
    options.user_data = pauser;
    expect(pauser->session, GOLDEN_QUESTION, &options, GOLDEN_ANSWER);
    atomic_store(&pauser->done, 1);
    return NULL;
}

/* Is paused at the second token, and then ended. */
static void *ask_doomed(void *argument)
{
    struct pauser *pauser = argument;
    hgpt_ask_options options;

    hgpt_ask_options_init(&options, sizeof options);
    options.on_token = pause_at_two;
    options.user_data = pauser;
    IS(HGPT_CANCELLED, hgpt_session_ask(pauser->session, GOLDEN_QUESTION, HGPT_NUL_TERMINATED, &options));
    atomic_store(&pauser->done, 1);
    return NULL;
}

void pausing(void)
{
    hgpt_session *session = ready();
    struct pauser pauser;
    hgpt_ask_options options;
    hgpt_stats stats;
    pthread_t thread;
    unsigned before, i;

    pauser.session = session;
    atomic_init(&pauser.tokens, 0);
    atomic_init(&pauser.done, 0);
    CHECK(pthread_create(&thread, NULL, ask_golden, &pauser) == 0);
    while (atomic_load(&pauser.tokens) < 2)
        sleep_us(1000);
    /* What was under way comes to its end; then nothing more. */
    sleep_us(300000);
    before = atomic_load(&pauser.tokens);
    CHECK(before < GOLDEN_TOKENS && !atomic_load(&pauser.done));
    sleep_us(300000);
    CHECK(atomic_load(&pauser.tokens) == before);
    stats.struct_size = sizeof stats;
    IS(HGPT_ERROR_BUSY, hgpt_session_stats(session, &stats));
    OK(hgpt_session_set_pace(session, 16000, 100));
    OK(hgpt_session_resume(session));
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(atomic_load(&pauser.done) == 1);

    /* Its end from another thread: the call is cancelled, and what it needs stays until it has returned. */
    {
        hgpt_session *doomed = ready();
        struct pauser victim;
        victim.session = doomed;
        atomic_init(&victim.tokens, 0);
        atomic_init(&victim.done, 0);
        CHECK(pthread_create(&thread, NULL, ask_doomed, &victim) == 0);
        while (atomic_load(&victim.tokens) < 2)
            sleep_us(1000);
        hgpt_session_destroy(doomed);
        CHECK(pthread_join(thread, NULL) == 0);
        CHECK(atomic_load(&victim.done) == 1);
    }

    /* A call that begins paused ends by its time limit. */
    OK(hgpt_session_pause(session));
    hgpt_ask_options_init(&options, sizeof options);
    options.timeout_ms = 50;
    IS(HGPT_CANCELLED, hgpt_session_ask(session, SECOND_QUESTION, HGPT_NUL_TERMINATED, &options));
    IS(HGPT_CANCELLED, hgpt_session_ask(session, SECOND_QUESTION, HGPT_NUL_TERMINATED, &options));
    for (i = 0; i < 2; ++i)
        OK(hgpt_session_resume(session));
    expect(session, SECOND_QUESTION, NULL, SECOND_ANSWER);

    /* However the work is cut, the answer is the same. */
    for (i = 0; i < 3; ++i) {
        static const uint32_t slices[] = {1, 4000, HGPT_SLICE_UNLIMITED};
        OK(hgpt_session_reset(session, 0));
        OK(hgpt_session_set_pace(session, slices[i], i == 0 ? 20 : 0));
        hgpt_ask_options_init(&options, sizeof options);
        options.max_tokens = TEXT_MAX_TOKENS;
        expect(session, TEXT_QUESTION, &options, TEXT_ANSWER);
    }
    hgpt_session_destroy(session);
}
