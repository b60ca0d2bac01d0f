"""HealthGPT-M3 in PyTorch, small and with the published names: a module's state dict is (nearly) the published file.

Vision tower (CLIP), language model (Phi-3) with H-LoRA, projector, GumbelVQ decoder, tokenizer with the slow rules.
"""
from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn

CHAT = ("<|endoftext|>", "<|assistant|>", "<|placeholder1|>", "<|placeholder2|>", "<|placeholder3|>", "<|placeholder4|>",
        "<|system|>", "<|end|>", "<|placeholder5|>", "<|placeholder6|>", "<|user|>")
MARK = "\u2581"
SYSTEM = "You are a helpful AI assistant."
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Config:
    """Every width of the demonstration model."""

    image: int = 112
    patch: int = 14
    vision_width: int = 128
    vision_heads: int = 4
    vision_layers: int = 6  # comprehension reads the output of the fifth, generation that of the first
    vision_inner: int = 384
    width: int = 192
    heads: int = 6
    layers: int = 4
    inner: int = 512
    experts: int = 4
    rank_ask: int = 32
    rank_generate: int = 64
    codes: int = 256
    code_width: int = 64
    draw: int = 64  # side of a generated picture
    channels: int = 32
    multiples: tuple[int, ...] = (1, 1, 2, 4)
    blocks: int = 1
    pieces: int = 896

    @property
    def patches(self) -> int:
        return (self.image // self.patch) ** 2

    @property
    def grid(self) -> int:
        return self.draw >> (len(self.multiples) - 1)

    @property
    def tokens(self) -> int:
        return self.pieces + len(CHAT)

    @property
    def rows(self) -> int:
        """Rows of the base tables; like the original's, more than there are tokens."""
        return -(-(self.tokens + 1) // 64) * 64

    @property
    def start(self) -> int:
        return self.tokens

    @property
    def resized(self) -> int:
        return self.tokens + self.codes + 3

    def rank(self, task: str) -> int:
        return self.rank_ask if task == "ask" else self.rank_generate

    def as_json(self) -> dict[str, object]:
        return asdict(self)


# ---------------------------------------------------------------- tokenizer

def _token(content: str, rstrip: bool, special: bool = True) -> dict[str, object]:
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": rstrip, "single_word": False, "special": special}


def write_tokenizer(folder: Path, texts: list[str], pieces: int) -> None:
    """Learns a byte-fallback BPE and writes it in the layout of Phi-3-mini's files."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(c) for c in range(33, 127)] + [MARK]
    learner = Tokenizer(models.BPE())
    # Sentencepiece's habit: no piece mixes letters, digits and punctuation. No mark before the first word, for in a
    # prompt it follows a line break or a chat token.
    learner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(prepend_scheme="never"), pre_tokenizers.Punctuation(), pre_tokenizers.Digits()])
    room = pieces - 3 - 256
    learner.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=room, initial_alphabet=letters, limit_alphabet=len(letters), show_progress=False))
    learnt = json.loads(learner.to_str())["model"]
    order = sorted(learnt["vocab"], key=learnt["vocab"].get)
    names = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + order
    names += [f"\u27e6{i}\u27e7" for i in range(len(names), pieces)]  # fillers that no text reaches
    base = {0: _token("<unk>", False), 1: _token("<s>", False), 2: _token("</s>", True, False)}
    added = base | {pieces + i: _token(t, i > 0) for i, t in enumerate(CHAT)}
    tok = Tokenizer(models.BPE(vocab={p: i for i, p in enumerate(names)}, merges=[tuple(m) for m in learnt["merges"]],
                               unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tok.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
    tok.decoder = decoders.Sequence([decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    for t in added.values():
        one = AddedToken(t["content"], rstrip=t["rstrip"], lstrip=False, normalized=False, special=bool(t["special"]))
        (tok.add_special_tokens if t["special"] else tok.add_tokens)([one])
    text = json.loads(tok.to_str())
    text["added_tokens"] = [{"id": i, **t} for i, t in added.items()]
    seq = {"Sequence": {"id": "A", "type_id": 0}}
    text["post_processor"] = {"type": "TemplateProcessing", "single": [seq], "pair": [seq, {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": {}}
    (folder / "tokenizer.json").write_text(json.dumps(text, ensure_ascii=False, indent=1), encoding="utf-8")
    chat = ("{% for message in messages %}{{'<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n'}}{% endfor %}"
            "{% if add_generation_prompt %}{{'<|assistant|>\\n'}}{% endif %}")
    write_json(folder / "tokenizer_config.json", {
        "add_bos_token": False, "add_eos_token": False, "added_tokens_decoder": {str(i): t for i, t in added.items()}, "bos_token": "<s>",
        "chat_template": chat, "clean_up_tokenization_spaces": False, "eos_token": "<|endoftext|>", "legacy": False, "model_max_length": 4096,
        "pad_token": "<|endoftext|>", "padding_side": "left", "sp_model_kwargs": {}, "tokenizer_class": "LlamaTokenizer", "unk_token": "<unk>",
        "use_default_system_prompt": False})
    write_json(folder / "added_tokens.json", {t: pieces + i for i, t in enumerate(CHAT)})
    write_json(folder / "special_tokens_map.json", {"bos_token": _token("<s>", False) , "eos_token": _token("<|endoftext|>", False),
                                                    "pad_token": _token("<|endoftext|>", False), "unk_token": _token("<unk>", False)})


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


class Text:
    """Prompt ids by the rules of the slow Llama tokenizer with `legacy: false`; a user's text is text."""

    def __init__(self, folder: Path) -> None:
        raw = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        self.ids = {t["content"]: t["id"] for t in raw["added_tokens"]}
        raw["added_tokens"] = []
        raw["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}
        self._plain = Tokenizer.from_str(json.dumps(raw))
        self.end = self.ids["<|end|>"]
        self.stops = tuple(self.ids[t] for t in ("<|endoftext|>", "<|assistant|>", "<|end|>"))
        self.head = [*self.encode(MARK), self.ids["<|system|>"], *self.encode(SYSTEM), self.end, self.ids["<|user|>"]]

    def encode(self, text: str) -> list[int]:
        return self._plain.encode(text, add_special_tokens=False).ids

    def question(self, text: str, picture: bool) -> list[int]:
        """What follows the head, or the picture."""
        asked = self.encode(f"{MARK}\n{text}") if picture else self.encode(text.lstrip())
        return [*asked, self.end, self.ids["<|assistant|>"]]

    def answer(self, text: str) -> list[int]:
        return [*self.encode(text), self.end]

    def decode(self, ids: list[int]) -> str:
        kept = [i for i in ids if i not in self.stops]
        return self._plain.decode(kept, skip_special_tokens=False) if kept else ""


# ---------------------------------------------------------------- vision

class _ClipAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class _ClipLayer(nn.Module):
    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.self_attn = _ClipAttention(width, heads)
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, inner), "fc2": nn.Linear(inner, width)})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        h = self.mlp["fc1"](self.layer_norm2(x))
        return x + self.mlp["fc2"](h * torch.sigmoid(1.702 * h))


