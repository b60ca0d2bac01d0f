/* SPDX-License-Identifier: Apache-2.0
 *
 * HealthGPT on the edge: questions about medical pictures, answered on the GPU of this machine, offline.
 * Not a medical device: answers are a research aid and need a clinician's judgement.
 *
 * Made from the doc comments of runtime/capi/src by `cargo xtask header`; do not edit.
 *
 * A runtime opens models; a model makes images and sessions; a session answers questions about an image:
 *
 *     hgpt_runtime_create, hgpt_model_open, hgpt_image_from_bytes, hgpt_session_create,
 *     hgpt_session_set_image, hgpt_session_ask, hgpt_session_answer, and the four ends.
 *
 * examples/ask.c is that, complete. These rules hold for the whole interface:
 *
 * Handles     are opaque. One function makes a kind, one ends it and takes NULL. A child keeps its parent alive, so
 *             they may be ended in any order. A handle that has been ended must not be used any more.
 * Status      Functions that can fail return hgpt_status, HGPT_OK (0) for success. Results come through pointers, which
 *             are set to NULL or 0 first. hgpt_last_error has the words for the last failure on this thread.
 * Pointers    are checked for NULL. Beyond that the library must believe its caller: a pointer that is not NULL must be
 *             valid for as many bytes as the arguments say, at any alignment.
 * Structs     begin with struct_size. X_init(&x, sizeof x) sets it and all defaults; structs that are only written need
 *             x.struct_size = sizeof x. Later versions add fields at the end: what an older program does not know has its
 *             default, and a newer program that sets what this library does not know gets HGPT_ERROR_VERSION.
 *             Every pointer to options may be NULL for the defaults.
 * Strings     are UTF-8, paths included, on every system. In: pointer and length in bytes, or HGPT_NUL_TERMINATED, or where
 *             no length is asked for, with a NUL behind; at most 1 MiB. Out: into the caller's buffer, always with a NUL,
 *             cut between two characters if it is too small.
 * Memory      The library never returns memory to be freed, handles excepted. It reads what it is given only during the
 *             call, and what it gives to callbacks is theirs only until they return.
 * Callbacks   get their user_data first, run on the thread that made the call, and may call only functions marked
 *             "Thread: any". They are never called while a lock is held. Not 0 means stop. No exception and no longjmp
 *             may leave them: an exception ends the process.
 * Threads     Each function says from where it may be called. No function needs the main thread. A session does one thing
 *             at a time, and says HGPT_ERROR_BUSY rather than wait; sessions are independent and share the device fairly.
 * Stopping    A call stops between two pieces of work on the device, at most slice_us each (hgpt_session_options), and
 *             leaves the session as it was before the call.
 * Panics      A fault in the library becomes HGPT_ERROR_INTERNAL; the handle then answers HGPT_ERROR_POISONED until it is
 *             ended. The one exception is an allocation of the host that fails: the process ends.
 * Global      There is no state outside the handles. Nothing is printed, nothing is sent, and nothing is written but
 *             compiled kernels in cache_dir, if it is given.
 * Repeating   With temperature 0 and the same model file, device, driver and options, answers are the same from run to
 *             run; hgpt_session_report names what they depend on.
 */
#ifndef HEALTHGPT_H
#define HEALTHGPT_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && !defined(HGPT_STATIC)
#define HGPT_API __declspec(dllimport)
#elif defined(__GNUC__)
#define HGPT_API __attribute__((visibility("default")))
#else
#define HGPT_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/** As the length of a string: it ends at its first NUL. */
#define HGPT_NUL_TERMINATED ((size_t)-1)

/* ---- Versions, status, errors -------------------------------------------------------------------------------------- */

/** Version of the interface: raised only by a change that breaks callers. Compare it with hgpt_abi_version(). */
#define HGPT_ABI_VERSION 1

/**
 * Result of nearly every function: 0 is success, below 10 is something that the caller asked for or can do at once, the
 * rest are errors. Values never change their meaning and are never used again; later versions may add some.
 */
typedef int32_t hgpt_status;

/** Done. */
#define HGPT_OK 0
/** Stopped by hgpt_session_cancel, a callback or a time limit. Everything is as it was before the call. */
#define HGPT_CANCELLED 1
/** The buffer is too small; the needed size has been written. */
#define HGPT_BUFFER_TOO_SMALL 2
/** A NULL, a size, a value or a text that cannot be. */
#define HGPT_ERROR_ARGUMENT 10
/** A struct or a model file is from a newer version than this library. */
#define HGPT_ERROR_VERSION 11
/** Another call is running on this session. It was not disturbed. */
#define HGPT_ERROR_BUSY 12
/** An internal error happened in an earlier call on this handle. Destroy it. */
#define HGPT_ERROR_POISONED 13
/** There is no device, or none that may be taken. */
#define HGPT_ERROR_NO_DEVICE 20
/** The device lacks a feature or a limit that the model needs. */
#define HGPT_ERROR_DEVICE_UNFIT 21
/** The device was reset, unplugged, or its driver failed. It stays lost: close the model and open it again. */
#define HGPT_ERROR_DEVICE_LOST 22
/** Device memory, or the given budget, does not suffice. */
#define HGPT_ERROR_OUT_OF_MEMORY 23
/** The device computes wrongly: opening a model, or hgpt_model_self_test, found it out. */
#define HGPT_ERROR_DEVICE_FAULTY 24
/** A file is not there or cannot be read. */
#define HGPT_ERROR_IO 30
/** Not a HealthGPT model file, or a damaged one. */
#define HGPT_ERROR_FORMAT 31
/** The bytes of a model file are not those that were written, or not those that were expected. */
#define HGPT_ERROR_INTEGRITY 32
/** A picture is damaged, empty or too large. */
#define HGPT_ERROR_IMAGE 40
/** A picture is of a format that this library does not read. */
#define HGPT_ERROR_IMAGE_UNSUPPORTED 41
/** The conversation does not fit the planned context. The session is as before; reset it or ask less. */
#define HGPT_ERROR_CONTEXT_FULL 50
/** The model file lacks this task, or model or session were not opened for it. */
#define HGPT_ERROR_TASK 51
/** A fault in this library: please report hgpt_last_error. The handle is poisoned. */
#define HGPT_ERROR_INTERNAL 99

