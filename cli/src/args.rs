//! The command line.

use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Ask a question about a medical picture, offline, on this machine's GPU.
///
/// Not a medical device: answers are a research aid and need a clinician's judgement.
#[derive(Parser)]
#[command(name = "healthgpt", version, about)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub log: Log,
}

#[derive(Subcommand)]
pub enum Command {
    /// Ask a question, with or without a picture; the answer streams to stdout
    Ask(Ask),
    /// Draw a picture from an instruction, with or without a picture to start from
    Generate(Generate),
    /// Answer and write every stage of the computation, for comparison with the reference
    Trace(Trace),
    /// Ask questions whose answers are known and count the right ones
    Eval(Eval),
    /// How well the model predicts a text
    Perplexity(Perplexity),
    /// How fast a model is on this device, and where its time goes
    Bench(Bench),
    /// What devices there are and which profile each gets
    Devices(Devices),
    /// Whether this computer can run a model, and what to do where it cannot
    Doctor(Doctor),
    /// What a model file says of itself
    Inspect(Inspect),
    /// Check every tensor of a model file against its hash
    Verify(Verify),
}

#[derive(clap::Args)]
pub struct Log {
    /// Say more on stderr; twice for more still
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub verbose: u8,
    /// Write the log to a file instead
    #[arg(long, value_name = "FILE", global = true)]
    pub log_file: Option<PathBuf>,
}

/// Where the model comes from and what it runs on.
#[derive(clap::Args)]
pub struct Open {
    /// Model file, made by `quantize`
    #[arg(short, long, value_name = "MODEL", env = "HEALTHGPT_MODEL")]
    pub model: PathBuf,
    #[command(flatten)]
    pub on: On,
}

/// What a model runs on, and how.
#[derive(clap::Args)]
pub struct On {
    /// Device: index in `healthgpt devices`, part of its name, or PCI bus id
    #[arg(long, value_name = "INDEX|NAME|PCI", env = "HEALTHGPT_DEVICE")]
    pub device: Option<String>,
    /// Profile instead of the device's own
    #[arg(long, value_name = "NAME", env = "HEALTHGPT_PROFILE")]
    pub profile: Option<String>,
    /// Kernel variants to force: `portable`, or KERNEL=VARIANT, comma separated
    #[arg(long, hide = true, env = "HEALTHGPT_VARIANT")]
    pub variant: Option<String>,
    /// Format of the KV cache [default: the profile's: q8 on a GPU, f16 in software]
    #[arg(long, value_enum)]
    pub kv: Option<Kv>,
    /// Positions to plan for: prompt, picture and answer [default: the profile's, mostly 2048, and at most the model's]
    #[arg(long, value_name = "N")]
    pub context: Option<usize>,
    /// Device memory to use at most, in bytes or with a unit: 4GiB [default: the profile's]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub memory: Option<u64>,
    /// Do not keep compiled kernels for the next time in your cache folder
    #[arg(long, env = "HEALTHGPT_NO_CACHE", value_parser = clap::builder::FalseyValueParser::new())]
    pub no_cache: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kv {
    F16,
    Q8,
    F32,
}

/// A picture.
#[derive(clap::Args)]
pub struct Image {
    /// Picture: PNG, JPEG, TIFF, BMP or DICOM, told by content; - for stdin
    #[arg(short, long, value_name = "IMAGE")]
    pub image: Option<PathBuf>,
    /// Frame of a file with several, from 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub frame: u32,
    /// Part of the picture: region (as a DICOM file names it), none, or x,y,w,h
    #[arg(long, value_name = "PART", default_value = "none", value_parser = crop)]
    pub crop: runtime::image::Crop,
}

/// How an answer is chosen.
#[derive(clap::Args)]
pub struct Choose {
    /// Most tokens of the answer [default: 512; of a traced picture, as many as it has]
    #[arg(short = 'n', long, value_name = "N")]
    pub max_tokens: Option<usize>,
    /// 0 takes the most likely token; more flattens the choice
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true)]
    pub temperature: f32,
    /// Share of the probability that the choice is made from
    #[arg(long, value_name = "P", default_value_t = 1.0, allow_negative_numbers = true)]
    pub top_p: f32,
    /// Same seed, same answer
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
    /// Earlier turns: [{"question": …, "answer": …}, …]
    #[arg(long, value_name = "FILE.json")]
    pub history: Option<PathBuf>,
}

