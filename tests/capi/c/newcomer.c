/* Written by somebody who has the header and the README, and nothing else: one question is answered, one is cancelled
 * half-way from another thread, and a third is answered. */
#include <healthgpt.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct exam {
    hgpt_session *session;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int tokens; /* of the answer that is coming */
    int done;
};

static void fail(const char *what, hgpt_status status)
{
    char text[256];

    hgpt_last_error(text, sizeof text);
    fprintf(stderr, "%s: %s: %s\n", what, hgpt_status_name(status), text);
    exit(1);
}

static int32_t show(void *user_data, const hgpt_token *token)
{
    struct exam *exam = user_data;

    (void)token;
    pthread_mutex_lock(&exam->mutex);
    ++exam->tokens;
    pthread_cond_signal(&exam->changed);
    pthread_mutex_unlock(&exam->mutex);
    return 0;
}

/* Cancels at the fifth token. */
static void *impatient(void *argument)
{
    struct exam *exam = argument;

    pthread_mutex_lock(&exam->mutex);
    while (exam->tokens < 5 && !exam->done)
        pthread_cond_wait(&exam->changed, &exam->mutex);
    pthread_mutex_unlock(&exam->mutex);
    hgpt_session_cancel(exam->session);
    return NULL;
}

static void print_answer(hgpt_session *session)
{
    size_t needed;
    char *text;

    hgpt_session_answer(session, NULL, 0, &needed);
    text = malloc(needed);
    if (text == NULL || hgpt_session_answer(session, text, needed, &needed) != HGPT_OK)
        exit(1);
    printf("%s\n", text);
    free(text);
}

int main(int argc, char **argv)
{
    static char picture[1 << 20];
    hgpt_runtime_options runtime_options;
    hgpt_ask_options ask_options;
    hgpt_runtime *runtime = NULL;
    hgpt_model *model = NULL;
    hgpt_image *image = NULL;
    struct exam exam;
    pthread_t thread;
    hgpt_status status;
    size_t size;
    FILE *file;

    if (argc != 5)
        return 2;
    hgpt_runtime_options_init(&runtime_options, sizeof runtime_options);
    runtime_options.flags = HGPT_RUNTIME_ALLOW_SOFTWARE;
    status = hgpt_runtime_create(&runtime_options, &runtime);
    if (status == HGPT_OK)
        status = hgpt_model_open(runtime, argv[1], NULL, &model);
    if (status != HGPT_OK)
        fail(argv[1], status);
    file = fopen(argv[2], "rb");
    if (file == NULL)
        return 1;
    size = fread(picture, 1, sizeof picture, file);
    fclose(file);
    status = hgpt_image_from_bytes(model, picture, size, NULL, &image);
    if (status != HGPT_OK)
        fail(argv[2], status);
    memset(&exam, 0, sizeof exam);
    pthread_mutex_init(&exam.mutex, NULL);
    pthread_cond_init(&exam.changed, NULL);
    status = hgpt_session_create(model, NULL, &exam.session);
    if (status == HGPT_OK)
        status = hgpt_session_set_image(exam.session, image);
    if (status != HGPT_OK)
        fail("session", status);

    status = hgpt_session_ask(exam.session, argv[3], strlen(argv[3]), NULL);
    if (status != HGPT_OK)
        fail(argv[3], status);
    print_answer(exam.session);

    hgpt_ask_options_init(&ask_options, sizeof ask_options);
    ask_options.on_token = show;
    ask_options.user_data = &exam;
    pthread_create(&thread, NULL, impatient, &exam);
    status = hgpt_session_ask(exam.session, argv[4], strlen(argv[4]), &ask_options);
    pthread_mutex_lock(&exam.mutex);
    exam.done = 1;
    pthread_cond_signal(&exam.changed);
    pthread_mutex_unlock(&exam.mutex);
    pthread_join(thread, NULL);
    if (status != HGPT_CANCELLED)
        fail("a cancelled question", status);
    printf("cancelled\n");

    status = hgpt_session_ask(exam.session, argv[4], strlen(argv[4]), NULL);
    if (status != HGPT_OK)
        fail(argv[4], status);
    print_answer(exam.session);

    hgpt_session_destroy(exam.session);
    hgpt_image_release(image);
    hgpt_model_close(model);
    hgpt_runtime_destroy(runtime);
    pthread_cond_destroy(&exam.changed);
    pthread_mutex_destroy(&exam.mutex);
    return 0;
}