/**
 * Interface version of the library that is loaded. Where it is not HGPT_ABI_VERSION, call nothing else.
 *
 * Thread: any, at any time.
 */
HGPT_API uint32_t hgpt_abi_version(void);

/**
 * Version of the library, "1.2.3". A static string.
 *
 * Thread: any, at any time.
 */
HGPT_API const char *hgpt_version(void);

/**
 * What the library was built from, as JSON: {"version", "commit", "toolchain", "wgpu"}. A static string.
 *
 * Thread: any, at any time.
 */
HGPT_API const char *hgpt_build_info(void);

/**
 * Name of a status, "HGPT_ERROR_BUSY"; "HGPT_UNKNOWN" for a value that this version does not know. A static string.
 *
 * Thread: any, at any time.
 */
HGPT_API const char *hgpt_status_name(hgpt_status status);

/**
 * Text of the last call that failed on this thread: English, one line, names the thing; never a question, an answer or
 * anything of a picture. Later calls that succeed leave it.
 *
 * Writes at most `capacity` bytes, the final NUL included, cut between two characters; `text` may be NULL if `capacity`
 * is 0. Returns the length of the whole text in bytes, without NUL: it was cut if that is not below `capacity`.
 *
 * Thread: any, at any time; each thread has its own.
 */
HGPT_API size_t hgpt_last_error(char *text, size_t capacity);

/* ---- Runtime: what in other libraries is global -------------------------------------------------------------------- */

/** Ignore the environment variables that are there for diagnosis (WGPU_*). None ever changes a result. */
#define HGPT_RUNTIME_IGNORE_ENV 1
/** HGPT_DEVICE_BEST may take a software device where there is no other: slow, but any machine will do. */
#define HGPT_RUNTIME_ALLOW_SOFTWARE 2

/** Bits of hgpt_runtime_options.backends, and the one bit of hgpt_device_info.backend. */
#define HGPT_BACKEND_VULKAN 1
/** Direct3D 12. */
#define HGPT_BACKEND_D3D12 2
/** Metal. */
#define HGPT_BACKEND_METAL 4
/** OpenGL and OpenGL ES: the last resort, asked only where no other answers. */
#define HGPT_BACKEND_GL 8

/** Levels of log lines: something failed. */
#define HGPT_LOG_ERROR 1
/** Something is not as it should be; all goes on. */
#define HGPT_LOG_WARN 2
/** What was opened, on which device, how large. */
#define HGPT_LOG_INFO 3
/** Which kernel variants were chosen. */
#define HGPT_LOG_DEBUG 4
/** Everything. */
#define HGPT_LOG_TRACE 5

/** A runtime: log, choice of devices, folder for compiled kernels. Nothing is shared between two of them. */
typedef struct hgpt_runtime hgpt_runtime;

/**
 * Gets a log line: `text` is UTF-8 of `length` bytes with a NUL behind, valid until the callback returns. Lines of a call
 * come on the thread that made it, in order, before its other callbacks and before it returns. Never a question, an
 * answer or anything of a picture, at any level.
 */
typedef void (*hgpt_log_fn)(void *user_data, uint32_t level, const char *text, size_t length);

/** How a runtime is made. */
typedef struct hgpt_runtime_options {
    /** sizeof(hgpt_runtime_options). */
    uint32_t struct_size;
    /** HGPT_BACKEND_* to look at, or 0 for the best. */
    uint32_t backends;
    /** HGPT_RUNTIME_*. */
    uint32_t flags;
    /** HGPT_LOG_*: lines up to this level; 0 for none. HGPT_LOG_INFO by default. */
    uint32_t log_level;
    /** Gets the lines; NULL for silence. Called by every thread that makes calls, several at once. */
    hgpt_log_fn log;
    /** Handed to `log`. */
    void *log_user_data;
    /** Folder in which compiled kernels are kept for the next start; NULL writes nothing anywhere. */
    const char *cache_dir;
} hgpt_runtime_options;

/**
 * Sets options to their defaults: hgpt_runtime_options_init(&options, sizeof options).
 *
 * Thread: any, at any time.
 */
HGPT_API void hgpt_runtime_options_init(hgpt_runtime_options *options, size_t size);

/**
 * Makes a runtime. Looks for no device yet, so it also succeeds where there is none.
 *
 * `options` may be NULL for the defaults: silent, the best device, nothing written.
 *
 * Thread: any.
 * On failure: `*out` is NULL.
 */
HGPT_API hgpt_status hgpt_runtime_create(const hgpt_runtime_options *options, hgpt_runtime **out);

