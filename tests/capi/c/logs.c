/* The log: whose lines go where, and what is never in them. */
#include "check.h"

struct log {
    char text[1 << 20];
    size_t length;
    unsigned lines, levels;
    int callbacks;
};

static struct log first, second;

static void keep(void *user_data, uint32_t level, const char *text, size_t length)
{
    struct log *log = user_data;

    CHECK(level >= HGPT_LOG_ERROR && level <= HGPT_LOG_TRACE && strlen(text) == length);
    CHECK(memchr(text, '\n', length) == NULL && log->length + length + 1 < sizeof log->text);
    memcpy(log->text + log->length, text, length);
    log->length += length;
    log->text[log->length++] = '\n';
    ++log->lines;
    log->levels |= 1u << level;
}

static hgpt_runtime *with_log(struct log *log, uint32_t level)
{
    hgpt_runtime_options options;
    hgpt_runtime *runtime;

    hgpt_runtime_options_init(&options, sizeof options);
    options.flags = HGPT_RUNTIME_ALLOW_SOFTWARE;
    options.log = keep;
    options.log_user_data = log;
    options.log_level = level;
    OK(hgpt_runtime_create(&options, &runtime));
    return runtime;
}

/* This is in no log and in no error. */
static void never(const char *marker)
{
    char last_error[1024];

    CHECK(strstr(first.text, marker) == NULL && strstr(second.text, marker) == NULL);
    hgpt_last_error(last_error, sizeof last_error);
    CHECK(strstr(last_error, marker) == NULL);
}

#define MARKER "xyzzymarker"

void logs(void)
{
    hgpt_runtime *loud = with_log(&first, HGPT_LOG_TRACE), *quiet = with_log(&second, HGPT_LOG_ERROR);
    hgpt_model *model = open_model(loud), *other;
    hgpt_session *session = new_session(model);
    hgpt_session_options options;
    hgpt_ask_options ask;
    hgpt_image *image;
    hgpt_pixels pixels;
    char *pixel_marker, *answer, report[4096];
    static const char *const choices[] = {MARKER " yes", MARKER " no"};
    float probability[2];
    size_t needed, i;
    unsigned before;

    CHECK(strstr(first.text, "device ") != NULL);
    CHECK(strstr(first.text, "session: ") != NULL);
    /* From the threads that compile. */
    CHECK(strstr(first.text, "variant") != NULL && (first.levels & 1u << HGPT_LOG_DEBUG) != 0);
    CHECK(first.lines > 10 && second.lines == 0);
    before = first.lines;
    other = open_model(quiet);
    CHECK(first.lines == before && second.lines == 0);

    /* A picture that is nothing but a marker. */
    pixel_marker = malloc(64 * 11);
    for (i = 0; i < 64; ++i)
        memcpy(pixel_marker + i * 11, MARKER, 11);
    hgpt_pixels_init(&pixels, sizeof pixels);
    pixels.format = HGPT_PIXELS_GRAY8;
    pixels.width = 11;
    pixels.height = 64;
    pixels.data = pixel_marker;
    pixels.size = 64 * 11;
    pixels.stride = 10;
    IS(HGPT_ERROR_ARGUMENT, hgpt_image_from_pixels(model, &pixels, &image));
    never(MARKER);
    IS(HGPT_ERROR_IMAGE_UNSUPPORTED, hgpt_image_from_bytes(model, pixel_marker, 64 * 11, NULL, &image));
    never(MARKER);
    pixels.stride = 0;
    OK(hgpt_image_from_pixels(model, &pixels, &image));

    /* Markers in every text, in calls that work and calls that do not. */
    hgpt_session_destroy(session);
    hgpt_session_options_init(&options, sizeof options);
    options.context_tokens = 512;
    options.system_text = MARKER " system";
    OK(hgpt_session_create(model, &options, &session));
    OK(hgpt_session_set_image(session, image));
    hgpt_ask_options_init(&ask, sizeof ask);
    ask.max_tokens = 16;
    OK(hgpt_session_ask(session, "What is " MARKER "?", HGPT_NUL_TERMINATED, &ask));
    answer = answer_of(session);
    OK(hgpt_session_ask(session, "Again, " MARKER "?", HGPT_NUL_TERMINATED, &ask));
    ask.temperature = -1;
    IS(HGPT_ERROR_ARGUMENT, hgpt_session_ask(session, MARKER, HGPT_NUL_TERMINATED, &ask));
    never(MARKER);
    IS(HGPT_ERROR_ARGUMENT, hgpt_session_ask(session, MARKER "\377", HGPT_NUL_TERMINATED, NULL));
    never(MARKER);
    OK(hgpt_session_score(session, MARKER "?", HGPT_NUL_TERMINATED, choices, 2, probability));
    {
        char *longer = malloc(8000);
        for (i = 0; i + 12 < 8000; i += 12)
            memcpy(longer + i, MARKER " ", 12);
        IS(HGPT_ERROR_CONTEXT_FULL, hgpt_session_ask(session, longer, i, NULL));
        free(longer);
    }
    never(MARKER);
    IS(HGPT_ERROR_TASK, hgpt_session_generate(session, MARKER, HGPT_NUL_TERMINATED, NULL, report, HGPT_PIXELS_RGB8, 0,
                                              sizeof report));
    never(MARKER);
    if (strlen(answer) >= 4)
        never(answer);
    OK(hgpt_session_report(session, report, sizeof report, &needed));
    CHECK(strstr(report, MARKER) == NULL);
    free(answer);
    free(pixel_marker);

    /* Parents first: lines still come. */
    hgpt_runtime_destroy(loud);
    hgpt_model_close(model);
    hgpt_image_release(image);
    hgpt_session_destroy(session);
    hgpt_model_close(other);
    hgpt_runtime_destroy(quiet);
}

