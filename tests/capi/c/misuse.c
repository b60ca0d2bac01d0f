/* What a caller should never do, and sometimes does. */
#include "check.h"

#define NUL HGPT_NUL_TERMINATED

/* Every pointer in turn. What is given is never touched, so the others may be anything that is valid. */
static void no_pointers(hgpt_runtime *runtime, hgpt_model *model, hgpt_image *image, hgpt_session *session)
{
    static const char *const choices[] = {"a", NULL};
    hgpt_device_info device;
    hgpt_model_info info;
    hgpt_memory memory;
    hgpt_stats stats;
    hgpt_token token;
    hgpt_pixels pixels;
    hgpt_runtime *no_runtime;
    hgpt_model *no_model = (hgpt_model *)&device;
    hgpt_image *no_image = (hgpt_image *)&device;
    hgpt_session *no_session = (hgpt_session *)&device;
    uint32_t number = 9, more = 9;
    size_t needed = 9;
    float probability[2];
    char text[64];

    device.struct_size = sizeof device;
    info.struct_size = sizeof info;
    memory.struct_size = sizeof memory;
    stats.struct_size = sizeof stats;
    token.struct_size = sizeof token;
    hgpt_pixels_init(&pixels, sizeof pixels);

#define NO(call) IS(HGPT_ERROR_ARGUMENT, call); CHECK(error_says("NULL"))
    hgpt_runtime_options_init(NULL, sizeof(hgpt_runtime_options));
    hgpt_model_options_init(NULL, 8);
    hgpt_pixels_init(NULL, 0);
    hgpt_decode_options_init(NULL, 8);
    hgpt_session_options_init(NULL, 8);
    hgpt_ask_options_init(NULL, 8);
    hgpt_generate_options_init(NULL, 8);
    CHECK(hgpt_last_error(NULL, 0) < 512 && hgpt_last_error(NULL, 100) < 512);

    NO(hgpt_runtime_create(NULL, NULL));
    OK(hgpt_runtime_create(NULL, &no_runtime));
    hgpt_runtime_destroy(no_runtime);
    NO(hgpt_device_count(NULL, &number));
    CHECK(number == 0);
    NO(hgpt_device_count(runtime, NULL));
    NO(hgpt_device_info_get(NULL, 0, &device));
    NO(hgpt_device_info_get(runtime, 0, NULL));

    NO(hgpt_model_probe(NULL, &info));
    NO(hgpt_model_probe(model_path, NULL));
    NO(hgpt_model_plan(NULL, model_path, NULL, NULL, &memory));
    NO(hgpt_model_plan(runtime, NULL, NULL, NULL, &memory));
    NO(hgpt_model_plan(runtime, model_path, NULL, NULL, NULL));
    NO(hgpt_model_open(NULL, model_path, NULL, &no_model));
    CHECK(no_model == NULL);
    NO(hgpt_model_open(runtime, NULL, NULL, &no_model));
    NO(hgpt_model_open(runtime, model_path, NULL, NULL));
    NO(hgpt_model_open_memory(NULL, text, 1, NULL, &no_model));
    NO(hgpt_model_open_memory(runtime, NULL, 1, NULL, &no_model));
    NO(hgpt_model_open_memory(runtime, text, 1, NULL, NULL));
    NO(hgpt_model_info_get(NULL, &info));
    NO(hgpt_model_info_get(model, NULL));
    NO(hgpt_model_memory(NULL, &memory));
    NO(hgpt_model_memory(model, NULL));
    NO(hgpt_model_self_test(NULL));
    NO(hgpt_model_trim(NULL, 0));

    NO(hgpt_image_from_pixels(NULL, &pixels, &no_image));
    CHECK(no_image == NULL);
    NO(hgpt_image_from_pixels(model, NULL, &no_image));
    NO(hgpt_image_from_pixels(model, &pixels, NULL));
    NO(hgpt_image_from_pixels(model, &pixels, &no_image)); /* its data */
    NO(hgpt_image_from_bytes(NULL, text, 1, NULL, &no_image));
    NO(hgpt_image_from_bytes(model, NULL, 1, NULL, &no_image));
    NO(hgpt_image_from_bytes(model, text, 1, NULL, NULL));
    NO(hgpt_image_frame_count(NULL, 1, &number));
    NO(hgpt_image_frame_count(text, 1, NULL));
    NO(hgpt_image_preview(NULL, text, sizeof text, &number, &more));
    NO(hgpt_image_preview(image, text, sizeof text, NULL, &more));
    NO(hgpt_image_preview(image, text, sizeof text, &number, NULL));

    NO(hgpt_session_create(NULL, NULL, &no_session));
    CHECK(no_session == NULL);
    NO(hgpt_session_create(model, NULL, NULL));
    NO(hgpt_session_set_image(NULL, image));
    NO(hgpt_session_encode(NULL));
    NO(hgpt_session_reset(NULL, 0));
    NO(hgpt_session_cancel(NULL));
    NO(hgpt_session_pause(NULL));
    NO(hgpt_session_resume(NULL));
    NO(hgpt_session_set_pace(NULL, 0, 0));
    NO(hgpt_session_stats(NULL, &stats));
    NO(hgpt_session_stats(session, NULL));
    NO(hgpt_session_report(NULL, text, sizeof text, &needed));
    NO(hgpt_session_report(session, text, sizeof text, NULL));
    NO(hgpt_session_ask(NULL, "Why?", NUL, NULL));
    NO(hgpt_session_ask(session, NULL, NUL, NULL));
    NO(hgpt_session_ask(session, NULL, 4, NULL));
    needed = 9;
    NO(hgpt_session_answer(NULL, text, sizeof text, &needed));
    CHECK(needed == 0);
    NO(hgpt_session_answer(session, text, sizeof text, NULL));
    NO(hgpt_session_token(NULL, 0, &token));
    NO(hgpt_session_token(session, 0, NULL));
    NO(hgpt_session_score(NULL, "Why?", NUL, choices, 1, probability));
    NO(hgpt_session_score(session, NULL, NUL, choices, 1, probability));
    NO(hgpt_session_score(session, "Why?", NUL, NULL, 1, probability));
    NO(hgpt_session_score(session, "Why?", NUL, choices, 1, NULL));
    NO(hgpt_session_score(session, "Why?", NUL, choices, 2, probability)); /* choices[1] */
    NO(hgpt_session_generate(NULL, "Draw.", NUL, NULL, text, HGPT_PIXELS_RGB8, 0, sizeof text));
    NO(hgpt_session_generate(session, NULL, NUL, NULL, text, HGPT_PIXELS_RGB8, 0, sizeof text));

    /* And every end. */
    hgpt_session_destroy(NULL);
    hgpt_image_release(NULL);
    hgpt_model_close(NULL);
    hgpt_runtime_destroy(NULL);
}