/**
 * Ends a runtime; NULL is fine. Its models and what is made of them stay usable, and keep what they need of it until
 * they end: so `log` must stay callable until then.
 *
 * Thread: any one, once.
 */
HGPT_API void hgpt_runtime_destroy(hgpt_runtime *runtime);

/* ---- Devices ------------------------------------------------------------------------------------------------------- */

/** As hgpt_model_options.device: the best device that may be taken. */
#define HGPT_DEVICE_BEST UINT32_MAX
/** Kinds of devices: not told. */
#define HGPT_DEVICE_OTHER 0
/** A card with its own memory. */
#define HGPT_DEVICE_DISCRETE 1
/** Shares memory with the CPU. */
#define HGPT_DEVICE_INTEGRATED 2
/** Virtualised. */
#define HGPT_DEVICE_VIRTUAL 3
/** The CPU itself. */
#define HGPT_DEVICE_SOFTWARE 4

/** Features of a device: arithmetic in 16 bits. */
#define HGPT_FEATURE_F16 1
/** Subgroup operations. */
#define HGPT_FEATURE_SUBGROUPS 2
/** Cooperative matrices ("tensor cores"). */
#define HGPT_FEATURE_COOPERATIVE_MATRIX 4
/** A clock of its own: hgpt_stats.gpu_us is measured by it. */
#define HGPT_FEATURE_TIMESTAMPS 8

/** Verdicts on a device: both tasks run. */
#define HGPT_VERDICT_FIT 1
/** Too small for the picture decoder; questions are answered. */
#define HGPT_VERDICT_FIT_WITHOUT_GENERATION 2
/** Lacks what every kernel needs. */
#define HGPT_VERDICT_UNFIT 3

/** A device. */
typedef struct hgpt_device_info {
    /** sizeof(hgpt_device_info). */
    uint32_t struct_size;
    /** HGPT_BACKEND_*; 0 for another. */
    uint32_t backend;
    /** HGPT_DEVICE_*. */
    uint32_t kind;
    /** As the driver reports it; not always a PCI id. */
    uint32_t vendor_id;
    /** As the driver reports it; not always a PCI id. */
    uint32_t device_id;
    /** Smallest subgroup, in invocations. */
    uint32_t subgroup_min;
    /** Largest subgroup, in invocations. */
    uint32_t subgroup_max;
    /** HGPT_FEATURE_*. */
    uint32_t features;
    /** HGPT_VERDICT_*. */
    uint32_t verdict;
    /** 0. */
    uint32_t reserved;
    /** Bytes; 0 where the driver does not say. */
    uint64_t memory_total;
    /** Bytes; 0 where the driver does not say. */
    uint64_t memory_free;
    /** Largest buffer in bytes. */
    uint64_t max_buffer;
    /** Largest part of a buffer that a kernel can see, in bytes. */
    uint64_t max_binding;
    /** Name. */
    char name[128];
    /** Driver and its version. */
    char driver[128];
    /** Which preferences it gets. */
    char profile[64];
    /** PCI bus id; empty where unknown. */
    char pci_bus[32];
} hgpt_device_info;

/**
 * Number of devices, best first; 0 is no error. They are looked for once per runtime, which takes up to a second.
 *
 * Thread: any.
 * On failure: `*out` is 0.
 */
HGPT_API hgpt_status hgpt_device_count(hgpt_runtime *runtime, uint32_t *out);

/**
 * A device by its index. `out->struct_size` must be set.
 *
 * Thread: any.
 * On failure: the rest of `*out` is 0.
 */
HGPT_API hgpt_status hgpt_device_info_get(hgpt_runtime *runtime, uint32_t index, hgpt_device_info *out);

/* ---- Models -------------------------------------------------------------------------------------------------------- */

/** Tasks: a question, and text as the answer. */
#define HGPT_TASK_ASK 1
/** An instruction, and a picture as the answer. */
#define HGPT_TASK_GENERATE 2

/** Ask the driver for a queue of low priority; hgpt_stats.low_priority_granted says whether there is one. */
#define HGPT_MODEL_LOW_PRIORITY 1
/**
 * Trust the device: without this, opening has every kernel show a known answer, with hgpt_runtime_options.cache_dir once
 * a driver. A kernel that fails gives way to another, and the log says so.
 */
#define HGPT_MODEL_NO_SELF_TEST 2

/** Compiled kernels that no session uses; they are compiled again when they are needed. */
#define HGPT_TRIM_KERNELS 1

/**
 * A model on a device: the weights, shared by its sessions. It keeps its runtime alive, and lives itself until the last
 * of its sessions and images has ended.
 */
typedef struct hgpt_model hgpt_model;

/**
 * Is told how far something is, from 0 to 1, and what is being done: `stage` is an English word or two, valid until the
 * callback returns. Runs on the thread that made the call. Not 0 stops.
 */
typedef int32_t (*hgpt_progress_fn)(void *user_data, float fraction, const char *stage);

/** How a model is opened. */
typedef struct hgpt_model_options {
    /** sizeof(hgpt_model_options). */
    uint32_t struct_size;
    /** Index of the device, or HGPT_DEVICE_BEST, the default. */
    uint32_t device;
    /** HGPT_TASK_* to load, together; 0 for all that the file has. */
    uint32_t tasks;
    /** HGPT_MODEL_*. */
    uint32_t flags;
    /**
     * Most bytes on the device for the model and all its sessions; 0 for no limit of its own. What would go beyond it
     * fails with HGPT_ERROR_OUT_OF_MEMORY instead of being tried.
     */
    uint64_t memory_budget;
    /** 32 bytes that hgpt_model_info.sha256 must be, or NULL. */
    const uint8_t *expected_sha256;
    /** Told while the file is read; may be NULL. */
    hgpt_progress_fn progress;
    /** Handed to `progress`. */
    void *progress_user_data;
} hgpt_model_options;

