/* What the C tests share: checks that say where they failed, and the way to a session. */
#ifndef CHECK_H
#define CHECK_H

#include "golden.h"

#include <healthgpt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
            exit(1); \
        } \
    } while (0)

/* The call has this status. */
#define IS(wanted, call) is(wanted, call, #call, __FILE__, __LINE__)
#define OK(call) IS(HGPT_OK, call)

void is(hgpt_status wanted, hgpt_status found, const char *call, const char *file, int line);

/* Arguments of the program. */
extern const char *model_path, *picture_path, *output_path;
extern long count;

/* The bytes of a file; freed by the caller. */
void *read_file(const char *path, size_t *size);

hgpt_runtime *new_runtime(void);
hgpt_model *open_model(hgpt_runtime *runtime);
hgpt_image *open_image(hgpt_model *model);
hgpt_session *new_session(hgpt_model *model);

/* A fresh conversation about the golden picture, whose parents have been ended already. */
hgpt_session *ready(void);

/* The session's answer; freed by the caller. */
char *answer_of(hgpt_session *session);

/* Asks, and the answer must be this. */
void expect(hgpt_session *session, const char *question, const hgpt_ask_options *options, const char *answer);

/* Whether the last error of this thread holds these words. */
int error_says(const char *words);

#define CASES(X) \
    X(answers) X(choices) X(drawing) X(structs) X(misuse) X(handles) X(stopping) X(cancelling) X(drawing_stopped) \
    X(pausing) X(threads) X(logs) X(offline)

#define DECLARE(name) void name(void);
CASES(DECLARE)

#endif
