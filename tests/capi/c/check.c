/* check CASE MODEL PICTURE [COUNT] [OUTPUT]: runs one case; silent and 0 if all is as it should be. */
#include "check.h"

#ifdef GROWTH
void growth(void);
#endif

const char *model_path, *picture_path, *output_path;
long count;

void is(hgpt_status wanted, hgpt_status found, const char *call, const char *file, int line)
{
    char text[512];

    if (found == wanted)
        return;
    hgpt_last_error(text, sizeof text);
    fprintf(stderr, "%s:%d: %s is %s, not %s: %s\n", file, line, call, hgpt_status_name(found),
            hgpt_status_name(wanted), text);
    exit(1);
}

void *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    void *data;
    long end;

    CHECK(file != NULL && fseek(file, 0, SEEK_END) == 0);
    end = ftell(file);
    CHECK(end > 0);
    rewind(file);
    data = malloc((size_t)end);
    CHECK(data != NULL && fread(data, 1, (size_t)end, file) == (size_t)end);
    fclose(file);
    *size = (size_t)end;
    return data;
}

hgpt_runtime *new_runtime(void)
{
    hgpt_runtime_options options;
    hgpt_runtime *runtime;

    hgpt_runtime_options_init(&options, sizeof options);
    options.flags = HGPT_RUNTIME_ALLOW_SOFTWARE;
    OK(hgpt_runtime_create(&options, &runtime));
    return runtime;
}

hgpt_model *open_model(hgpt_runtime *runtime)
{
    hgpt_model_options options;
    hgpt_model *model;

    hgpt_model_options_init(&options, sizeof options);
    options.tasks = HGPT_TASK_ASK;
    OK(hgpt_model_open(runtime, model_path, &options, &model));
    return model;
}

hgpt_image *open_image(hgpt_model *model)
{
    hgpt_image *image;
    size_t size;
    void *data = read_file(picture_path, &size);

    OK(hgpt_image_from_bytes(model, data, size, NULL, &image));
    free(data);
    return image;
}

hgpt_session *new_session(hgpt_model *model)
{
    hgpt_session_options options;
    hgpt_session *session;

    hgpt_session_options_init(&options, sizeof options);
    options.context_tokens = 512;
    OK(hgpt_session_create(model, &options, &session));
    return session;
}

hgpt_session *ready(void)
{
    hgpt_runtime *runtime = new_runtime();
    hgpt_model *model = open_model(runtime);
    hgpt_image *image = open_image(model);
    hgpt_session *session = new_session(model);

    OK(hgpt_session_set_image(session, image));
    hgpt_runtime_destroy(runtime);
    hgpt_model_close(model);
    hgpt_image_release(image);
    return session;
}

char *answer_of(hgpt_session *session)
{
    size_t needed = 0, again = 0;
    char *text;

    IS(HGPT_BUFFER_TOO_SMALL, hgpt_session_answer(session, NULL, 0, &needed));
    CHECK(needed > 0);
    text = malloc(needed);
    CHECK(text != NULL);
    OK(hgpt_session_answer(session, text, needed, &again));
    CHECK(again == needed && strlen(text) + 1 == needed);
    return text;
}

void expect(hgpt_session *session, const char *question, const hgpt_ask_options *options, const char *answer)
{
    char *found;

    OK(hgpt_session_ask(session, question, HGPT_NUL_TERMINATED, options));
    found = answer_of(session);
    if (strcmp(found, answer) != 0) {
        fprintf(stderr, "\"%s\" is answered by \"%s\", not \"%s\"\n", question, found, answer);
        exit(1);
    }
    free(found);
}

int error_says(const char *words)
{
    char text[512];

    hgpt_last_error(text, sizeof text);
    return strstr(text, words) != NULL && strchr(text, '\n') == NULL;
}

int main(int argc, char **argv)
{
    CHECK(argc >= 4);
    model_path = argv[2];
    picture_path = argv[3];
    count = argc > 4 ? strtol(argv[4], NULL, 10) : 0;
    output_path = argc > 5 ? argv[5] : NULL;
#define RUN(name) \
    if (strcmp(argv[1], #name) == 0) { \
        name(); \
        return 0; \
    }
    CASES(RUN)
#ifdef GROWTH
    RUN(growth)
#endif
    fprintf(stderr, "there is no case %s\n", argv[1]);
    return 2;
}
