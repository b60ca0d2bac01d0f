#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Asks a question from Python, with nothing but ctypes. The structs are declared by hand, as any other language would.

    python3 ask.py model.safetensors picture.png "Is there a gallstone?" [libhealthgpt.so.1]
"""

import ctypes
import math
import sys
from ctypes import POINTER, byref, c_char, c_char_p, c_float, c_int32, c_size_t, c_uint8, c_uint32, c_uint64, c_void_p

NUL_TERMINATED = c_size_t(-1).value
OK, BUFFER_TOO_SMALL = 0, 2
ALLOW_SOFTWARE = 2
PROBABILITIES = 1

LOG = ctypes.CFUNCTYPE(None, c_void_p, c_uint32, c_char_p, c_size_t)
PROGRESS = ctypes.CFUNCTYPE(c_int32, c_void_p, c_float, c_char_p)


class RuntimeOptions(ctypes.Structure):
    _fields_ = [("struct_size", c_uint32), ("backends", c_uint32), ("flags", c_uint32), ("log_level", c_uint32),
                ("log", LOG), ("log_user_data", c_void_p), ("cache_dir", c_char_p)]


class DeviceInfo(ctypes.Structure):
    _fields_ = [("struct_size", c_uint32), ("backend", c_uint32), ("kind", c_uint32), ("vendor_id", c_uint32),
                ("device_id", c_uint32), ("subgroup_min", c_uint32), ("subgroup_max", c_uint32),
                ("features", c_uint32), ("verdict", c_uint32), ("reserved", c_uint32), ("memory_total", c_uint64),
                ("memory_free", c_uint64), ("max_buffer", c_uint64), ("max_binding", c_uint64), ("name", c_char * 128),
                ("driver", c_char * 128), ("profile", c_char * 64), ("pci_bus", c_char * 32)]


class ModelOptions(ctypes.Structure):
    _fields_ = [("struct_size", c_uint32), ("device", c_uint32), ("tasks", c_uint32), ("flags", c_uint32),
                ("memory_budget", c_uint64), ("expected_sha256", c_char_p), ("progress", PROGRESS),
                ("progress_user_data", c_void_p)]


class ModelInfo(ctypes.Structure):
    _fields_ = [("struct_size", c_uint32), ("tasks", c_uint32), ("max_context", c_uint32), ("image_tokens", c_uint32),
                ("output_width", c_uint32), ("output_height", c_uint32), ("sha256", c_uint8 * 32),
                ("name", c_char * 64), ("quantization", c_char * 64), ("source", c_char * 128)]


class Memory(ctypes.Structure):
    _fields_ = [("struct_size", c_uint32), ("reserved", c_uint32), ("weights", c_uint64), ("adapters", c_uint64),
                ("vision", c_uint64), ("image_decoder", c_uint64), ("kv_per_token", c_uint64),
                ("kv_reserved", c_uint64), ("scratch", c_uint64), ("staging", c_uint64), ("total", c_uint64),
                ("budget", c_uint64), ("device_free", c_uint64)]


class DecodeOptions(ctypes.Structure):
    _fields_ = [("struct_size", c_uint32), ("frame", c_uint32), ("flags", c_uint32), ("max_pixels", c_uint32)]


class Pixels(ctypes.Structure):
    _fields_ = [("struct_size", c_uint32), ("format", c_uint32), ("width", c_uint32), ("height", c_uint32),
                ("stride", c_uint64), ("size", c_uint64), ("data", c_void_p), ("crop_x", c_uint32),
                ("crop_y", c_uint32), ("crop_width", c_uint32), ("crop_height", c_uint32), ("window_center", c_float),
                ("window_width", c_float), ("invert", c_uint32), ("reserved", c_uint32)]


class SessionOptions(ctypes.Structure):
    _fields_ = [("struct_size", c_uint32), ("context_tokens", c_uint32), ("kv_format", c_uint32),
                ("slice_us", c_uint32), ("gap_us", c_uint32), ("task", c_uint32), ("system_text", c_char_p)]


class Token(ctypes.Structure):
    # `text` has `length` bytes; c_void_p, so that ctypes makes no copy of its own.
    _fields_ = [("struct_size", c_uint32), ("id", c_uint32), ("offset", c_uint32), ("length", c_uint32),
                ("logprob", c_float), ("entropy", c_float), ("text", c_void_p)]


ON_TOKEN = ctypes.CFUNCTYPE(c_int32, c_void_p, POINTER(Token))


class AskOptions(ctypes.Structure):
    _fields_ = [("struct_size", c_uint32), ("max_tokens", c_uint32), ("temperature", c_float), ("top_p", c_float),
                ("seed", c_uint64), ("timeout_ms", c_uint32), ("flags", c_uint32), ("on_token", ON_TOKEN),
                ("user_data", c_void_p)]


class GenerateOptions(ctypes.Structure):
    _fields_ = [("struct_size", c_uint32), ("flags", c_uint32), ("temperature", c_float), ("top_p", c_float),
                ("seed", c_uint64), ("timeout_ms", c_uint32), ("reserved", c_uint32), ("progress", PROGRESS),
                ("user_data", c_void_p)]


class Stats(ctypes.Structure):
    _fields_ = [("struct_size", c_uint32), ("finish", c_uint32), ("prompt_tokens", c_uint32),
                ("reused_tokens", c_uint32), ("answer_tokens", c_uint32), ("submissions", c_uint32),
                ("image_us", c_uint64), ("prompt_us", c_uint64), ("first_token_us", c_uint64), ("answer_us", c_uint64),
                ("total_us", c_uint64), ("gpu_us", c_uint64), ("longest_slice_us", c_uint64),
                ("memory_peak", c_uint64), ("mean_logprob", c_float), ("min_logprob", c_float),
                ("low_priority_granted", c_uint32), ("reserved", c_uint32)]


class HealthGPT:
    """The library, with its functions' types. ctypes needs them: it takes every result for an int."""

    def __init__(self, path):
        self.library = ctypes.CDLL(path)
        status, handle = c_int32, c_void_p
        out = POINTER(c_void_p)
        types = {
            "hgpt_abi_version": (c_uint32, []),
            "hgpt_version": (c_char_p, []),
            "hgpt_status_name": (c_char_p, [status]),
            "hgpt_last_error": (c_size_t, [c_char_p, c_size_t]),
            "hgpt_runtime_options_init": (None, [POINTER(RuntimeOptions), c_size_t]),
            "hgpt_runtime_create": (status, [POINTER(RuntimeOptions), out]),
            "hgpt_runtime_destroy": (None, [handle]),
            "hgpt_device_count": (status, [handle, POINTER(c_uint32)]),
            "hgpt_device_info_get": (status, [handle, c_uint32, POINTER(DeviceInfo)]),
            "hgpt_model_options_init": (None, [POINTER(ModelOptions), c_size_t]),
            "hgpt_model_probe": (status, [c_char_p, POINTER(ModelInfo)]),
            "hgpt_model_open": (status, [handle, c_char_p, POINTER(ModelOptions), out]),
            "hgpt_model_close": (None, [handle]),
            "hgpt_image_from_bytes": (status, [handle, c_char_p, c_size_t, POINTER(DecodeOptions), out]),
            "hgpt_image_release": (None, [handle]),
            "hgpt_session_create": (status, [handle, POINTER(SessionOptions), out]),
            "hgpt_session_set_image": (status, [handle, handle]),
            "hgpt_session_stats": (status, [handle, POINTER(Stats)]),
            "hgpt_session_destroy": (None, [handle]),
            "hgpt_ask_options_init": (None, [POINTER(AskOptions), c_size_t]),
            "hgpt_session_ask": (status, [handle, c_char_p, c_size_t, POINTER(AskOptions)]),
            "hgpt_session_answer": (status, [handle, c_char_p, c_size_t, POINTER(c_size_t)]),
        }
        for name, (result, arguments) in types.items():
            function = getattr(self.library, name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name[len("hgpt_"):], function)
        if self.abi_version() != 1:
            sys.exit("the library is of another version than this program")

    def last_error(self):
        get = self.library.hgpt_last_error
        text = ctypes.create_string_buffer(get(None, 0) + 1)
        get(text, len(text))
        return text.value.decode()

    def check(self, status):
        if status != OK:
            raise RuntimeError(f"{self.status_name(status).decode()}: {self.last_error()}")