/** What a model file says of itself. */
typedef struct hgpt_model_info {
    /** sizeof(hgpt_model_info). */
    uint32_t struct_size;
    /** HGPT_TASK_* that the file has; of an open model those that it was opened for. */
    uint32_t tasks;
    /** Most tokens of context that the model was made for. */
    uint32_t max_context;
    /** Tokens that a picture takes of it; 0 if the model takes none. */
    uint32_t image_tokens;
    /** Width of the pictures that hgpt_session_generate draws, in pixels; 0 if it draws none. */
    uint32_t output_width;
    /** Their height. */
    uint32_t output_height;
    /** Identifies the model: SHA-256 of the file's header, which holds the hash of every tensor. */
    uint8_t sha256[32];
    /** Family and size: "HealthGPT 3072x32". */
    char name[64];
    /** Recipe: "q4". */
    char quantization[64];
    /** Which program wrote the file. */
    char source[128];
} hgpt_model_info;

/** Device memory in bytes, by what it is for. */
typedef struct hgpt_memory {
    /** sizeof(hgpt_memory). */
    uint32_t struct_size;
    /** 0. */
    uint32_t reserved;
    /** Language model with its tables. */
    uint64_t weights;
    /** Adapters of the tasks. */
    uint64_t adapters;
    /** Vision tower. */
    uint64_t vision;
    /** Picture decoder. */
    uint64_t image_decoder;
    /** Cache of one token of context, in the session's format. */
    uint64_t kv_per_token;
    /** Cache of every token of context, of all sessions. */
    uint64_t kv_reserved;
    /** Intermediate results, of all sessions. */
    uint64_t scratch;
    /** Buffers through which results come back, of all sessions. */
    uint64_t staging;
    /** All of it. */
    uint64_t total;
    /** hgpt_model_options.memory_budget. */
    uint64_t budget;
    /** Free on the device; 0 where the driver does not say. */
    uint64_t device_free;
} hgpt_memory;

/**
 * Sets options to their defaults: the best device, all tasks of the file, no budget of its own, no callback.
 *
 * Thread: any, at any time.
 */
HGPT_API void hgpt_model_options_init(hgpt_model_options *options, size_t size);

/**
 * What a model file says of itself, from its header alone: milliseconds, no device. `out->struct_size` must be set.
 *
 * Thread: any.
 * On failure: the rest of `*out` is 0.
 */
HGPT_API hgpt_status hgpt_model_probe(const char *path, hgpt_model_info *out);

/**
 * Opens a model file: checks its header, loads the weights of the tasks onto the device and checks the hash of every
 * tensor on the way. Takes as long as reading the file once. The file may be removed afterwards.
 *
 * `options` may be NULL for the defaults. See hgpt_model_plan for what it will take.
 *
 * Thread: any; several may open at once.
 * Stops for `progress`.
 * On failure: `*out` is NULL, and nothing stays on the device.
 */
HGPT_API hgpt_status hgpt_model_open(hgpt_runtime *runtime, const char *path,
    const hgpt_model_options *options, hgpt_model **out);

/**
 * The same for a model file that is in memory already: decrypted, or unpacked. The bytes are read during the call and
 * not kept.
 *
 * Thread: any; several may open at once.
 * Stops for `progress`.
 * On failure: `*out` is NULL, and nothing stays on the device.
 */
HGPT_API hgpt_status hgpt_model_open_memory(hgpt_runtime *runtime, const void *data, size_t size,
    const hgpt_model_options *options, hgpt_model **out);

/**
 * What an open model says of itself. `out->struct_size` must be set.
 *
 * Thread: any.
 * On failure: the rest of `*out` is 0.
 */
HGPT_API hgpt_status hgpt_model_info_get(hgpt_model *model, hgpt_model_info *out);

/**
 * What the model and all its sessions hold of the device's memory now. `out->struct_size` must be set.
 *
 * Thread: any, also while calls run on its sessions.
 * On failure: the rest of `*out` is 0.
 */
HGPT_API hgpt_status hgpt_model_memory(hgpt_model *model, hgpt_memory *out);

/**
 * Checks the device: runs every kernel that the model uses on an input whose answer is known. For the start of a shift,
 * or when an answer looks odd. Sessions may go on meanwhile. Needs a few megabytes of the device while it runs, beyond
 * hgpt_model_plan: within a tight memory_budget run it before the sessions are made.
 *
 * Thread: any.
 * On failure: HGPT_ERROR_DEVICE_FAULTY names the kernel. The model is as before, and should not be used.
 */
HGPT_API hgpt_status hgpt_model_self_test(hgpt_model *model);

/**
 * Gives back what can be made again: HGPT_TRIM_* together, or 0 for everything of the kind.
 *
 * Thread: any.
 */
HGPT_API hgpt_status hgpt_model_trim(hgpt_model *model, uint32_t what);

/**
 * Ends a model; NULL is fine. Takes effect when the last of its sessions and images has ended.
 *
 * Thread: any one, once.
 */
HGPT_API void hgpt_model_close(hgpt_model *model);

