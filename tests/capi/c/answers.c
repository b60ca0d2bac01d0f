/* The golden answers, and what is said about them. */
#include "check.h"

#include <math.h>

struct stream {
    hgpt_session *session;
    char text[1024];
    uint32_t ids[64];
    uint32_t calls;
    uint32_t reserved;
};

/* Puts the answer together again from the tokens. */
static int32_t collect(void *user_data, const hgpt_token *token)
{
    struct stream *stream = user_data;

    CHECK(token->struct_size == sizeof *token);
    CHECK(token->offset == strlen(stream->text) && token->offset + token->length < sizeof stream->text);
    CHECK(strlen(token->text) == token->length);
    memcpy(stream->text + token->offset, token->text, token->length + 1);
    CHECK(stream->calls < 64);
    stream->ids[stream->calls++] = token->id;
    return 0;
}

static void check_info(const hgpt_model_info *info)
{
    static const uint8_t none[32];

    CHECK(info->tasks == HGPT_TASK_ASK || info->tasks == (HGPT_TASK_ASK | HGPT_TASK_GENERATE));
    CHECK(info->max_context == 4096 && info->image_tokens == GOLDEN_IMAGE_TOKENS);
    CHECK(info->output_width == 64 && info->output_height == 64);
    CHECK(memcmp(info->sha256, none, 32) != 0);
    CHECK(strcmp(info->name, "HealthGPT 192x3") == 0 && strcmp(info->quantization, "f16") == 0);
    CHECK(strncmp(info->source, "quantize", 8) == 0);
}

static int32_t loading(void *user_data, float fraction, const char *stage)
{
    float *last = user_data;

    CHECK(fraction >= *last && fraction <= 1.0f && stage[0] != 0);
    *last = fraction;
    return 0;
}