class _ClipEmbeddings(nn.Module):
    def __init__(self, c: Config) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.randn(c.vision_width) * 0.02)
        self.patch_embedding = nn.Conv2d(3, c.vision_width, c.patch, c.patch, bias=False)
        self.position_embedding = nn.Embedding(c.patches + 1, c.vision_width)
        nn.init.normal_(self.position_embedding.weight, std=0.1)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        return torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1) + self.position_embedding.weight


class Vision(nn.Module):
    """State dict = CLIP's `vision_model.*` without that prefix."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.embeddings = _ClipEmbeddings(c)
        self.pre_layrnorm = nn.LayerNorm(c.vision_width)
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(_ClipLayer(c.vision_width, c.vision_heads, c.vision_inner) for _ in range(c.vision_layers))})
        self.post_layernorm = nn.LayerNorm(c.vision_width)

    def forward(self, pixels: Tensor, layer: int) -> Tensor:
        """hidden_states[layer] without the class token."""
        layers = self.encoder["layers"]
        return self.hidden(pixels, layer % (len(layers) + 1))[-1][:, 1:]

    def hidden(self, pixels: Tensor, layers: int) -> list[Tensor]:
        x = self.pre_layrnorm(self.embeddings(pixels))
        out = [x]
        for layer in self.encoder["layers"][:layers]:
            x = layer(x)
            out.append(x)
        return out


def vision_layer(task: str) -> int:
    return -2 if task == "ask" else 1


def normalise(pictures: np.ndarray) -> Tensor:
    """uint8 [n, S, S] grey or [n, S, S, 3] to pixel values."""
    x = torch.from_numpy(np.ascontiguousarray(pictures)).float().div_(255)
    x = x[:, None].expand(-1, 3, -1, -1) if x.ndim == 3 else x.permute(0, 3, 1, 2)
    return (x - torch.tensor(CLIP_MEAN).view(3, 1, 1)) / torch.tensor(CLIP_STD).view(3, 1, 1)


class Projector(nn.Sequential):
    def __init__(self, c: Config) -> None:
        super().__init__(nn.Linear(c.vision_width, c.width), nn.GELU(), nn.Linear(c.width, c.width))


# ---------------------------------------------------------------- language

class HLora(nn.Module):
    """B (g * s A x), g the softmax of R x with each weight repeated rank / experts times; s = alpha / rank * experts."""

    def __init__(self, inp: int, out: int, rank: int, experts: int) -> None:
        super().__init__()
        self.lora_A, self.lora_B, self.lora_route = (nn.Linear(i, o, bias=False) for i, o in ((inp, rank), (rank, out), (inp, experts)))
        nn.init.zeros_(self.lora_B.weight)
        # A router that starts at even gates stays there: all experts then get the same gradient.
        nn.init.normal_(self.lora_route.weight, std=1.5 / inp ** 0.5)
        self.experts, self.scale = experts, 2.0 * experts
        self.uniform = False
        self.seen: list[Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        a = self.lora_A(x)
        gate = F.softmax(self.lora_route(x), -1)
        if self.seen is not None:
            self.seen.append(gate.detach().flatten(0, -2))
        if self.uniform:
            gate = torch.full_like(gate, 1 / self.experts)
        a = a.unflatten(-1, (self.experts, -1)) * (gate * self.scale).unsqueeze(-1)
        return self.lora_B(a.flatten(-2))


class _Linear(nn.Module):
    def __init__(self, inp: int, out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out, inp) / inp ** 0.5)

    def forward(self, x: Tensor, adapter: HLora | None) -> Tensor:
        y = F.linear(x, self.weight)
        return y if adapter is None else y + adapter(x)


class _Norm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weight, 1e-5)


LINEARS = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")
Cache = list[tuple[Tensor, Tensor]]


class _Layer(nn.Module):
    def __init__(self, c: Config) -> None:
        super().__init__()
        self.heads = c.heads
        self.input_layernorm, self.post_attention_layernorm = _Norm(c.width), _Norm(c.width)
        self.self_attn = nn.ModuleDict({"qkv_proj": _Linear(c.width, 3 * c.width), "o_proj": _Linear(c.width, c.width)})
        self.mlp = nn.ModuleDict({"gate_up_proj": _Linear(c.width, 2 * c.inner), "down_proj": _Linear(c.inner, c.width)})

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | None, adapter: "Adapter | None", i: int,
                past: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        plug = (lambda n: None) if adapter is None else (lambda n: adapter.at(i, n))
        qkv = self.self_attn["qkv_proj"](self.input_layernorm(x), plug("self_attn.qkv_proj"))
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in qkv.chunk(3, -1))
        cos, sin = rotary
        q, k = (t * cos + torch.cat([-t[..., t.shape[-1] // 2:], t[..., :t.shape[-1] // 2]], -1) * sin for t in (q, k))
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        x = x + self.self_attn["o_proj"](a, plug("self_attn.o_proj"))
        gate, up = self.mlp["gate_up_proj"](self.post_attention_layernorm(x), plug("mlp.gate_up_proj")).chunk(2, -1)
        return x + self.mlp["down_proj"](F.silu(gate) * up, plug("mlp.down_proj")), (k, v)


class Language(nn.Module):
    """State dict = Phi-3's without `model.` (the head is `lm_head.weight` in both)."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(c.rows, c.width)
        self.layers = nn.ModuleList(_Layer(c) for _ in range(c.layers))
        self.norm = _Norm(c.width)
        self.lm_head = nn.Linear(c.width, c.rows, bias=False)
        self.head_dim = c.width // c.heads
        nn.init.normal_(self.embed_tokens.weight, std=0.3)
        nn.init.normal_(self.lm_head.weight, std=0.02)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor | None, adapter: "Adapter | None" = None,
                cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """Final hidden states; `positions` [T] or [B, 1, T], `mask` bool [T, keys] or [B, 1, T, keys], or none for one token."""
        f = positions[..., None].float() / 10000 ** (torch.arange(0, self.head_dim, 2).float() / self.head_dim)
        rotary = torch.cat([f, f], -1).cos(), torch.cat([f, f], -1).sin()
        kept: Cache = []
        for i, layer in enumerate(self.layers):
            x, pair = layer(x, rotary, mask, adapter, i, cache[i] if cache else None)
            kept.append(pair)
        return self.norm(x), kept