/* ---- Images -------------------------------------------------------------------------------------------------------- */

/** Formats of pixels: one byte, black to white. */
#define HGPT_PIXELS_GRAY8 1
/** Two bytes in the byte order of this machine. Only in. */
#define HGPT_PIXELS_GRAY16 2
/** Red, green, blue. */
#define HGPT_PIXELS_RGB8 3
/** Red, green, blue, alpha. Alpha is ignored on the way in and 255 on the way out. */
#define HGPT_PIXELS_RGBA8 4
/** Blue, green, red, alpha. */
#define HGPT_PIXELS_BGRA8 5
/** Blue, green, red. */
#define HGPT_PIXELS_BGR8 6

/** Look only at the ultrasound region that a DICOM file names; at all of it where it names none. */
#define HGPT_DECODE_CROP_TO_REGION 1

/**
 * A picture made ready for one model. It never changes, holds no original pixels and keeps its model alive; any number
 * of sessions of that model may use it at once.
 */
typedef struct hgpt_image hgpt_image;

/** Pixels in memory. */
typedef struct hgpt_pixels {
    /** sizeof(hgpt_pixels). */
    uint32_t struct_size;
    /** HGPT_PIXELS_*. */
    uint32_t format;
    /** Pixels of a row, 1 to 16,384. */
    uint32_t width;
    /** Rows, 1 to 16,384, from the top. */
    uint32_t height;
    /** Bytes from a row to the next; 0 for rows without a gap. */
    uint64_t stride;
    /** Bytes at `data`: checked against all the above. */
    uint64_t size;
    /** The first row. Read only during the call. */
    const void *data;
    /** Left edge of the part to look at, in pixels. */
    uint32_t crop_x;
    /** Its upper edge. */
    uint32_t crop_y;
    /** Its width; 0 with crop_height 0 for the whole picture. */
    uint32_t crop_width;
    /** Its height. */
    uint32_t crop_height;
    /** GRAY16: value shown as middle grey. */
    float window_center;
    /** GRAY16: range of values from black to white, at least 1; 0 for the whole range of 16 bits. */
    float window_width;
    /** Not 0: black and white change places (DICOM's MONOCHROME1). */
    uint32_t invert;
    /** 0. */
    uint32_t reserved;
} hgpt_pixels;

/** How a picture file is read. */
typedef struct hgpt_decode_options {
    /** sizeof(hgpt_decode_options). */
    uint32_t struct_size;
    /** Frame of a DICOM file with several, from 0. */
    uint32_t frame;
    /** HGPT_DECODE_*. */
    uint32_t flags;
    /** Larger pictures are refused before anything is allocated for them; 0 for the most there may be, 67,108,864. */
    uint32_t max_pixels;
} hgpt_decode_options;

/**
 * Sets pixels to their defaults: no format, size or data, all of the picture, the whole range.
 *
 * Thread: any, at any time.
 */
HGPT_API void hgpt_pixels_init(hgpt_pixels *pixels, size_t size);

/**
 * Sets options to their defaults.
 *
 * Thread: any, at any time.
 */
HGPT_API void hgpt_decode_options_init(hgpt_decode_options *options, size_t size);

/**
 * An image from pixels in memory: a frame that was just frozen. The pixels are read during the call and not kept.
 *
 * Milliseconds of the CPU, nothing on the device.
 *
 * Thread: any.
 * On failure: `*out` is NULL.
 */
HGPT_API hgpt_status hgpt_image_from_pixels(hgpt_model *model, const hgpt_pixels *pixels, hgpt_image **out);

/**
 * An image from the bytes of a PNG, JPEG, TIFF, BMP or DICOM file, told by content. The bytes may be hostile; they are
 * read during the call and not kept. `options` may be NULL for the first frame, all of it.
 *
 * Thread: any.
 * On failure: `*out` is NULL.
 */
HGPT_API hgpt_status hgpt_image_from_bytes(hgpt_model *model, const void *data, size_t size,
    const hgpt_decode_options *options, hgpt_image **out);

/**
 * Frames of a picture file: those of a DICOM file, 1 of any other that can be read.
 *
 * Thread: any.
 * On failure: `*out` is 0.
 */
HGPT_API hgpt_status hgpt_image_frame_count(const void *data, size_t size, uint32_t *out);

/**
 * What the model sees: the picture padded to a square, resized and cropped, as rows of red, green, blue without a gap,
 * 3 * *width * *height bytes.
 *
 * With less `capacity` (or `rgb8` NULL) the answer is HGPT_BUFFER_TOO_SMALL, and `*width` and `*height` are set all the
 * same: call again with room for them.
 *
 * Thread: any.
 */
HGPT_API hgpt_status hgpt_image_preview(hgpt_image *image, void *rgb8, size_t capacity, uint32_t *width,
    uint32_t *height);

/**
 * Ends an image; NULL is fine. Sessions that use it keep what they need.
 *
 * Thread: any one, once.
 */
HGPT_API void hgpt_image_release(hgpt_image *image);

/* ---- Sessions ------------------------------------------------------------------------------------------------------ */

/** Formats of the cache of what was said: 16 bits. */
#define HGPT_KV_F16 0
/** 8 bits: a little more than half the memory. */
#define HGPT_KV_Q8 1

/** As slice_us: no limit but what a submission holds anyway. */
#define HGPT_SLICE_UNLIMITED UINT32_MAX