void answers(void)
{
    hgpt_runtime *runtime = new_runtime();
    hgpt_model_options model_options;
    hgpt_session_options session_options;
    hgpt_model_info info, probed;
    hgpt_memory plan, memory;
    hgpt_model *model, *twin;
    hgpt_session *session;
    hgpt_image *image;
    hgpt_ask_options ask;
    hgpt_token token;
    hgpt_stats stats;
    static struct stream stream;
    char small[8], report[4096];
    float progress = 0;
    uint32_t width, height, i, devices;
    size_t needed, size;
    void *data, *preview;

    /* Devices. */
    OK(hgpt_device_count(runtime, &devices));
    CHECK(devices > 0);
    for (i = 0; i < devices; ++i) {
        hgpt_device_info device;
        device.struct_size = sizeof device;
        OK(hgpt_device_info_get(runtime, i, &device));
        CHECK(device.name[0] != 0 && device.profile[0] != 0 && device.verdict == HGPT_VERDICT_FIT);
        CHECK(device.max_binding >= 128u << 20 && device.max_buffer >= device.max_binding);
        CHECK(device.subgroup_min > 0 && device.subgroup_max >= device.subgroup_min);
    }

    /* What the file says, what it will take, and what it takes. */
    probed.struct_size = info.struct_size = sizeof info;
    plan.struct_size = memory.struct_size = sizeof plan;
    OK(hgpt_model_probe(model_path, &probed));
    check_info(&probed);
    hgpt_model_options_init(&model_options, sizeof model_options);
    model_options.tasks = HGPT_TASK_ASK;
    model_options.expected_sha256 = probed.sha256;
    model_options.progress = loading;
    model_options.progress_user_data = &progress;
    hgpt_session_options_init(&session_options, sizeof session_options);
    session_options.context_tokens = 512;
    OK(hgpt_model_plan(runtime, model_path, &model_options, &session_options, &plan));
    model_options.memory_budget = plan.total;
    OK(hgpt_model_open(runtime, model_path, &model_options, &model));
    CHECK(progress == 1.0f);
    OK(hgpt_model_info_get(model, &info));
    check_info(&info);
    CHECK(info.tasks == HGPT_TASK_ASK && memcmp(info.sha256, probed.sha256, 32) == 0);
    OK(hgpt_session_create(model, &session_options, &session));
    OK(hgpt_model_memory(model, &memory));
    CHECK(memory.total == plan.total && memory.budget == plan.total);
    CHECK(memory.weights == plan.weights && memory.adapters == plan.adapters && memory.vision == plan.vision);
    CHECK(memory.kv_reserved == plan.kv_reserved && memory.kv_per_token * 512 == memory.kv_reserved);
    CHECK(memory.scratch == plan.scratch && memory.staging == plan.staging && memory.image_decoder == 0);
    OK(hgpt_model_trim(model, 0));

    /* The picture. */
    image = open_image(model);
    IS(HGPT_BUFFER_TOO_SMALL, hgpt_image_preview(image, NULL, 0, &width, &height));
    CHECK(width == 112 && height == 112);
    preview = malloc((size_t)width * height * 3);
    OK(hgpt_image_preview(image, preview, (size_t)width * height * 3, &width, &height));
    /* Padded above and below, in the colour that the preprocessor names. */
    CHECK(memcmp(preview, "\172\164\150", 3) == 0);
    free(preview);
    OK(hgpt_session_set_image(session, image));
    OK(hgpt_session_encode(session));
    stats.struct_size = sizeof stats;
    OK(hgpt_session_stats(session, &stats));
    CHECK(stats.image_us > 0 && stats.submissions > 0);

    /* The question. */
    hgpt_ask_options_init(&ask, sizeof ask);
    ask.on_token = collect;
    ask.user_data = &stream;
    expect(session, GOLDEN_QUESTION, &ask, GOLDEN_ANSWER);
    CHECK(strcmp(stream.text, GOLDEN_ANSWER) == 0);
    OK(hgpt_session_stats(session, &stats));
    CHECK(stats.finish == HGPT_FINISH_STOP && stats.prompt_tokens == GOLDEN_PROMPT_TOKENS);
    CHECK(stats.answer_tokens == GOLDEN_TOKENS && stats.reused_tokens == 0);
    CHECK(stats.total_us >= stats.first_token_us && stats.first_token_us > 0 && stats.memory_peak > 0);
    CHECK(isnan(stats.mean_logprob) && isnan(stats.min_logprob));
    {
        static const uint32_t golden[] = GOLDEN_IDS;
        CHECK(stream.calls >= GOLDEN_TOKENS);
        CHECK(memcmp(stream.ids, golden, sizeof(uint32_t) * GOLDEN_TOKENS) == 0);
    }

    /* Its tokens, one by one. */
    token.struct_size = sizeof token;
    needed = 0;
    for (i = 0; i < stats.answer_tokens; ++i) {
        OK(hgpt_session_token(session, i, &token));
        CHECK(token.id == stream.ids[i] && token.offset == needed && token.text == NULL);
        CHECK(isnan(token.logprob) && isnan(token.entropy));
        needed += token.length;
    }
    CHECK(needed == strlen(GOLDEN_ANSWER));
    IS(HGPT_ERROR_ARGUMENT, hgpt_session_token(session, i, &token));

    /* A buffer that is too small. */
    memset(small, 'x', sizeof small);
    IS(HGPT_BUFFER_TOO_SMALL, hgpt_session_answer(session, small, 4, &needed));
    CHECK(needed == sizeof GOLDEN_ANSWER && memcmp(small, GOLDEN_ANSWER, 3) == 0 && small[3] == 0 && small[4] == 'x');

    /* A follow-up: nothing is computed again. */
    expect(session, SECOND_QUESTION, NULL, SECOND_ANSWER);
    OK(hgpt_session_stats(session, &stats));
    CHECK(stats.reused_tokens >= GOLDEN_PROMPT_TOKENS);

    /* Again from the start, with the model's opinion of its tokens. */
    OK(hgpt_session_reset(session, 1));
    IS(HGPT_BUFFER_TOO_SMALL, hgpt_session_answer(session, NULL, 0, &needed));
    CHECK(needed == 1);
    memset(&stream, 0, sizeof stream);
    ask.flags = HGPT_ASK_PROBABILITIES;
    expect(session, GOLDEN_QUESTION, &ask, GOLDEN_ANSWER);
    OK(hgpt_session_stats(session, &stats));
    CHECK(stats.mean_logprob < 0 && stats.min_logprob <= stats.mean_logprob);
    OK(hgpt_session_token(session, 0, &token));
    CHECK(token.logprob <= 0 && token.entropy >= 0);

    /* Shorter than it would be. */
    OK(hgpt_session_reset(session, 1));
    ask.flags = 0;
    ask.on_token = NULL;
    ask.max_tokens = 3;
    OK(hgpt_session_ask(session, GOLDEN_QUESTION, strlen(GOLDEN_QUESTION), &ask));
    OK(hgpt_session_stats(session, &stats));
    CHECK(stats.finish == HGPT_FINISH_LENGTH && stats.answer_tokens == 3);

    /* Without a picture. */
    OK(hgpt_session_set_image(session, NULL));
    ask.max_tokens = TEXT_MAX_TOKENS;
    expect(session, TEXT_QUESTION, &ask, TEXT_ANSWER);
    OK(hgpt_session_reset(session, 0));
    expect(session, TEXT_QUESTION, &ask, TEXT_ANSWER);

    /* What it all depends on. */
    OK(hgpt_session_report(session, report, sizeof report, &needed));
    CHECK(strstr(report, "\"gemv\"") != NULL && strstr(report, "\"driver\"") != NULL);
    CHECK(strstr(report, "\"context_tokens\":512") != NULL && needed == strlen(report) + 1);

    /* The same from memory, and pixels instead of a file. */
    data = read_file(model_path, &size);
    model_options.progress = NULL;
    model_options.memory_budget = 0;
    OK(hgpt_model_open_memory(runtime, data, size, &model_options, &twin));
    OK(hgpt_model_self_test(twin));
    memset(data, 0, size);
    free(data);
    hgpt_session_destroy(session);
    OK(hgpt_session_create(twin, &session_options, &session));
    IS(HGPT_ERROR_ARGUMENT, hgpt_session_set_image(session, image));
    CHECK(error_says("another model"));
    hgpt_image_release(image);
    {
        hgpt_pixels pixels;
        hgpt_pixels_init(&pixels, sizeof pixels);
        pixels.format = HGPT_PIXELS_RGB8;
        pixels.width = GOLDEN_WIDTH;
        pixels.height = GOLDEN_HEIGHT;
        pixels.data = golden_pixels;
        pixels.size = sizeof golden_pixels;
        OK(hgpt_image_from_pixels(twin, &pixels, &image));
    }
    OK(hgpt_session_set_image(session, image));
    expect(session, GOLDEN_QUESTION, NULL, GOLDEN_ANSWER);

    hgpt_session_destroy(session);
    hgpt_image_release(image);
    hgpt_model_close(twin);
    hgpt_model_close(model);
    hgpt_runtime_destroy(runtime);
}