class Adapter(nn.Module):
    """H-LoRA of one task with its projector."""

    def __init__(self, c: Config, task: str) -> None:
        super().__init__()
        shapes = ((c.width, 3 * c.width), (c.width, c.width), (c.width, 2 * c.inner), (c.inner, c.width))
        self.plugs = nn.ModuleDict({self._key(i, n): HLora(*s, c.rank(task), c.experts)
                                    for i in range(c.layers) for n, s in zip(LINEARS, shapes)})
        self.mm_projector = Projector(c)

    @staticmethod
    def _key(i: int, name: str) -> str:
        return f"layers|{i}|{name.replace('.', '|')}"  # a module's name may hold no dot

    def at(self, i: int, name: str) -> HLora:
        return self.plugs[self._key(i, name)]

    def published(self) -> dict[str, Tensor]:
        names = {k.removeprefix("plugs.").replace("|", "."): v for k, v in self.state_dict().items()}
        return {f"base_model.model.model.{k}": v for k, v in names.items()}

    def load_published(self, state: dict[str, Tensor]) -> None:
        self.load_state_dict({k: state["base_model.model.model." + k.removeprefix("plugs.").replace("|", ".")].float() for k in self.state_dict()})


# ---------------------------------------------------------------- pictures out

def _group_norm(c: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, c, eps=1e-6)