/** Why an answer ended: the model said so. */
#define HGPT_FINISH_STOP 1
/** max_tokens were reached. */
#define HGPT_FINISH_LENGTH 2
/** The call was stopped, by whatever means, or failed. */
#define HGPT_FINISH_CANCELLED 3
/** The context is full. */
#define HGPT_FINISH_FULL 4

/**
 * A session: a conversation with a model, about one picture or none. All the device memory that it needs is reserved when
 * it is made. It keeps its model alive.
 */
typedef struct hgpt_session hgpt_session;

/** How a session is made. */
typedef struct hgpt_session_options {
    /** sizeof(hgpt_session_options). */
    uint32_t struct_size;
    /**
     * Tokens that picture, questions and answers may take together, all reserved at once; 0 for what the model was
     * made for, at most 2,048.
     */
    uint32_t context_tokens;
    /** HGPT_KV_*. */
    uint32_t kv_format;
    /**
     * Longest time of the device in one piece, in microseconds: live imaging waits no longer than that for its turn.
     * Work is cut to stay below, from what is measured; one dispatch is never cut. 0 for what is known to suit the
     * device (4,000 where nothing is), HGPT_SLICE_UNLIMITED to be quickest.
     */
    uint32_t slice_us;
    /** Idle time of the device between two pieces, in microseconds. */
    uint32_t gap_us;
    /** HGPT_TASK_ASK or HGPT_TASK_GENERATE; 0 for the first of them that the model was opened for. */
    uint32_t task;
    /** What the model is told that it is; NULL for the text that it was trained with. Read during the call. */
    const char *system_text;
} hgpt_session_options;

/** What the last hgpt_session_encode, _ask, _score or _generate did, whether or not it succeeded. Times in microseconds. */
typedef struct hgpt_stats {
    /** sizeof(hgpt_stats). */
    uint32_t struct_size;
    /** HGPT_FINISH_*; 0 before the first call. */
    uint32_t finish;
    /** Tokens of the prompt, those of the picture included. */
    uint32_t prompt_tokens;
    /** Of these, the ones that earlier calls had computed. */
    uint32_t reused_tokens;
    /** Tokens of the answer, without the one that ends it; after _generate those of the picture. */
    uint32_t answer_tokens;
    /** Pieces of work that the device was given. */
    uint32_t submissions;
    /** The vision tower; 0 if the picture was encoded before. */
    uint64_t image_us;
    /** The prompt. */
    uint64_t prompt_us;
    /** From the call to the first token. */
    uint64_t first_token_us;
    /** From the first token to the last; after _generate all codes and the picture decoder. */
    uint64_t answer_us;
    /** The whole call, pauses included. */
    uint64_t total_us;
    /** Time on the device, by its own clock where it has one. */
    uint64_t gpu_us;
    /** The longest piece, likewise. */
    uint64_t longest_slice_us;
    /** Device bytes that the model and all its sessions hold: all is reserved beforehand, so there is no more in between. */
    uint64_t memory_peak;
    /** Mean of hgpt_token.logprob; NaN without HGPT_ASK_PROBABILITIES. No calibrated probability of being right. */
    float mean_logprob;
    /** The least hgpt_token.logprob; likewise. */
    float min_logprob;
    /** 1 if HGPT_MODEL_LOW_PRIORITY was granted. No back end of this version can. */
    uint32_t low_priority_granted;
    /** 0. */
    uint32_t reserved;
} hgpt_stats;

/**
 * Sets options to their defaults: the model's context in 16 bits, the device's own slice, no gap.
 *
 * Thread: any, at any time.
 */
HGPT_API void hgpt_session_options_init(hgpt_session_options *options, size_t size);

/**
 * Makes a session: compiles what it needs (seconds, the first time) and reserves its memory. No call on it allocates more.
 * `options` may be NULL for the defaults.
 *
 * Thread: any.
 * On failure: `*out` is NULL, and nothing stays reserved.
 */
HGPT_API hgpt_status hgpt_session_create(hgpt_model *model, const hgpt_session_options *options,
    hgpt_session **out);

/**
 * Starts over with another picture; NULL for none. The picture must be of the session's model. Nothing is computed yet.
 *
 * Thread: one call on a session at a time; a second one gets HGPT_ERROR_BUSY.
 * On failure: the session is as before.
 */
HGPT_API hgpt_status hgpt_session_set_image(hgpt_session *session, hgpt_image *image);

/**
 * Runs the vision tower on the session's picture now, while the question is still being typed; else the first question
 * does. Does nothing where that is done, or where there is no picture.
 *
 * Thread: one call on a session at a time; a second one gets HGPT_ERROR_BUSY.
 * Stops for hgpt_session_cancel and waits for hgpt_session_pause, within a slice.
 * On failure: the session is as before.
 */
HGPT_API hgpt_status hgpt_session_encode(hgpt_session *session);

/**
 * Forgets the conversation; the picture stays if `keep_image` is not 0, and need not be encoded again.
 *
 * Thread: one call on a session at a time; a second one gets HGPT_ERROR_BUSY.
 */
HGPT_API hgpt_status hgpt_session_reset(hgpt_session *session, uint32_t keep_image);

/**
 * Stops the call that runs on the session, if one does: it returns HGPT_CANCELLED, within a slice and what the device
 * takes to finish that, and leaves the session as it was before. Also ends a pause. Without a running call it does
 * nothing, so it may come too early: a worker should also look at a flag of its own before it calls.
 *
 * Thread: any, also while a call runs and from inside a callback; not once hgpt_session_destroy has begun.
 */