static hgpt_status image_of(hgpt_model *model, void (*change)(hgpt_pixels *))
{
    static const uint8_t data[16];
    hgpt_image *image = NULL;
    hgpt_pixels pixels;
    hgpt_status status;

    hgpt_pixels_init(&pixels, sizeof pixels);
    pixels.format = HGPT_PIXELS_GRAY8;
    pixels.width = pixels.height = 4;
    pixels.data = data;
    pixels.size = sizeof data;
    change(&pixels);
    status = hgpt_image_from_pixels(model, &pixels, &image);
    CHECK((status == HGPT_OK) == (image != NULL));
    hgpt_image_release(image);
    return status;
}

static void as_it_is(hgpt_pixels *p) { (void)p; }
static void no_format(hgpt_pixels *p) { p->format = 0; }
static void strange_format(hgpt_pixels *p) { p->format = 77; }
static void too_wide(hgpt_pixels *p) { p->width = UINT32_MAX; }
static void no_height(hgpt_pixels *p) { p->height = 0; }
static void all_too_large(hgpt_pixels *p) { p->width = p->height = 16384; p->stride = p->size = UINT64_MAX; }
static void too_many_rows(hgpt_pixels *p) { p->height = 5; }
static void short_stride(hgpt_pixels *p) { p->stride = 3; }
static void long_stride(hgpt_pixels *p) { p->stride = UINT64_MAX; }
static void wrapping_stride(hgpt_pixels *p) { p->stride = UINT64_MAX / 3 + 2; }
static void no_size(hgpt_pixels *p) { p->size = 0; }
static void wide_pixels(hgpt_pixels *p) { p->format = HGPT_PIXELS_RGBA8; }
static void crop_outside(hgpt_pixels *p) { p->crop_x = 3; p->crop_width = 2; p->crop_height = 1; }
static void crop_wraps(hgpt_pixels *p) { p->crop_y = UINT32_MAX; p->crop_width = 1; p->crop_height = 2; }
static void flat_crop(hgpt_pixels *p) { p->crop_width = 2; }
static void from_the_future(hgpt_pixels *p) { p->reserved = 1; }

