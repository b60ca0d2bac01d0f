// SPDX-License-Identifier: Apache-2.0
//
// How an ultrasound cart uses the library: the frame loop never waits for it. A worker thread owns the session; the frame
// loop freezes a frame, hands it over, draws what has been said so far, and takes the GPU back whenever it wants to.
//
//     c++ -std=c++11 cart.cpp $(pkg-config --cflags --libs healthgpt) -pthread -o cart
//     ./cart model.safetensors "What is shown?"
//
// The pictures are made up here, so that the program runs anywhere.
#include <healthgpt.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

// ---- the library in a few lines of C++ ------------------------------------------------------------------------------

std::string last_error()
{
    std::vector<char> text(hgpt_last_error(nullptr, 0) + 1);
    hgpt_last_error(text.data(), text.size());
    return text.data();
}

void check(hgpt_status status)
{
    if (status != HGPT_OK)
        throw std::runtime_error(std::string(hgpt_status_name(status)) + ": " + last_error());
}

struct Destroy {
    void operator()(hgpt_runtime *p) const { hgpt_runtime_destroy(p); }
    void operator()(hgpt_model *p) const { hgpt_model_close(p); }
    void operator()(hgpt_image *p) const { hgpt_image_release(p); }
    void operator()(hgpt_session *p) const { hgpt_session_destroy(p); }
};

template <class T> using Handle = std::unique_ptr<T, Destroy>;

// ---- what the imaging side has --------------------------------------------------------------------------------------

struct Frame {
    std::uint32_t width, height;
    std::vector<std::uint8_t> grey;
};

// A bright disc that wanders: stands for the beamformer.
Frame acquire(unsigned number)
{
    Frame frame{320, 240, std::vector<std::uint8_t>(320 * 240, 24)};
    const int x = 60 + static_cast<int>(number * 7 % 200), y = 120, r = 30;
    for (int dy = -r; dy <= r; ++dy)
        for (int dx = -r; dx <= r; ++dx)
            if (dx * dx + dy * dy <= r * r)
                frame.grey[static_cast<std::size_t>((y + dy) * 320 + x + dx)] = 200;
    return frame;
}

// ---- the worker -----------------------------------------------------------------------------------------------------

// Answers one question at a time about one frozen frame. Everything but the constructor returns at once.
class Assistant {
public:
    enum class State { Idle, Busy, Answered, Stopped, Failed };

    Assistant(const std::string &model_path, std::uint32_t slice_us)
    {
        hgpt_runtime_options runtime_options;
        hgpt_runtime_options_init(&runtime_options, sizeof runtime_options);
        runtime_options.flags = HGPT_RUNTIME_ALLOW_SOFTWARE;
        runtime_options.log_level = HGPT_LOG_WARN;
        runtime_options.log = [](void *, std::uint32_t, const char *text, std::size_t) {
            std::fprintf(stderr, "healthgpt: %s\n", text);
        };
        hgpt_runtime *runtime = nullptr;
        check(hgpt_runtime_create(&runtime_options, &runtime));
        runtime_.reset(runtime);

        // What will it take? Known before a byte is allocated.
        hgpt_memory memory;
        memory.struct_size = sizeof memory;
        check(hgpt_model_plan(runtime, model_path.c_str(), nullptr, nullptr, &memory));
        std::printf("needs %.1f MB of the device\n", static_cast<double>(memory.total) / 1e6);

        hgpt_model *model = nullptr;
        check(hgpt_model_open(runtime, model_path.c_str(), nullptr, &model));
        model_.reset(model);
        check(hgpt_model_self_test(model));

        hgpt_session_options session_options;
        hgpt_session_options_init(&session_options, sizeof session_options);
        session_options.slice_us = slice_us; // the display gets its turn at least that often
        hgpt_session *session = nullptr;
        check(hgpt_session_create(model, &session_options, &session));
        session_.reset(session);
        worker_ = std::thread([this] { work(); });
    }

    ~Assistant()
    {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            quit_ = true;
            stop_ = true;
        }
        wake_.notify_one();
        hgpt_session_cancel(session_.get());
        worker_.join();
    }

    Assistant(const Assistant &) = delete;
    Assistant &operator=(const Assistant &) = delete;

    // Freeze: a frame and a question about it.
    void ask(Frame frame, std::string question)
    {
        std::lock_guard<std::mutex> lock(mutex_);
        frame_ = std::move(frame);
        question_ = std::move(question);
        text_.clear();
        state_ = State::Busy;
        stop_ = false;
        wake_.notify_one();
    }

    // Back to live imaging for a moment: the GPU is free within a slice, the question stays open.
    void pause() { hgpt_session_pause(session_.get()); }
    void resume() { hgpt_session_resume(session_.get()); }

    // Back to live imaging for good. The flag is for a question that has not begun: the library forgets a cancel that
    // comes too early.
    void cancel()
    {
        stop_ = true;
        hgpt_session_cancel(session_.get());
    }

    // What there is to draw now.
    State state(std::string &text)
    {
        std::lock_guard<std::mutex> lock(mutex_);
        text = text_;
        return state_;
    }