void choices(void)
{
    static const char *const options[] = {GOLDEN_ANSWER, "Yes.", "No."};
    hgpt_session *session = ready();
    float probability[3] = {9, 9, 9};
    int i;

    OK(hgpt_session_score(session, GOLDEN_QUESTION, HGPT_NUL_TERMINATED, options, 3, probability));
    CHECK(fabsf(probability[0] + probability[1] + probability[2] - 1) < 1e-5f);
    for (i = 0; i < 3; ++i)
        CHECK(probability[i] > 0 && probability[i] < 1);

    /* The session is as before, in the middle of a conversation too. */
    expect(session, GOLDEN_QUESTION, NULL, GOLDEN_ANSWER);
    OK(hgpt_session_score(session, "Is it large?", HGPT_NUL_TERMINATED, options + 1, 2, probability));
    {
        char *answer = answer_of(session);
        CHECK(strcmp(answer, GOLDEN_ANSWER) == 0);
        free(answer);
    }
    expect(session, SECOND_QUESTION, NULL, SECOND_ANSWER);

    for (i = 0; i < 3; ++i)
        probability[i] = 9;
    IS(HGPT_ERROR_ARGUMENT, hgpt_session_score(session, "Is it?", HGPT_NUL_TERMINATED, options, 0, probability));
    CHECK(probability[0] == 9);
    IS(HGPT_ERROR_ARGUMENT,
       hgpt_session_score(session, "Is it?", HGPT_NUL_TERMINATED, options, UINT32_MAX, probability));
    IS(HGPT_ERROR_ARGUMENT, hgpt_session_score(session, "", HGPT_NUL_TERMINATED, options, 3, probability));
    CHECK(probability[0] == 0 && probability[2] == 0);
    hgpt_session_destroy(session);
}