/* All that needs no device: quick enough for the slowest of tools. */
void offline(void)
{
    static const char damaged[] = "\211PNG\r\n\032\n";
    hgpt_runtime_options options;
    hgpt_runtime *runtime;
    hgpt_model_info info;
    uint32_t frames;
    char text[6];
    size_t size;
    void *data;

    CHECK(hgpt_abi_version() == HGPT_ABI_VERSION && strlen(hgpt_version()) >= 5);
    CHECK(strcmp(hgpt_status_name(HGPT_ERROR_BUSY), "HGPT_ERROR_BUSY") == 0);
    CHECK(strcmp(hgpt_status_name(-5), "HGPT_UNKNOWN") == 0 && hgpt_build_info()[0] == '{');
    hgpt_runtime_options_init(&options, sizeof options);
    CHECK(options.struct_size == sizeof options && options.log_level == HGPT_LOG_INFO && options.log == NULL);
    OK(hgpt_runtime_create(&options, &runtime));
    hgpt_runtime_destroy(runtime);
    options.cache_dir = "\377";
    IS(HGPT_ERROR_ARGUMENT, hgpt_runtime_create(&options, &runtime));
    CHECK(error_says("cache_dir is not UTF-8"));
    CHECK(hgpt_last_error(text, sizeof text) > 5 && strcmp(text, "cache") == 0);

    info.struct_size = sizeof info;
    OK(hgpt_model_probe(model_path, &info));
    CHECK(info.image_tokens == GOLDEN_IMAGE_TOKENS);
    IS(HGPT_ERROR_IO, hgpt_model_probe("/no/such/model", &info));
    CHECK(info.image_tokens == 0 && info.struct_size == sizeof info);
    IS(HGPT_ERROR_IO, hgpt_model_probe("/", &info));
    IS(HGPT_ERROR_FORMAT, hgpt_model_probe(picture_path, &info));

    data = read_file(picture_path, &size);
    OK(hgpt_image_frame_count(data, size, &frames));
    CHECK(frames == 1);
    IS(HGPT_ERROR_IMAGE, hgpt_image_frame_count(damaged, sizeof damaged, &frames));
    CHECK(frames == 0);
    free(data);
}
