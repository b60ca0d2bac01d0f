// SPDX-License-Identifier: Apache-2.0
//
// Declarations for C# (.NET 5 and later, Mono), and a small class around them. Add this file to a project, and put
// healthgpt.dll, libhealthgpt.so.1 or libhealthgpt.1.dylib where the loader looks. Rules: see healthgpt.h.
using System;
using System.Runtime.InteropServices;
using System.Text;

namespace HealthGpt
{
    public enum Status
    {
        Ok = 0,
        Cancelled = 1,
        BufferTooSmall = 2,
        Argument = 10,
        Version = 11,
        Busy = 12,
        Poisoned = 13,
        NoDevice = 20,
        DeviceUnfit = 21,
        DeviceLost = 22,
        OutOfMemory = 23,
        DeviceFaulty = 24,
        Io = 30,
        Format = 31,
        Integrity = 32,
        Image = 40,
        ImageUnsupported = 41,
        ContextFull = 50,
        Task = 51,
        Internal = 99,
    }

    public sealed class HealthGptException : Exception
    {
        public readonly Status Status;

        public HealthGptException(Status status, string message) : base(message)
        {
            Status = status;
        }
    }

    [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
    public delegate void LogFn(IntPtr userData, uint level, IntPtr text, UIntPtr length);

    [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
    public delegate int ProgressFn(IntPtr userData, float fraction, IntPtr stage);

    [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
    public delegate int TokenFn(IntPtr userData, ref Token token);

    [StructLayout(LayoutKind.Sequential)]
    public struct RuntimeOptions
    {
        public uint StructSize, Backends, Flags, LogLevel;
        public IntPtr Log, LogUserData, CacheDir;
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct DeviceInfo
    {
        public uint StructSize, Backend, Kind, VendorId, DeviceId, SubgroupMin, SubgroupMax, Features, Verdict, Reserved;
        public ulong MemoryTotal, MemoryFree, MaxBuffer, MaxBinding;
        public fixed byte Name[128];
        public fixed byte Driver[128];
        public fixed byte Profile[64];
        public fixed byte PciBus[32];
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct ModelOptions
    {
        public uint StructSize, Device, Tasks, Flags;
        public ulong MemoryBudget;
        public IntPtr ExpectedSha256, Progress, ProgressUserData;
    }

    [StructLayout(LayoutKind.Sequential)]
    public unsafe struct ModelInfo
    {
        public uint StructSize, Tasks, MaxContext, ImageTokens, OutputWidth, OutputHeight;
        public fixed byte Sha256[32];
        public fixed byte Name[64];
        public fixed byte Quantization[64];
        public fixed byte Source[128];
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct Memory
    {
        public uint StructSize, Reserved;
        public ulong Weights, Adapters, Vision, ImageDecoder, KvPerToken, KvReserved, Scratch, Staging;
        public ulong Total, Budget, DeviceFree;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct Pixels
    {
        public uint StructSize, Format, Width, Height;
        public ulong Stride, Size;
        public IntPtr Data;
        public uint CropX, CropY, CropWidth, CropHeight;
        public float WindowCenter, WindowWidth;
        public uint Invert, Reserved;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct DecodeOptions
    {
        public uint StructSize, Frame, Flags, MaxPixels;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct SessionOptions
    {
        public uint StructSize, ContextTokens, KvFormat, SliceUs, GapUs, Task;
        public IntPtr SystemText;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct Token
    {
        public uint StructSize, Id, Offset, Length;
        public float Logprob, Entropy;
        public IntPtr Text;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct AskOptions
    {
        public uint StructSize, MaxTokens;
        public float Temperature, TopP;
        public ulong Seed;
        public uint TimeoutMs, Flags;
        public IntPtr OnToken, UserData;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct GenerateOptions
    {
        public uint StructSize, Flags;
        public float Temperature, TopP;
        public ulong Seed;
        public uint TimeoutMs, Reserved;
        public IntPtr Progress, UserData;
    }

    [StructLayout(LayoutKind.Sequential)]
    public struct Stats
    {
        public uint StructSize, Finish, PromptTokens, ReusedTokens, AnswerTokens, Submissions;
        public ulong ImageUs, PromptUs, FirstTokenUs, AnswerUs, TotalUs, GpuUs, LongestSliceUs, MemoryPeak;
        public float MeanLogprob, MinLogprob;
        public uint LowPriorityGranted, Reserved;
    }

    /// Every function of healthgpt.h under its own name. Handles are IntPtr; text is UTF-8 in byte arrays.
    public static class Native
    {
        // .NET finds healthgpt.dll and libhealthgpt.so by this name.
        const string Library = "healthgpt";
        const CallingConvention C = CallingConvention.Cdecl;

        public const uint AbiVersion = 1;
        public const uint DeviceBest = uint.MaxValue;
        public const uint RuntimeIgnoreEnv = 1, RuntimeAllowSoftware = 2;
        public const uint TaskAsk = 1, TaskGenerate = 2;
        public const uint PixelsGray8 = 1, PixelsGray16 = 2, PixelsRgb8 = 3, PixelsRgba8 = 4, PixelsBgra8 = 5, PixelsBgr8 = 6;
        public const uint AskProbabilities = 1;

        [DllImport(Library, CallingConvention = C)] public static extern uint hgpt_abi_version();
        [DllImport(Library, CallingConvention = C)] public static extern IntPtr hgpt_version();
        [DllImport(Library, CallingConvention = C)] public static extern IntPtr hgpt_build_info();
        [DllImport(Library, CallingConvention = C)] public static extern IntPtr hgpt_status_name(Status status);
        [DllImport(Library, CallingConvention = C)] public static extern UIntPtr hgpt_last_error([Out] byte[] text, UIntPtr capacity);

        [DllImport(Library, CallingConvention = C)] public static extern void hgpt_runtime_options_init(out RuntimeOptions options, UIntPtr size);
        [DllImport(Library, CallingConvention = C)] public static extern Status hgpt_runtime_create(ref RuntimeOptions options, out IntPtr runtime);
        [DllImport(Library, CallingConvention = C)] public static extern void hgpt_runtime_destroy(IntPtr runtime);

        [DllImport(Library, CallingConvention = C)] public static extern Status hgpt_device_count(IntPtr runtime, out uint count);
        [DllImport(Library, CallingConvention = C)] public static extern Status hgpt_device_info_get(IntPtr runtime, uint index, ref DeviceInfo info);

        [DllImport(Library, CallingConvention = C)] public static extern void hgpt_model_options_init(out ModelOptions options, UIntPtr size);
        [DllImport(Library, CallingConvention = C)] public static extern Status hgpt_model_probe(byte[] path, ref ModelInfo info);
        [DllImport(Library, CallingConvention = C)] public static extern Status hgpt_model_open(IntPtr runtime, byte[] path, ref ModelOptions options, out IntPtr model);
        [DllImport(Library, CallingConvention = C)] public static extern Status hgpt_model_open_memory(IntPtr runtime, byte[] data, UIntPtr size, ref ModelOptions options, out IntPtr model);
        [DllImport(Library, CallingConvention = C)] public static extern Status hgpt_model_info_get(IntPtr model, ref ModelInfo info);
        [DllImport(Library, CallingConvention = C)] public static extern Status hgpt_model_memory(IntPtr model, ref Memory memory);
        [DllImport(Library, CallingConvention = C)] public static extern Status hgpt_model_self_test(IntPtr model);
        [DllImport(Library, CallingConvention = C)] public static extern Status hgpt_model_trim(IntPtr model, uint what);
        [DllImport(Library, CallingConvention = C)] public static extern void hgpt_model_close(IntPtr model);
        [DllImport(Library, CallingConvention = C)] public static extern Status hgpt_model_plan(IntPtr runtime, byte[] path, ref ModelOptions modelOptions, ref SessionOptions sessionOptions, ref Memory memory);

        [DllImport(Library, CallingConvention = C)] public static extern void hgpt_pixels_init(out Pixels pixels, UIntPtr size);
        [DllImport(Library, CallingConvention = C)] public static extern void hgpt_decode_options_init(out DecodeOptions options, UIntPtr size);
        [DllImport(Library, CallingConvention = C)] public static extern Status hgpt_image_from_pixels(IntPtr model, ref Pixels pixels, out IntPtr image);
        [DllImport(Library, CallingConvention = C)] public static extern Status hgpt_image_from_bytes(IntPtr model, byte[] data, UIntPtr size, ref DecodeOptions options, out IntPtr image);
        [DllImport(Library, CallingConvention = C)] public static extern Status hgpt_image_frame_count(byte[] data, UIntPtr size, out uint count);
        [DllImport(Library, CallingConvention = C)] public static extern Status hgpt_image_preview(IntPtr image, [Out] byte[] rgb8, UIntPtr capacity, out uint width, out uint height);
        [DllImport(Library, CallingConvention = C)] public static extern void hgpt_image_release(IntPtr image);

        [DllImport(Library, CallingConvention = C)] public static extern void hgpt_session_options_init(out SessionOptions options, UIntPtr size);
        [DllImport(Library, CallingConvention = C)] public static extern Status hgpt_session_create(IntPtr model, ref SessionOptions options, out IntPtr session);
        [DllImport(Library, CallingConvention = C)] public static extern Status hgpt_session_set_image(IntPtr session, IntPtr image);
        [DllImport(Library, CallingConvention = C)] public static extern Status hgpt_session_encode(IntPtr session);
        [DllImport(Library, CallingConvention = C)] public static extern Status hgpt_session_reset(IntPtr session, uint keepImage);
        [DllImport(Library, CallingConvention = C)] public static extern Status hgpt_session_cancel(IntPtr session);
        [DllImport(Library, CallingConvention = C)] public static extern Status hgpt_session_pause(IntPtr session);
        [DllImport(Library, CallingConvention = C)] public static extern Status hgpt_session_resume(IntPtr session);
        [DllImport(Library, CallingConvention = C)] public static extern Status hgpt_session_set_pace(IntPtr session, uint sliceUs, uint gapUs);
        [DllImport(Library, CallingConvention = C)] public static extern Status hgpt_session_stats(IntPtr session, ref Stats stats);
        [DllImport(Library, CallingConvention = C)] public static extern Status hgpt_session_report(IntPtr session, [Out] byte[] text, UIntPtr capacity, out UIntPtr needed);
        [DllImport(Library, CallingConvention = C)] public static extern void hgpt_session_destroy(IntPtr session);

        [DllImport(Library, CallingConvention = C)] public static extern void hgpt_ask_options_init(out AskOptions options, UIntPtr size);
        [DllImport(Library, CallingConvention = C)] public static extern Status hgpt_session_ask(IntPtr session, byte[] question, UIntPtr length, ref AskOptions options);
        [DllImport(Library, CallingConvention = C)] public static extern Status hgpt_session_answer(IntPtr session, [Out] byte[] text, UIntPtr capacity, out UIntPtr needed);
        [DllImport(Library, CallingConvention = C)] public static extern Status hgpt_session_token(IntPtr session, uint index, ref Token token);
        [DllImport(Library, CallingConvention = C)] public static extern Status hgpt_session_score(IntPtr session, byte[] question, UIntPtr length, IntPtr[] choices, uint choiceCount, [Out] float[] probability);

        [DllImport(Library, CallingConvention = C)] public static extern void hgpt_generate_options_init(out GenerateOptions options, UIntPtr size);
        [DllImport(Library, CallingConvention = C)] public static extern Status hgpt_session_generate(IntPtr session, byte[] instruction, UIntPtr length, ref GenerateOptions options, [Out] byte[] pixels, uint format, ulong stride, UIntPtr capacity);

        /// UTF-8 with a NUL behind.
        public static byte[] Utf8(string text)
        {
            return Encoding.UTF8.GetBytes(text + "\0");
        }

        public static void Check(Status status)
        {
            if (status == Status.Ok)
                return;
            var text = new byte[(int)hgpt_last_error(null, UIntPtr.Zero) + 1];
            hgpt_last_error(text, (UIntPtr)text.Length);
            throw new HealthGptException(status, Encoding.UTF8.GetString(text, 0, text.Length - 1));
        }
    }

    /// A model, a picture, a question, the answer.
    public static class Example
    {
        public static string Ask(string modelPath, byte[] picture, string question, Action<string> onText)
        {
            if (Native.hgpt_abi_version() != Native.AbiVersion)
                throw new InvalidOperationException("the library is of another version than these declarations");
            IntPtr runtime = IntPtr.Zero, model = IntPtr.Zero, image = IntPtr.Zero, session = IntPtr.Zero;
            try
            {
                RuntimeOptions options;
                Native.hgpt_runtime_options_init(out options, (UIntPtr)Marshal.SizeOf(typeof(RuntimeOptions)));
                options.Flags = Native.RuntimeAllowSoftware;
                Native.Check(Native.hgpt_runtime_create(ref options, out runtime));
                ModelOptions modelOptions;
                Native.hgpt_model_options_init(out modelOptions, (UIntPtr)Marshal.SizeOf(typeof(ModelOptions)));
                Native.Check(Native.hgpt_model_open(runtime, Native.Utf8(modelPath), ref modelOptions, out model));
                DecodeOptions decode;
                Native.hgpt_decode_options_init(out decode, (UIntPtr)Marshal.SizeOf(typeof(DecodeOptions)));
                Native.Check(Native.hgpt_image_from_bytes(model, picture, (UIntPtr)picture.Length, ref decode, out image));
                SessionOptions sessionOptions;
                Native.hgpt_session_options_init(out sessionOptions, (UIntPtr)Marshal.SizeOf(typeof(SessionOptions)));
                Native.Check(Native.hgpt_session_create(model, ref sessionOptions, out session));
                Native.Check(Native.hgpt_session_set_image(session, image));

                // An exception must not leave a callback: it is kept, and the answer stopped.
                Exception problem = null;
                TokenFn onToken = (IntPtr userData, ref Token token) =>
                {
                    try
                    {
                        var bytes = new byte[token.Length];
                        Marshal.Copy(token.Text, bytes, 0, bytes.Length);
                        onText(Encoding.UTF8.GetString(bytes));
                        return 0;
                    }
                    catch (Exception e)
                    {
                        problem = e;
                        return 1;
                    }
                };
                AskOptions ask;
                Native.hgpt_ask_options_init(out ask, (UIntPtr)Marshal.SizeOf(typeof(AskOptions)));
                ask.OnToken = Marshal.GetFunctionPointerForDelegate(onToken);
                byte[] text = Encoding.UTF8.GetBytes(question);
                Status status = Native.hgpt_session_ask(session, text, (UIntPtr)text.Length, ref ask);
                GC.KeepAlive(onToken);
                if (problem != null)
                    throw problem;
                Native.Check(status);

                UIntPtr needed;
                Native.hgpt_session_answer(session, null, UIntPtr.Zero, out needed);
                var answer = new byte[(int)needed];
                Native.Check(Native.hgpt_session_answer(session, answer, needed, out needed));
                return Encoding.UTF8.GetString(answer, 0, answer.Length - 1);
            }
            finally
            {
                Native.hgpt_session_destroy(session);
                Native.hgpt_image_release(image);
                Native.hgpt_model_close(model);
                Native.hgpt_runtime_destroy(runtime);
            }
        }
    }
}