def main(model_path, picture_path, question, library="libhealthgpt.so.1"):
    hgpt = HealthGPT(library)
    runtime, model, image, session = c_void_p(), c_void_p(), c_void_p(), c_void_p()

    options = RuntimeOptions()
    hgpt.runtime_options_init(byref(options), ctypes.sizeof(options))
    options.flags = ALLOW_SOFTWARE
    hgpt.check(hgpt.runtime_create(byref(options), byref(runtime)))
    info = ModelInfo(struct_size=ctypes.sizeof(ModelInfo))
    hgpt.check(hgpt.model_probe(model_path.encode(), byref(info)))
    print(f"{info.name.decode()}, {info.quantization.decode()}, {bytes(info.sha256).hex()[:12]}", file=sys.stderr)
    hgpt.check(hgpt.model_open(runtime, model_path.encode(), None, byref(model)))
    with open(picture_path, "rb") as file:
        picture = file.read()
    hgpt.check(hgpt.image_from_bytes(model, picture, len(picture), None, byref(image)))
    hgpt.check(hgpt.session_create(model, None, byref(session)))
    hgpt.check(hgpt.session_set_image(session, image))

    def on_token(_, token):
        t = token.contents
        print(ctypes.string_at(t.text, t.length).decode(), end="", flush=True)
        return 0

    # Kept in a variable: ctypes does not keep the callback alive.
    callback = ON_TOKEN(on_token)
    ask = AskOptions()
    hgpt.ask_options_init(byref(ask), ctypes.sizeof(ask))
    ask.flags = PROBABILITIES
    ask.on_token = callback
    text = question.encode()
    hgpt.check(hgpt.session_ask(session, text, len(text), byref(ask)))
    print()

    needed = c_size_t()
    assert hgpt.session_answer(session, None, 0, byref(needed)) == BUFFER_TOO_SMALL
    answer = ctypes.create_string_buffer(needed.value)
    hgpt.check(hgpt.session_answer(session, answer, len(answer), byref(needed)))
    stats = Stats(struct_size=ctypes.sizeof(Stats))
    hgpt.check(hgpt.session_stats(session, byref(stats)))
    print(f"{stats.answer_tokens} tokens after {stats.prompt_tokens}, mean probability "
          f"{math.exp(stats.mean_logprob):.2f}, {stats.total_us / 1e3:.0f} ms", file=sys.stderr)

    hgpt.session_destroy(session)
    hgpt.image_release(image)
    hgpt.model_close(model)
    hgpt.runtime_destroy(runtime)
    return answer.value.decode()


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    main(*sys.argv[1:])