void misuse(void)
{
    hgpt_runtime *runtime = new_runtime(), *other;
    hgpt_model *model = open_model(runtime), *closed = NULL;
    hgpt_image *image = open_image(model), *none;
    hgpt_session *session = new_session(model), *refused;
    hgpt_runtime_options runtime_options;
    hgpt_model_options model_options;
    hgpt_session_options session_options;
    hgpt_decode_options decode;
    hgpt_device_info device;
    uint8_t wrong_hash[32] = {0};
    uint32_t frames, devices;
    size_t size;
    void *data;

    no_pointers(runtime, model, image, session);

    /* Pixels. */
    OK(image_of(model, as_it_is));
    IS(HGPT_ERROR_ARGUMENT, image_of(model, no_format));
    IS(HGPT_ERROR_ARGUMENT, image_of(model, strange_format));
    IS(HGPT_ERROR_IMAGE, image_of(model, too_wide));
    IS(HGPT_ERROR_IMAGE, image_of(model, no_height));
    IS(HGPT_ERROR_ARGUMENT, image_of(model, all_too_large));
    IS(HGPT_ERROR_ARGUMENT, image_of(model, too_many_rows));
    IS(HGPT_ERROR_ARGUMENT, image_of(model, short_stride));
    IS(HGPT_ERROR_ARGUMENT, image_of(model, long_stride));
    IS(HGPT_ERROR_ARGUMENT, image_of(model, wrapping_stride));
    IS(HGPT_ERROR_ARGUMENT, image_of(model, no_size));
    IS(HGPT_ERROR_ARGUMENT, image_of(model, wide_pixels));
    IS(HGPT_ERROR_ARGUMENT, image_of(model, crop_outside));
    IS(HGPT_ERROR_ARGUMENT, image_of(model, crop_wraps));
    IS(HGPT_ERROR_ARGUMENT, image_of(model, flat_crop));
    IS(HGPT_ERROR_VERSION, image_of(model, from_the_future));

    /* Picture files. */
    IS(HGPT_ERROR_IMAGE_UNSUPPORTED, hgpt_image_from_bytes(model, "GIF89a", 6, NULL, &none));
    IS(HGPT_ERROR_IMAGE_UNSUPPORTED, hgpt_image_frame_count("GIF89a", 6, &frames));
    IS(HGPT_ERROR_ARGUMENT, hgpt_image_from_bytes(model, "x", 0, NULL, &none));
    IS(HGPT_ERROR_ARGUMENT, hgpt_image_from_bytes(model, "x", (size_t)-1, NULL, &none));
    data = read_file(picture_path, &size);
    OK(hgpt_image_frame_count(data, size, &frames));
    CHECK(frames == 1);
    IS(HGPT_ERROR_IMAGE, hgpt_image_from_bytes(model, data, size / 2, NULL, &none));
    CHECK(none == NULL);
    hgpt_decode_options_init(&decode, sizeof decode);
    decode.frame = 1;
    IS(HGPT_ERROR_IMAGE, hgpt_image_from_bytes(model, data, size, &decode, &none));
    decode.frame = 0;
    decode.max_pixels = 100;
    IS(HGPT_ERROR_IMAGE, hgpt_image_from_bytes(model, data, size, &decode, &none));
    CHECK(error_says("max_pixels"));
    decode.max_pixels = 0;
    decode.flags = 0x40;
    IS(HGPT_ERROR_ARGUMENT, hgpt_image_from_bytes(model, data, size, &decode, &none));
    free(data);

    /* Texts. */
    IS(HGPT_ERROR_ARGUMENT, hgpt_session_ask(session, "", NUL, NULL));
    IS(HGPT_ERROR_ARGUMENT, hgpt_session_ask(session, "Why?", 0, NULL));
    IS(HGPT_ERROR_ARGUMENT, hgpt_session_ask(session, " \n", NUL, NULL));
    IS(HGPT_ERROR_ARGUMENT, hgpt_session_ask(session, "Why?", (size_t)-2, NULL));
    IS(HGPT_ERROR_ARGUMENT, hgpt_session_ask(session, "Wh\377?", NUL, NULL));
    CHECK(error_says("byte 2"));
    {
        char *text = malloc(4000);
        memset(text, 'x', 4000);
        IS(HGPT_ERROR_CONTEXT_FULL, hgpt_session_ask(session, text, 4000, NULL));
        CHECK(error_says("context_tokens"));
        free(text);
    }

    /* Options. */
    hgpt_runtime_options_init(&runtime_options, sizeof runtime_options);
    runtime_options.backends = 0x100;
    IS(HGPT_ERROR_ARGUMENT, hgpt_runtime_create(&runtime_options, &other));
    CHECK(other == NULL);
    hgpt_runtime_options_init(&runtime_options, sizeof runtime_options);
    runtime_options.log_level = 6;
    IS(HGPT_ERROR_ARGUMENT, hgpt_runtime_create(&runtime_options, &other));
    hgpt_runtime_options_init(&runtime_options, sizeof runtime_options);
    runtime_options.flags = 0x80000000u;
    IS(HGPT_ERROR_ARGUMENT, hgpt_runtime_create(&runtime_options, &other));

    OK(hgpt_device_count(runtime, &devices));
    device.struct_size = sizeof device;
    IS(HGPT_ERROR_ARGUMENT, hgpt_device_info_get(runtime, devices, &device));
    CHECK(device.name[0] == 0 && device.struct_size == sizeof device);
    device.struct_size = 2;
    IS(HGPT_ERROR_ARGUMENT, hgpt_device_info_get(runtime, 0, &device));

    hgpt_model_options_init(&model_options, sizeof model_options);
    model_options.device = 77;
    IS(HGPT_ERROR_ARGUMENT, hgpt_model_open(runtime, model_path, &model_options, &closed));
    hgpt_model_options_init(&model_options, sizeof model_options);
    model_options.tasks = 4;
    IS(HGPT_ERROR_ARGUMENT, hgpt_model_open(runtime, model_path, &model_options, &closed));
    hgpt_model_options_init(&model_options, sizeof model_options);
    model_options.flags = 8;
    IS(HGPT_ERROR_ARGUMENT, hgpt_model_open(runtime, model_path, &model_options, &closed));
    hgpt_model_options_init(&model_options, sizeof model_options);
    model_options.expected_sha256 = wrong_hash;
    IS(HGPT_ERROR_INTEGRITY, hgpt_model_open(runtime, model_path, &model_options, &closed));
    hgpt_model_options_init(&model_options, sizeof model_options);
    model_options.memory_budget = 1 << 20;
    IS(HGPT_ERROR_OUT_OF_MEMORY, hgpt_model_open(runtime, model_path, &model_options, &closed));
    CHECK(error_says("memory_budget") && closed == NULL);
    IS(HGPT_ERROR_IO, hgpt_model_open(runtime, "/no/such/model", NULL, &closed));
    CHECK(error_says("/no/such/model"));
    IS(HGPT_ERROR_FORMAT, hgpt_model_open(runtime, picture_path, NULL, &closed));
    IS(HGPT_ERROR_FORMAT, hgpt_model_open_memory(runtime, "12345678", 8, NULL, &closed));
    IS(HGPT_ERROR_ARGUMENT, hgpt_model_trim(model, 0x1000));

    hgpt_session_options_init(&session_options, sizeof session_options);
    session_options.kv_format = 9;
    IS(HGPT_ERROR_ARGUMENT, hgpt_session_create(model, &session_options, &refused));
    CHECK(refused == NULL);
    hgpt_session_options_init(&session_options, sizeof session_options);
    session_options.task = 3;
    IS(HGPT_ERROR_ARGUMENT, hgpt_session_create(model, &session_options, &refused));
    hgpt_session_options_init(&session_options, sizeof session_options);
    session_options.context_tokens = UINT32_MAX;
    IS(HGPT_ERROR_ARGUMENT, hgpt_session_create(model, &session_options, &refused));

    /* Handles that were mixed up, as programs without types may. */
    IS(HGPT_ERROR_ARGUMENT, hgpt_model_self_test((hgpt_model *)session));
    CHECK(error_says("another kind"));
    IS(HGPT_ERROR_ARGUMENT, hgpt_session_set_image(session, (hgpt_image *)model));
    hgpt_image_release((hgpt_image *)session);
    hgpt_session_destroy((hgpt_session *)model);

    /* Damaged models, from memory. */
    data = read_file(model_path, &size);
    ((char *)data)[size - 5] ^= 1;
    IS(HGPT_ERROR_INTEGRITY, hgpt_model_open_memory(runtime, data, size, NULL, &closed));
    IS(HGPT_ERROR_FORMAT, hgpt_model_open_memory(runtime, data, size - 1, NULL, &closed));
    {
        char *header = data, *version;
        for (version = header + 8; memcmp(version, "\"version\":\"1\"", 13) != 0; ++version)
            CHECK(version < header + size - 13);
        version[11] = '9';
        IS(HGPT_ERROR_VERSION, hgpt_model_open_memory(runtime, data, size, NULL, &closed));
    }
    free(data);

    /* After all that the session still answers. */
    OK(hgpt_session_set_image(session, image));
    expect(session, GOLDEN_QUESTION, NULL, GOLDEN_ANSWER);

    hgpt_runtime_destroy(runtime);
    hgpt_model_close(model);
    hgpt_image_release(image);
    hgpt_session_destroy(session);
}

/* Everything that can be ended before what depends on it. */
void handles(void)
{
    int order;

    for (order = 0; order < 4; ++order) {
        hgpt_runtime *runtime = new_runtime();
        hgpt_model *model = open_model(runtime);
        hgpt_image *image = open_image(model);
        hgpt_session *session = new_session(model);
        hgpt_ask_options options;

        hgpt_ask_options_init(&options, sizeof options);
        options.max_tokens = 2;
        OK(hgpt_session_set_image(session, image));
        if (order & 1)
            hgpt_runtime_destroy(runtime);
        if (order & 2)
            hgpt_image_release(image);
        if (order == 3)
            hgpt_model_close(model);
        OK(hgpt_session_ask(session, GOLDEN_QUESTION, NUL, &options));
        hgpt_session_destroy(session);
        if (order != 3)
            hgpt_model_close(model);
        if (!(order & 2))
            hgpt_image_release(image);
        if (!(order & 1))
            hgpt_runtime_destroy(runtime);
    }
}