#[derive(clap::Args)]
pub struct Ask {
    /// The question; with --chat it may be left out
    #[arg(required_unless_present = "chat")]
    pub question: Option<String>,
    #[command(flatten)]
    pub open: Open,
    #[command(flatten)]
    pub image: Image,
    #[command(flatten)]
    pub choose: Choose,
    /// Compare these answers instead of writing one: yes,no
    #[arg(long, value_name = "A,B,…", value_delimiter = ',', conflicts_with = "chat")]
    pub choices: Vec<String>,
    /// Afterwards say on stderr on which device, how fast and with how much memory
    #[arg(long)]
    pub stats: bool,
    /// Go on with questions from stdin, a line each
    #[arg(long, conflicts_with = "json")]
    pub chat: bool,
    /// One JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args)]
pub struct Generate {
    /// The instruction: "Reconstruct the image.", "Transform the MRI display into a CT image", a report, …
    pub instruction: String,
    #[command(flatten)]
    pub open: Open,
    #[command(flatten)]
    pub image: Image,
    /// PNG to write; marked as synthetic, and never over the input picture
    #[arg(short, long, value_name = "FILE.png")]
    pub output: PathBuf,
    /// Draw at random: same seed, same picture [default: the most likely codes]
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// 0 takes the most likely code [default: 1 with --seed]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    pub temperature: Option<f32>,
    /// Share of the probability that the choice is made from
    #[arg(long, value_name = "P", default_value_t = 1.0, allow_negative_numbers = true)]
    pub top_p: f32,
    /// Let the model draw any token, as the published script does; it may then end too early
    #[arg(long)]
    pub unmasked: bool,
    /// Afterwards say on stderr on which device, how fast and with how much memory
    #[arg(long)]
    pub stats: bool,
    /// The codes as a JSON array, row by row
    #[arg(long, value_name = "FILE.json")]
    pub codes_out: Option<PathBuf>,
    /// One JSON object instead of the file's name
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Task {
    Ask,
    Generate,
}

#[derive(clap::Args)]
pub struct Trace {
    /// The question or instruction
    pub question: String,
    #[command(flatten)]
    pub open: Open,
    #[command(flatten)]
    pub image: Image,
    #[command(flatten)]
    pub choose: Choose,
    /// What is traced
    #[arg(long, value_enum, default_value_t = Task::Ask)]
    pub task: Task,
    /// Where the stages go
    #[arg(short, long, value_name = "FILE.safetensors")]
    pub output: PathBuf,
}

#[derive(clap::Args)]
pub struct Eval {
    /// Questions: JSON lines of {"image", "question", "answer", "type": "closed"|"open", "topic", "choices"}, or the JSON
    /// of VQA-RAD, SLAKE, PathVQA or OmniMedVQA
    pub file: PathBuf,
    #[command(flatten)]
    pub open: Open,
    /// Folder of the pictures [default: the file's own, and those around it]
    #[arg(long, value_name = "DIR")]
    pub images: Option<PathBuf>,
    /// Only the first so many questions
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Most tokens of an answer
    #[arg(short = 'n', long, value_name = "N", default_value_t = 128)]
    pub max_tokens: usize,
    /// Also write every answer, a JSON object a line
    #[arg(short, long, value_name = "FILE.jsonl")]
    pub output: Option<PathBuf>,
    /// One JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args)]
pub struct Perplexity {
    /// Text file, UTF-8
    pub file: PathBuf,
    #[command(flatten)]
    pub open: Open,
    /// {"tokens", "nll", "perplexity"}; nll is the sum over all tokens but the first, natural logarithm
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args)]
pub struct Bench {
    // HEALTHGPT_MODEL is read later: clap would hold it against --synthetic.
    /// Model file, made by `quantize` [env: HEALTHGPT_MODEL]
    #[arg(short, long, value_name = "MODEL", conflicts_with = "synthetic")]
    pub model: Option<PathBuf>,
    /// Made-up weights with a published model's dimensions instead of a file
    #[arg(long, value_enum, value_name = "NAME")]
    pub synthetic: Option<Synthetic>,
    /// Language layers of the synthetic model [default: as published, 32]
    #[arg(long, value_name = "N", requires = "synthetic", conflicts_with = "model")]
    pub layers: Option<usize>,
    /// Weights that share a scale in the synthetic model: 32, 64 or 128
    #[arg(long, value_name = "N", default_value_t = 32, conflicts_with = "model")]
    pub group: usize,
    #[command(flatten)]
    pub on: On,
    /// What is measured
    #[arg(long, value_enum, default_value_t = Task::Ask)]
    pub task: Task,
    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub prompt: usize,
    /// Tokens decoded after it
    #[arg(long = "gen", value_name = "N", default_value_t = 16)]
    pub tokens: usize,
    /// Times that each quantity is measured, after a run that does not count
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub reps: usize,
    /// With the task's H-LoRA adapter or without
    #[arg(long, value_enum, default_value_t = Switch::On)]
    pub adapter: Switch,
    /// Leave out vision tower and picture decoder, which take minutes on a software device
    #[arg(long)]
    pub no_pictures: bool,
    /// Also the time of every kernel, for a decoded token and for a chunk of the prompt
    #[arg(long)]
    pub kernels: bool,
    /// One JSON object instead of tables
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Synthetic {
    M3,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

#[derive(clap::Args)]
pub struct Devices {
    /// A JSON array
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args)]
pub struct Doctor {
    /// Model file that should run here
    #[arg(short, long, value_name = "MODEL", env = "HEALTHGPT_MODEL")]
    pub model: Option<PathBuf>,
    #[command(flatten)]
    pub on: On,
    /// Also write everything that was found, for a mail to support; no prompts, pictures or answers
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

#[derive(clap::Args)]
pub struct Inspect {
    /// Model file
    #[arg(env = "HEALTHGPT_MODEL")]
    pub model: PathBuf,
    /// Every tensor too
    #[arg(long)]
    pub tensors: bool,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args)]
pub struct Verify {
    /// Model file
    #[arg(env = "HEALTHGPT_MODEL")]
    pub model: PathBuf,
}

fn crop(text: &str) -> Result<runtime::image::Crop, String> {
    text.parse().map_err(|e: runtime::Error| e.to_string())
}

/// 4GiB, 512MiB, 4GB, or a number of bytes.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        other => return Err(format!("unknown unit `{other}`; use KiB, MiB, GiB, KB, MB, GB or nothing")),
    };
    let number: f64 = digits.trim().parse().map_err(|_| format!("`{digits}` is not a number"))?;
    if number.is_finite() && number > 0.0 { Ok((number * unit as f64) as u64) } else { Err("must be above 0".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn memory_takes_units() {
        assert_eq!(bytes("4GiB"), Ok(4 << 30));
        assert_eq!(bytes("1.5GB"), Ok(1_500_000_000));
        assert_eq!(bytes("123"), Ok(123));
        for bad in ["", "GiB", "-1", "4 parsecs", "nan"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
