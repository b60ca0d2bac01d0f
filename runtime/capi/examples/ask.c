/* SPDX-License-Identifier: Apache-2.0
 *
 * The smallest complete program: a model, a picture, a question, the answer.
 *
 *     cc ask.c $(pkg-config --cflags --libs healthgpt) -o ask
 *     ./ask model.safetensors picture.png "Is there a gallstone?"
 */
#include <healthgpt.h>

#include <stdio.h>
#include <stdlib.h>

/* Ends the program with the library's own words if a call did not succeed. */
static void check(hgpt_status status)
{
    char text[512];

    if (status == HGPT_OK)
        return;
    hgpt_last_error(text, sizeof text);
    fprintf(stderr, "%s: %s\n", hgpt_status_name(status), text);
    exit(1);
}

static void *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    char *data = NULL;
    long end = -1;

    if (file != NULL && fseek(file, 0, SEEK_END) == 0 && (end = ftell(file)) > 0) {
        rewind(file);
        data = malloc((size_t)end);
        if (data != NULL && fread(data, 1, (size_t)end, file) != (size_t)end) {
            free(data);
            data = NULL;
        }
    }
    if (file != NULL)
        fclose(file);
    if (data == NULL) {
        fprintf(stderr, "%s: cannot be read\n", path);
        exit(1);
    }
    *size = (size_t)end;
    return data;
}

int main(int argc, char **argv)
{
    hgpt_runtime_options options;
    hgpt_runtime *runtime;
    hgpt_model *model;
    hgpt_image *image;
    hgpt_session *session;
    size_t size, needed;
    void *picture;
    char *answer;

    if (argc != 4) {
        fprintf(stderr, "usage: ask MODEL PICTURE QUESTION\n");
        return 2;
    }
    if (hgpt_abi_version() != HGPT_ABI_VERSION) {
        fprintf(stderr, "the library is of another version than the header\n");
        return 1;
    }

    hgpt_runtime_options_init(&options, sizeof options);
    options.flags = HGPT_RUNTIME_ALLOW_SOFTWARE; /* slow is better than not at all */
    check(hgpt_runtime_create(&options, &runtime));
    check(hgpt_model_open(runtime, argv[1], NULL, &model));
    picture = read_file(argv[2], &size);
    check(hgpt_image_from_bytes(model, picture, size, NULL, &image));
    free(picture);
    check(hgpt_session_create(model, NULL, &session));
    check(hgpt_session_set_image(session, image));

    check(hgpt_session_ask(session, argv[3], HGPT_NUL_TERMINATED, NULL));
    hgpt_session_answer(session, NULL, 0, &needed); /* how long it is */
    answer = malloc(needed);
    if (answer == NULL)
        return 1;
    check(hgpt_session_answer(session, answer, needed, &needed));
    printf("%s\n", answer);

    free(answer);
    hgpt_session_destroy(session);
    hgpt_image_release(image);
    hgpt_model_close(model);
    hgpt_runtime_destroy(runtime);
    return 0;
}