private:
    void work()
    {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            wake_.wait(lock, [this] { return quit_ || state_ == State::Busy; });
            if (quit_)
                return;
            const Frame frame = std::move(frame_);
            const std::string question = question_;
            lock.unlock();
            const hgpt_status status = answer(frame, question);
            const std::string problem = status == HGPT_OK || status == HGPT_CANCELLED ? "" : last_error();
            lock.lock();
            state_ = status == HGPT_OK ? State::Answered : status == HGPT_CANCELLED ? State::Stopped : State::Failed;
            if (state_ == State::Failed)
                text_ = problem;
        }
    }

    hgpt_status answer(const Frame &frame, const std::string &question)
    {
        hgpt_pixels pixels;
        hgpt_pixels_init(&pixels, sizeof pixels);
        pixels.format = HGPT_PIXELS_GRAY8;
        pixels.width = frame.width;
        pixels.height = frame.height;
        pixels.data = frame.grey.data();
        pixels.size = frame.grey.size();
        hgpt_image *made = nullptr;
        hgpt_status status = hgpt_image_from_pixels(model_.get(), &pixels, &made);
        const Handle<hgpt_image> image(made);
        if (status == HGPT_OK)
            status = hgpt_session_set_image(session_.get(), made);
        if (status != HGPT_OK)
            return status;

        hgpt_ask_options options;
        hgpt_ask_options_init(&options, sizeof options);
        options.max_tokens = 64; // a sentence or two
        options.timeout_ms = 60000;
        options.user_data = this;
        options.on_token = [](void *self, const hgpt_token *token) -> std::int32_t {
            Assistant &assistant = *static_cast<Assistant *>(self);
            std::lock_guard<std::mutex> guard(assistant.mutex_);
            assistant.text_.append(token->text, token->length);
            return assistant.stop_ ? 1 : 0;
        };
        if (stop_)
            return HGPT_CANCELLED;
        return hgpt_session_ask(session_.get(), question.data(), question.size(), &options);
    }

    // Ended in the opposite order; any order would do.
    Handle<hgpt_runtime> runtime_;
    Handle<hgpt_model> model_;
    Handle<hgpt_session> session_;
    std::thread worker_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::atomic<bool> stop_{false};
    bool quit_ = false;
    Frame frame_{0, 0, {}};
    std::string question_, text_;
    State state_ = State::Idle;
};

// ---- the frame loop -------------------------------------------------------------------------------------------------

const char *name(Assistant::State state)
{
    switch (state) {
    case Assistant::State::Idle: return "idle";
    case Assistant::State::Busy: return "busy";
    case Assistant::State::Answered: return "answered";
    case Assistant::State::Stopped: return "stopped";
    case Assistant::State::Failed: return "failed";
    }
    return "";
}

int run(const std::string &model_path, const std::string &question)
{
    Assistant assistant(model_path, 4000);
    std::string text, shown;
    unsigned number = 0;

    // Draws frames until the assistant is through; `at_frame` is what the person at the cart does meanwhile.
    const auto frames = [&](void (*at_frame)(Assistant &, unsigned)) {
        for (unsigned since = 0;; ++since, ++number) {
            acquire(number);
            const Assistant::State state = assistant.state(text);
            if (text.size() > shown.size() && text.compare(0, shown.size(), shown) == 0)
                std::printf("frame %u: \"%s\"\n", number, text.c_str());
            shown = text;
            if (state != Assistant::State::Busy)
                return state;
            at_frame(assistant, since);
            std::this_thread::sleep_for(std::chrono::milliseconds(16));
        }
    };

    std::printf("live\n");
    for (; number < 5; ++number)
        acquire(number);

    std::printf("freeze: %s\n", question.c_str());
    assistant.ask(acquire(number), question);
    // Live for four frames in between: nothing is submitted meanwhile.
    Assistant::State state = frames([](Assistant &a, unsigned since) {
        if (since == 2)
            a.pause();
        if (since == 6)
            a.resume();
    });
    std::printf("%s: \"%s\"\n", name(state), text.c_str());
    if (state != Assistant::State::Answered)
        return 1;
    const std::string first = text;

    std::printf("freeze, then live again at once\n");
    shown.clear();
    assistant.ask(acquire(number), question);
    assistant.cancel();
    state = frames([](Assistant &, unsigned) {});
    std::printf("%s\n", name(state));
    if (state != Assistant::State::Stopped)
        return 1;

    std::printf("freeze once more\n");
    shown.clear();
    assistant.ask(acquire(number), question);
    state = frames([](Assistant &, unsigned) {});
    std::printf("%s: \"%s\"\n", name(state), text.c_str());
    return state == Assistant::State::Answered ? 0 : 1;
}

} // namespace

int main(int argc, char **argv)
{
    if (argc != 3) {
        std::fprintf(stderr, "usage: cart MODEL QUESTION\n");
        return 2;
    }
    if (hgpt_abi_version() != HGPT_ABI_VERSION) {
        std::fprintf(stderr, "the library is of another version than the header\n");
        return 1;
    }
    try {
        return run(argv[1], argv[2]);
    } catch (const std::exception &problem) {
        std::fprintf(stderr, "%s\n", problem.what());
        return 1;
    }
}