HGPT_API hgpt_status hgpt_session_cancel(hgpt_session *session);

/**
 * Gives the device nothing more to do from the next slice on; what it has been given, it finishes. The call that runs
 * stays open, and later ones wait, until hgpt_session_resume. For the moment between freeze and live.
 *
 * Thread: any, also while a call runs and from inside a callback; not once hgpt_session_destroy has begun.
 */
HGPT_API hgpt_status hgpt_session_pause(hgpt_session *session);

/**
 * Goes on after hgpt_session_pause. One call ends any number of pauses.
 *
 * Thread: any, also while a call runs and from inside a callback; not once hgpt_session_destroy has begun.
 */
HGPT_API hgpt_status hgpt_session_resume(hgpt_session *session);

/**
 * Changes how the session shares the device, from its next slice on; values as in hgpt_session_options.
 *
 * Thread: any, also while a call runs and from inside a callback; not once hgpt_session_destroy has begun.
 */
HGPT_API hgpt_status hgpt_session_set_pace(hgpt_session *session, uint32_t slice_us, uint32_t gap_us);

/**
 * Figures of the last call. `out->struct_size` must be set.
 *
 * Thread: one call on a session at a time; a second one gets HGPT_ERROR_BUSY.
 * On failure: the rest of `*out` is 0.
 */
HGPT_API hgpt_status hgpt_session_stats(hgpt_session *session, hgpt_stats *out);

/**
 * What the answers depend on besides the question, as JSON, to be kept with them: {"device", "driver", "profile",
 * "model", "recipe", "context_tokens", "kernels": {name: [variant]}}. Equal reports, equal questions and temperature 0
 * give equal tokens.
 *
 * Writes at most `capacity` bytes, the final NUL included, cut between two characters; `*needed` is what the whole text
 * takes, with its NUL. With less capacity (or `text` NULL) the answer is HGPT_BUFFER_TOO_SMALL.
 *
 * Thread: one call on a session at a time; a second one gets HGPT_ERROR_BUSY.
 */
HGPT_API hgpt_status hgpt_session_report(hgpt_session *session, char *text, size_t capacity, size_t *needed);

/**
 * Ends a session and gives its memory back; NULL is fine. A call that still runs on another thread is cancelled, and the
 * memory goes when it has returned.
 *
 * Thread: any one, once; not from inside a callback of this session.
 */
HGPT_API void hgpt_session_destroy(hgpt_session *session);

/* ---- Questions and answers ----------------------------------------------------------------------------------------- */

/** Compute logprob and entropy of each token. Costs a transfer of a few hundred kilobytes a token. */
#define HGPT_ASK_PROBABILITIES 1

/** Most choices of hgpt_session_score. */
#define HGPT_MAX_CHOICES 1024

/**
 * A token of an answer. logprob and entropy are the model's own opinion: they are not calibrated, and no probability of
 * being right.
 */
typedef struct hgpt_token {
    /** sizeof(hgpt_token). */
    uint32_t struct_size;
    /** Its number in the model's vocabulary. */
    uint32_t id;
    /** Where its text begins in the answer, in bytes. */
    uint32_t offset;
    /** Bytes of its text. Whole characters only: a token that is part of one has none, the last part has all. */
    uint32_t length;
    /** Natural logarithm of the probability of this token; NaN without HGPT_ASK_PROBABILITIES. */
    float logprob;
    /** Entropy of the distribution that it was chosen from, in nats; NaN without HGPT_ASK_PROBABILITIES. */
    float entropy;
    /** Its text, with a NUL behind: valid until the callback returns. NULL from hgpt_session_token. */
    const char *text;
} hgpt_token;

/**
 * Gets the tokens of an answer as they are chosen, on the thread that asked. Not 0 stops the answer, as
 * hgpt_session_cancel does. May come once more with the last token, for text that becomes whole only at the end.
 */
typedef int32_t (*hgpt_token_fn)(void *user_data, const hgpt_token *token);

/** How a question is answered. */
typedef struct hgpt_ask_options {
    /** sizeof(hgpt_ask_options). */
    uint32_t struct_size;
    /** Most tokens of the answer, 512 by default; 0 for as many as the context holds. */
    uint32_t max_tokens;
    /** 0 for the most likely token each time: the same answer each time. Up to about 1 for varied ones. */
    float temperature;
    /**
     * With a temperature: choose among the most likely tokens that have this share of the probability together, above 0
     * and at most 1; 0 as 1.
     */
    float top_p;
    /** With a temperature: equal seeds give equal answers. */
    uint64_t seed;
    /**
     * The call ends as if cancelled when this time has passed, in milliseconds, wherever it is, paused or not; 0 for no
     * limit.
     */
    uint32_t timeout_ms;
    /** HGPT_ASK_*. */
    uint32_t flags;
    /** Gets the tokens; may be NULL. */
    hgpt_token_fn on_token;
    /** Handed to `on_token`. */
    void *user_data;
} hgpt_ask_options;

/**
 * Sets options to their defaults: up to 512 of the most likely tokens, no time limit, no callback.
 *
 * Thread: any, at any time.
 */
HGPT_API void hgpt_ask_options_init(hgpt_ask_options *options, size_t size);