class _Res(nn.Module):
    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _group_norm(i), nn.Conv2d(i, o, 3, padding=1)
        self.norm2, self.conv2 = _group_norm(o), nn.Conv2d(o, o, 3, padding=1)
        if i != o:
            self.nin_shortcut = nn.Conv2d(i, o, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class _Attn(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.norm = _group_norm(c)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(c, c, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (f(h).flatten(2).transpose(1, 2) for f in (self.q, self.k, self.v))
        a = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return x + self.proj_out(a.transpose(1, 2).reshape(x.shape))


class _Up(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Decoder(nn.Module):
    def __init__(self, c: Config) -> None:
        super().__init__()
        width = c.channels * c.multiples[-1]
        self.conv_in = nn.Conv2d(c.code_width, width, 3, padding=1)
        self.mid = nn.ModuleDict({"block_1": _Res(width, width), "attn_1": _Attn(width), "block_2": _Res(width, width)})
        ups: list[nn.ModuleDict] = []
        for level in reversed(range(len(c.multiples))):
            out, blocks, attn = c.channels * c.multiples[level], nn.ModuleList(), nn.ModuleList()
            for _ in range(c.blocks + 1):
                blocks.append(_Res(width, out))
                width = out
                if level == len(c.multiples) - 1:  # the only resolution in attn_resolutions
                    attn.append(_Attn(width))
            ups.insert(0, nn.ModuleDict({"block": blocks, "attn": attn} | ({"upsample": _Up(width)} if level else {})))
        self.up = nn.ModuleList(ups)
        self.norm_out, self.conv_out = _group_norm(width), nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.conv_in(z)
        x = self.mid["block_2"](self.mid["attn_1"](self.mid["block_1"](x)))
        for level in reversed(self.up):
            for j, block in enumerate(level["block"]):
                x = block(x)
                if len(level["attn"]):
                    x = level["attn"][j](x)
            if "upsample" in level:
                x = level["upsample"](x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Encoder(nn.Module):
    """Not shipped, so free in form: patches of 4, then half the resolution.

    The last norm makes places differ from the first step on; without it they all take the same few codes and stay there.
    """

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 64, 4, 4), _Res(64, 64), _Res(64, 64), nn.Conv2d(64, 128, 2, 2), _Res(128, 128), _Res(128, 128),
                                 _group_norm(128), nn.SiLU(), nn.Conv2d(128, c.code_width, 1),
                                 nn.BatchNorm2d(c.code_width, affine=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class GumbelVq(nn.Module):
    def __init__(self, c: Config) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(c), Decoder(c)
        self.post_quant_conv = nn.Conv2d(c.code_width, c.code_width, 1)
        self.quantize = nn.ModuleDict({"proj": nn.Conv2d(c.code_width, c.codes, 1, bias=False), "embed": nn.Embedding(c.codes, c.code_width)})
        nn.init.normal_(self.quantize["proj"].weight, std=3.0 / c.code_width ** 0.5)

    def logits(self, x: Tensor) -> Tensor:
        return self.quantize["proj"](self.encoder(x))

    def forward(self, x: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Picture and logits; the draw is hard, its gradient that of the soft one."""
        logits = self.logits(x)
        one = F.gumbel_softmax(logits, tau=temperature, dim=1, hard=True)
        return self.decode(torch.einsum("bnhw,nd->bdhw", one, self.quantize["embed"].weight)), logits

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(z))

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        return self.logits(x).argmax(1)

    @torch.no_grad()
    def picture(self, codes: Tensor) -> np.ndarray:
        """uint8 pictures of codes [n, grid, grid]."""
        x = self.decode(self.quantize["embed"](codes).permute(0, 3, 1, 2)).clamp(-1, 1)
        return (255 * ((x + 1) / 2)).to(torch.uint8).permute(0, 2, 3, 1).numpy()


def to_vq(pictures: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pictures)).float().permute(0, 3, 1, 2) / 127.5 - 1


# ---------------------------------------------------------------- the whole

class HealthGpt(nn.Module):
    """All that the checkpoint holds but the tokenizer."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.c = c
        self.vision, self.language, self.vq = Vision(c), Language(c), GumbelVq(c)
        self.base_projector = Projector(c)  # of the caption stage; each task starts from it and ships its own
        self.ask, self.generate = Adapter(c, "ask"), Adapter(c, "generate")
        self.fusion = nn.ModuleDict({"embed_tokens": nn.Embedding(c.codes + 3, c.width), "lm_head": nn.Linear(c.width, c.codes + 3, bias=False)})

    def mean_rows(self) -> None:
        with torch.no_grad():
            for name in ("embed_tokens", "lm_head"):
                rows = getattr(self.language, name).weight[:self.c.tokens]
                self.fusion[name].weight.copy_(rows.mean(0) + 0.5 * rows.std(0) * torch.randn(self.c.codes + 3, self.c.width))

    def table(self, name: str, task: str) -> Tensor:
        """Rows of embedding or head. Comprehension: the mean rows never win and never come up, so they are left out."""
        base = getattr(self.language, name).weight[:self.c.tokens]
        return base if task == "ask" else torch.cat([base, self.fusion[name].weight])

    def see(self, pictures: np.ndarray, task: str, projector: Projector | None = None) -> Tensor:
        with torch.no_grad():
            features = self.vision(normalise(pictures), vision_layer(task))
        return (projector or getattr(self, task).mm_projector)(features)

    @torch.no_grad()
    def answer(self, text: Text, seen: Tensor | None, asked: list[list[int]], task: str, limit: int, adapter: bool = True) -> list[list[int]]:
        """Greedy ids for a batch of prompts of one length, stop id included."""
        plug = getattr(self, task) if adapter else None
        embed, head = self.table("embed_tokens", task), self.table("lm_head", task)
        tokens = torch.tensor(asked)
        x = embed[tokens]
        if seen is not None:
            x = torch.cat([embed[torch.tensor(text.head)].expand(len(x), -1, -1), seen, x], 1)
        else:
            x = torch.cat([embed[torch.tensor(text.head)].expand(len(x), -1, -1), x], 1)
        n, cache, out, done = 0, None, [], torch.zeros(len(x), dtype=torch.bool)
        while len(out) < limit and not bool(done.all()):
            t = x.shape[1]
            h, cache = self.language(x, torch.arange(n, n + t), torch.ones(t, t, dtype=torch.bool).tril() if t > 1 else None, plug, cache)
            n += t
            logits = h[:, -1] @ head.T
            if task == "generate":  # codes until the picture is full, then its end
                codes = slice(self.c.start + 1, self.c.start + 1 + self.c.codes)
                masked = torch.full_like(logits, -torch.inf)
                if len(out) < self.c.grid ** 2:
                    masked[:, codes] = logits[:, codes]
                else:
                    return torch.stack(out, 1).tolist()
                logits = masked
            best = logits.argmax(-1)
            out.append(best)
            done |= torch.isin(best, torch.tensor(text.stops))
            x = embed[best][:, None]
        rows = torch.stack(out, 1).tolist() if out else [[] for _ in asked]
        return [r if task == "generate" else r[:next((i + 1 for i, v in enumerate(r) if v in text.stops), len(r))] for r in rows]
