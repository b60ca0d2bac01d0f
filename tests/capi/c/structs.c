/* Structs of other ages, and arguments that cannot be. */
#include "check.h"

#include <math.h>

/* Tries `field` of an ask: returns the status. */
static hgpt_status ask_with(hgpt_session *session, void (*change)(hgpt_ask_options *))
{
    hgpt_ask_options options;

    hgpt_ask_options_init(&options, sizeof options);
    options.max_tokens = 2;
    change(&options);
    return hgpt_session_ask(session, TEXT_QUESTION, HGPT_NUL_TERMINATED, &options);
}

static void cold(hgpt_ask_options *o) { o->temperature = -1; }
static void no_number(hgpt_ask_options *o) { o->temperature = NAN; }
static void endless(hgpt_ask_options *o) { o->temperature = INFINITY; }
static void more_than_all(hgpt_ask_options *o) { o->top_p = 1.5f; }
static void unknown_flag(hgpt_ask_options *o) { o->flags = 0x80; }
static void never_set(hgpt_ask_options *o) { o->struct_size = 0; }
static void tiny(hgpt_ask_options *o) { o->struct_size = 3; }
static void garbage(hgpt_ask_options *o) { o->struct_size = 0xcccccccc; }
static void zeros(hgpt_ask_options *o)
{
    memset(o, 0, sizeof *o);
    o->struct_size = sizeof *o;
    o->max_tokens = 2;
}

/* As a program would see the structs that was compiled against a later version. */
struct later_ask_options {
    hgpt_ask_options now;
    uint64_t something_new;
};

struct later_stats {
    hgpt_stats now;
    uint64_t something_new;
};

void structs(void)
{
    hgpt_session *session = ready();
    hgpt_stats stats, *exact;
    struct later_ask_options later;
    struct later_stats later_stats;
    unsigned char *bytes;
    uint32_t *part;

    OK(hgpt_session_reset(session, 0));

    /* An older program: its struct ends early, and nothing beyond is read or written (the sanitizer looks on). */
    part = malloc(8);
    hgpt_ask_options_init((hgpt_ask_options *)part, 8);
    CHECK(part[0] == 8 && part[1] == 512);
    part[1] = 2;
    OK(hgpt_session_ask(session, TEXT_QUESTION, HGPT_NUL_TERMINATED, (hgpt_ask_options *)part));
    free(part);
    part = malloc(16);
    part[0] = 16;
    OK(hgpt_session_stats(session, (hgpt_stats *)part));
    CHECK(part[1] == HGPT_FINISH_LENGTH && part[2] == TEXT_PROMPT_TOKENS);
    free(part);
    part = malloc(4);
    *part = 4;
    OK(hgpt_session_stats(session, (hgpt_stats *)part));
    OK(hgpt_session_reset(session, 0));
    free(part);

    /* A struct anywhere in memory. */
    bytes = malloc(sizeof stats + 1);
    stats.struct_size = sizeof stats;
    memcpy(bytes + 1, &stats, sizeof stats);
    exact = (hgpt_stats *)(void *)(bytes + 1);
    OK(hgpt_session_stats(session, exact));
    free(bytes);

    /* A newer program: fine unless it uses what this library does not know. */
    hgpt_ask_options_init(&later.now, sizeof later);
    CHECK(later.now.struct_size == sizeof later && later.something_new == 0);
    later.now.max_tokens = 2;
    OK(hgpt_session_ask(session, TEXT_QUESTION, HGPT_NUL_TERMINATED, &later.now));
    later.something_new = 1;
    IS(HGPT_ERROR_VERSION, hgpt_session_ask(session, TEXT_QUESTION, HGPT_NUL_TERMINATED, &later.now));
    CHECK(error_says("hgpt_ask_options"));
    later_stats.now.struct_size = sizeof later_stats;
    later_stats.something_new = 99;
    OK(hgpt_session_stats(session, &later_stats.now));
    CHECK(later_stats.now.answer_tokens == 2 && later_stats.something_new == 0);

    /* Values that cannot be. */
    IS(HGPT_ERROR_ARGUMENT, ask_with(session, cold));
    CHECK(error_says("temperature"));
    IS(HGPT_ERROR_ARGUMENT, ask_with(session, no_number));
    IS(HGPT_ERROR_ARGUMENT, ask_with(session, endless));
    IS(HGPT_ERROR_ARGUMENT, ask_with(session, more_than_all));
    CHECK(error_says("top_p"));
    IS(HGPT_ERROR_ARGUMENT, ask_with(session, unknown_flag));
    IS(HGPT_ERROR_ARGUMENT, ask_with(session, never_set));
    CHECK(error_says("sizeof(hgpt_ask_options)"));
    IS(HGPT_ERROR_ARGUMENT, ask_with(session, tiny));
    IS(HGPT_ERROR_VERSION, ask_with(session, garbage));
    OK(ask_with(session, zeros));

    hgpt_session_destroy(session);
}