/**
 * Answers a question about the session's picture, or without one. Asked again, it is a follow-up: earlier questions and
 * answers count, and neither they nor the picture are computed again.
 *
 * `question` is UTF-8 of `length` bytes, or HGPT_NUL_TERMINATED. What it says is text to the model, never a command to the
 * program. `options` may be NULL for the defaults. The answer is read with hgpt_session_answer, and comes through
 * `on_token` while it grows.
 *
 * Thread: one call on a session at a time; a second one gets HGPT_ERROR_BUSY.
 * Stops for hgpt_session_cancel, `timeout_ms` and `on_token`, and waits for hgpt_session_pause, within a slice, wherever
 * it is.
 * On failure, HGPT_CANCELLED included: the session is as before, the last answer with it.
 */
HGPT_API hgpt_status hgpt_session_ask(hgpt_session *session, const char *question, size_t length,
    const hgpt_ask_options *options);

/**
 * The last answer that is complete.
 *
 * Writes at most `capacity` bytes, the final NUL included, cut between two characters; `*needed` is what the whole answer
 * takes, with its NUL. With less capacity (or `text` NULL) the result is HGPT_BUFFER_TOO_SMALL. Before the first answer
 * it is empty.
 *
 * Thread: one call on a session at a time; a second one gets HGPT_ERROR_BUSY.
 */
HGPT_API hgpt_status hgpt_session_answer(hgpt_session *session, char *text, size_t capacity, size_t *needed);

/**
 * A token of that answer by its index, below hgpt_stats.answer_tokens. `out->struct_size` must be set; `out->text` is
 * NULL, the text is `length` bytes of the answer from `offset`.
 *
 * Thread: one call on a session at a time; a second one gets HGPT_ERROR_BUSY.
 * On failure: the rest of `*out` is 0.
 */
HGPT_API hgpt_status hgpt_session_token(hgpt_session *session, uint32_t index, hgpt_token *out);

/**
 * How probable each of some answers is to a question, among these: "yes" and "no", say. This, not the text of a free
 * answer, is the number to hold against a threshold; it is relative to the choices and not calibrated.
 *
 * `choices` are 1 to HGPT_MAX_CHOICES texts with a NUL; `probability` gets as many numbers, which sum to 1. Earlier
 * questions and answers count.
 *
 * Thread: one call on a session at a time; a second one gets HGPT_ERROR_BUSY.
 * Stops for hgpt_session_cancel and waits for hgpt_session_pause, within a slice.
 * The session is as before, in any case. On failure: every probability is 0.
 */
HGPT_API hgpt_status hgpt_session_score(hgpt_session *session, const char *question, size_t length,
    const char *const *choices, uint32_t choice_count, float *probability);

/* ---- Pictures out -------------------------------------------------------------------------------------------------- */

/** How a picture is drawn. */
typedef struct hgpt_generate_options {
    /** sizeof(hgpt_generate_options). */
    uint32_t struct_size;
    /** 0. */
    uint32_t flags;
    /** As in hgpt_ask_options. */
    float temperature;
    /** As in hgpt_ask_options. */
    float top_p;
    /** As in hgpt_ask_options. */
    uint64_t seed;
    /** As in hgpt_ask_options. */
    uint32_t timeout_ms;
    /** 0. */
    uint32_t reserved;
    /** Told after each row of codes, with the fraction of them that is drawn; not 0 stops. May be NULL. */
    hgpt_progress_fn progress;
    /** Handed to `progress`. */
    void *user_data;
} hgpt_generate_options;

/**
 * Sets options to their defaults: the most likely picture, no time limit, no callback.
 *
 * Thread: any, at any time.
 */
HGPT_API void hgpt_generate_options_init(hgpt_generate_options *options, size_t size);

/**
 * Draws a picture from an instruction, and from the session's picture if there is one. The picture is output_width by
 * output_height of hgpt_model_info, written to `pixels` in any 8-bit HGPT_PIXELS_* with `stride` bytes from row to row (0
 * for none to spare) once it is complete. Mark it as synthetic wherever it is shown or kept; it carries no confidence.
 *
 * Needs a session made with HGPT_TASK_GENERATE. Earlier calls do not count. `options` may be NULL for the defaults.
 *
 * Thread: one call on a session at a time; a second one gets HGPT_ERROR_BUSY.
 * Stops for hgpt_session_cancel, `timeout_ms` and `progress`, and waits for hgpt_session_pause, within a slice, wherever
 * it is.
 * On failure: the session is as before, and nothing is written. HGPT_BUFFER_TOO_SMALL comes before any work.
 */
HGPT_API hgpt_status hgpt_session_generate(hgpt_session *session, const char *instruction, size_t length,
    const hgpt_generate_options *options, void *pixels, uint32_t format, uint64_t stride, size_t capacity);

/* ---- Memory, before any of it is taken ----------------------------------------------------------------------------- */

/**
 * What hgpt_model_open and one hgpt_session_create with these options would take, to the byte, from the file's header
 * and what the device says of itself: nothing is allocated or loaded. `model_options` and `session_options` may be NULL
 * for the defaults; `out->struct_size` must be set. A plan beyond memory_budget is no failure of this function: compare
 * `total` with `budget`.
 *
 * Thread: any.
 * On failure: the rest of `*out` is 0.
 */
HGPT_API hgpt_status hgpt_model_plan(hgpt_runtime *runtime, const char *path,
    const hgpt_model_options *model_options, const hgpt_session_options *session_options, hgpt_memory *out);

#ifdef __cplusplus
}
#endif

#endif /* HEALTHGPT_H */