static int32_t rows(void *user_data, float fraction, const char *stage)
{
    float *last = user_data;

    CHECK(fraction > *last && fraction <= 1.0f && strcmp(stage, "codes") == 0);
    *last = fraction;
    return 0;
}

void drawing(void)
{
    hgpt_runtime *runtime = new_runtime();
    hgpt_session_options session_options;
    hgpt_generate_options options;
    hgpt_model *model;
    hgpt_image *image;
    hgpt_session *session, *asking;
    hgpt_stats stats;
    static uint8_t rgb[64 * 64 * 3], bgra[64 * 260];
    float fraction = 0;
    size_t x, y;
    FILE *file;

    OK(hgpt_model_open(runtime, model_path, NULL, &model));
    image = open_image(model);
    hgpt_session_options_init(&session_options, sizeof session_options);
    session_options.task = HGPT_TASK_GENERATE;
    session_options.context_tokens = 256;
    OK(hgpt_session_create(model, &session_options, &session));
    OK(hgpt_session_set_image(session, image));
    hgpt_generate_options_init(&options, sizeof options);
    options.progress = rows;
    options.user_data = &fraction;

    IS(HGPT_BUFFER_TOO_SMALL, hgpt_session_generate(session, DRAW_INSTRUCTION, HGPT_NUL_TERMINATED, &options, NULL,
                                                    HGPT_PIXELS_RGB8, 0, 0));
    IS(HGPT_BUFFER_TOO_SMALL, hgpt_session_generate(session, DRAW_INSTRUCTION, HGPT_NUL_TERMINATED, &options, rgb,
                                                    HGPT_PIXELS_RGB8, 0, sizeof rgb - 1));
    IS(HGPT_ERROR_ARGUMENT, hgpt_session_generate(session, DRAW_INSTRUCTION, HGPT_NUL_TERMINATED, &options, rgb,
                                                  HGPT_PIXELS_GRAY16, 0, sizeof rgb));
    OK(hgpt_session_generate(session, DRAW_INSTRUCTION, HGPT_NUL_TERMINATED, &options, rgb, HGPT_PIXELS_RGB8, 0,
                             sizeof rgb));
    CHECK(fraction == 1.0f);
    stats.struct_size = sizeof stats;
    OK(hgpt_session_stats(session, &stats));
    CHECK(stats.finish == HGPT_FINISH_STOP && stats.answer_tokens >= 64 && stats.answer_us > 0);

    /* In another format, with a gap behind each row that nobody touches. */
    memset(bgra, 0xcc, sizeof bgra);
    OK(hgpt_session_generate(session, DRAW_INSTRUCTION, HGPT_NUL_TERMINATED, NULL, bgra, HGPT_PIXELS_BGRA8, 260,
                             sizeof bgra));
    for (y = 0; y < 64; ++y) {
        for (x = 0; x < 64; ++x) {
            const uint8_t *a = rgb + (y * 64 + x) * 3, *b = bgra + y * 260 + x * 4;
            CHECK(a[0] == b[2] && a[1] == b[1] && a[2] == b[0] && b[3] == 255);
        }
        for (x = 256; x < 260; ++x)
            CHECK(bgra[y * 260 + x] == 0xcc);
    }
    file = fopen(output_path, "wb");
    CHECK(file != NULL && fwrite(rgb, 1, sizeof rgb, file) == sizeof rgb && fclose(file) == 0);

    /* Each session does what it was made for. */
    IS(HGPT_ERROR_TASK, hgpt_session_ask(session, "Why?", HGPT_NUL_TERMINATED, NULL));
    OK(hgpt_session_create(model, NULL, &asking));
    IS(HGPT_ERROR_TASK, hgpt_session_generate(asking, "Draw.", HGPT_NUL_TERMINATED, NULL, rgb, HGPT_PIXELS_RGB8, 0,
                                              sizeof rgb));
    hgpt_session_destroy(asking);
    hgpt_model_close(model);
    hgpt_image_release(image);
    hgpt_session_destroy(session);
    model = open_model(runtime);
    IS(HGPT_ERROR_TASK, hgpt_session_create(model, &session_options, &session));
    CHECK(session == NULL);
    hgpt_model_close(model);
    hgpt_runtime_destroy(runtime);
}
