"""The published file layout: writing it in f16, and reading it back for the evaluation."""
from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model import CLIP_MEAN, CLIP_STD, Config, HealthGpt, Text, write_json

PREFIX = "base_model.model."


def _half(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.detach().half().contiguous().clone() for k, v in state.items()}


def export(model: HealthGpt, out: Path) -> int:
    """Writes everything but the tokenizer (which lies there already); returns the bytes in all."""
    c = model.c
    for d in ("phi3", "clip", "vqgan"):
        (out / d).mkdir(parents=True, exist_ok=True)
    language = {k if k.startswith("lm_head") else f"model.{k}": v for k, v in _half(model.language.state_dict()).items()}
    save_file(language, out / "phi3/model.safetensors", {"format": "pt"})
    stops = list(Text(out / "phi3").stops)
    write_json(out / "phi3/config.json", {
        "architectures": ["Phi3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 1, "embd_pdrop": 0.0,
        "eos_token_id": stops[0], "hidden_act": "silu", "hidden_size": c.width, "initializer_range": 0.02, "intermediate_size": c.inner,
        "max_position_embeddings": 4096, "model_type": "phi3", "num_attention_heads": c.heads, "num_hidden_layers": c.layers,
        "num_key_value_heads": c.heads, "original_max_position_embeddings": 4096, "pad_token_id": stops[0], "resid_pdrop": 0.0,
        "rms_norm_eps": 1e-5, "rope_scaling": None, "rope_theta": 10000.0, "sliding_window": 2047, "tie_word_embeddings": False,
        "torch_dtype": "float16", "transformers_version": "4.40.2", "use_cache": True, "vocab_size": c.rows})
    write_json(out / "phi3/generation_config.json", {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": stops, "pad_token_id": stops[0]})

    vision = {f"vision_model.{k}": v for k, v in _half(model.vision.state_dict()).items()}
    vision["vision_model.embeddings.position_ids"] = torch.arange(c.patches + 1)[None]
    torch.save(vision, out / "clip/pytorch_model.bin")
    write_json(out / "clip/config.json", {"architectures": ["CLIPModel"], "model_type": "clip", "projection_dim": 32, "vision_config": {
        "attention_dropout": 0.0, "hidden_act": "quick_gelu", "hidden_size": c.vision_width, "image_size": c.image,
        "intermediate_size": c.vision_inner, "layer_norm_eps": 1e-5, "model_type": "clip_vision_model", "num_attention_heads": c.vision_heads,
        "num_channels": 3, "num_hidden_layers": c.vision_layers, "patch_size": c.patch, "projection_dim": 32}})
    write_json(out / "clip/preprocessor_config.json", {
        "crop_size": c.image, "do_center_crop": True, "do_normalize": True, "do_resize": True, "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": CLIP_MEAN, "image_std": CLIP_STD, "resample": 3, "size": c.image})

    torch.save(_half(model.ask.published()), out / "com_hlora_weights.bin")
    torch.save(_half(model.generate.published()), out / "gen_hlora_weights.bin")
    torch.save(_half({f"{PREFIX}model.embed_tokens.weight": model.table("embed_tokens", "generate"),
                      f"{PREFIX}lm_head.weight": model.table("lm_head", "generate")}), out / "fusion_layer_weights.bin")

    shipped = ("decoder.", "post_quant_conv.", "quantize.embed.")
    torch.save({"epoch": 0, "global_step": 0, "state_dict": _half({k: v for k, v in model.vq.state_dict().items() if k.startswith(shipped)})}, out / "vqgan/last.ckpt")
    mult = "".join(f"      - {m}\n" for m in c.multiples)
    (out / "vqgan/model.yaml").write_text(
        f"model:\n  target: taming.models.vqgan.GumbelVQ\n  params:\n    kl_weight: 1.0e-08\n    embed_dim: {c.code_width}\n    n_embed: {c.codes}\n"
        f"    ddconfig:\n      double_z: false\n      z_channels: {c.code_width}\n      resolution: {c.draw}\n      in_channels: 3\n      out_ch: 3\n"
        f"      ch: {c.channels}\n      ch_mult:\n{mult}      num_res_blocks: {c.blocks}\n      attn_resolutions:\n      - {c.grid}\n      dropout: 0.0\n", encoding="utf-8")
    write_json(out / "settings.json", {
        "comprehension": {"hlora_r": c.rank_ask, "hlora_alpha": 2 * c.rank_ask, "hlora_nums": c.experts, "vision_select_layer": -2, "fusion_layer": False},
        "generation": {"hlora_r": c.rank_generate, "hlora_alpha": 2 * c.rank_generate, "hlora_nums": c.experts, "vision_select_layer": 1, "fusion_layer": True},
        "vq_idx_nums": c.codes, "instruct_template": "phi3_instruct", "demo": c.as_json()})
    return sum(f.stat().st_size for f in out.rglob("*") if f.is_file())


def load(folder: Path) -> tuple[HealthGpt, Text]:
    """The model as shipped: f16 values, computed in f32. The encoder of the VQ is not in it."""
    raw = json.loads((folder / "settings.json").read_text(encoding="utf-8"))["demo"]
    c = Config(**{**raw, "multiples": tuple(raw["multiples"])})
    model = HealthGpt(c)
    model.language.load_state_dict({k.removeprefix("model."): v.float() for k, v in load_file(folder / "phi3/model.safetensors").items()})
    vision = torch.load(folder / "clip/pytorch_model.bin", weights_only=True)
    model.vision.load_state_dict({k.removeprefix("vision_model."): v.float() for k, v in vision.items() if v.is_floating_point()})
    for name, adapter in (("com", model.ask), ("gen", model.generate)):
        adapter.load_published(torch.load(folder / f"{name}_hlora_weights.bin", weights_only=True))
    fusion = torch.load(folder / "fusion_layer_weights.bin", weights_only=True)
    with torch.no_grad():
        model.fusion["embed_tokens"].weight.copy_(fusion[f"{PREFIX}model.embed_tokens.weight"][c.tokens:].float())
        model.fusion["lm_head"].weight.copy_(fusion[f"{PREFIX}lm_head.weight"][c.tokens:].float())
    vq = torch.load(folder / "vqgan/last.ckpt", weights_only=True)["state_dict"]
    model.vq.load_state_dict({k: v.float() for k, v in vq.items()}, strict=False)
    return model.eval(), Text(folder / "phi3")
