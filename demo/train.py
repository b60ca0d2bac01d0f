#!/usr/bin/env python3
"""Trains the demonstration model in the paper's stages and writes it in the published layout.

    python train.py                       # everything; run again after a kill: it goes on where it was
    python train.py --smoke --work /tmp/w --out /tmp/c   # every stage, a few steps each
    python train.py --stage vision        # one stage, in this process
    python train.py --tune 3000           # goes on with the answers of a finished checkpoint, as when its wordings have grown

Stages: vision (attribute labels), base (language model + projector, captions; and questions about written reports), ask
(comprehension H-LoRA), vq (GumbelVQ), generate (generation H-LoRA + fusion rows). Each is a process with one thread that
starts when those it needs are done; two run at a time. Each keeps what it has trained in `work/STAGE.pt`.
"""
from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import phantoms as P
import questions as Q
from checkpoint import export, load
from model import SYSTEM, Adapter, Config, GumbelVq, HealthGpt, Projector, Text, normalise, to_vq, write_tokenizer

NEEDS: dict[str, tuple[str, ...]] = {"vision": (), "vq": (), "base": ("vision",), "ask": ("base",), "generate": ("base", "vq")}
CHANGED = 8  # weight of a code that differs from the picture's own
VALIDATION = 500_000_000  # seeds of the pictures watched during training; neither trained on nor held out


@dataclass(frozen=True)
class Plan:
    pictures: int
    drawn: int  # pictures of them that the drawing stages use
    steps: dict[str, int]
    every: int  # steps between checkpoints
    watch: int  # steps between measurements on validation pictures


FULL = Plan(48_000, 16_000, {"vision": 5400, "base": 2000, "ask": 3600, "vq": 1400, "generate": 1100}, 100, 400)
SMOKE = Plan(512, 256, {"vision": 12, "base": 8, "ask": 8, "vq": 6, "generate": 6}, 5, 6)
STAGES = (*NEEDS, "tune")
BATCH = {"vision": 32, "base": 16, "ask": 16, "vq": 16, "generate": 12, "tune": 16}
RATE = {"vision": 1e-3, "base": 1e-3, "ask": 2e-3, "vq": 1e-3, "generate": 2e-3, "tune": 1e-3}


# ---------------------------------------------------------------- data

def _pair(seed: int, draw: int) -> tuple[np.ndarray, np.ndarray | None]:
    p = P.phantom(seed)
    return P.render(p), (P.shrink(P.render(p, lesions=False), draw) if p.lesions else None)


def _render(job: tuple[int, int, int, bool]) -> tuple[np.ndarray, np.ndarray | None]:
    first, last, draw, paired = job
    if not paired:
        return np.stack([P.render(P.phantom(s)) for s in range(first, last)]), None
    both = [_pair(s, draw) for s in range(first, last)]
    return np.stack([g for g, _ in both]), np.stack([P.shrink(g, draw) if c is None else c for g, c in both])


class Data:
    """Rendered once into files: pictures of seeds 0.., and small ones without lesions for the first `drawn`."""

    def __init__(self, work: Path, plan: Plan, c: Config, threads: int) -> None:
        names = work / f"pictures-{plan.pictures}.npy", work / f"clean-{plan.drawn}.npy"
        if not all(n.exists() for n in names):
            chunk = 256
            jobs = [(i, min(i + chunk, plan.pictures), c.draw, i < plan.drawn) for i in range(0, plan.pictures, chunk)]
            pictures = np.empty((plan.pictures, P.SIZE, P.SIZE), np.uint8)
            clean = np.empty((plan.drawn, c.draw, c.draw), np.uint8)
            with multiprocessing.get_context("fork").Pool(threads) as pool:
                for (first, last, _, paired), (grey, small) in zip(jobs, pool.imap(_render, jobs)):
                    pictures[first:last] = grey
                    if paired and small is not None:
                        clean[first:min(last, plan.drawn)] = small[:plan.drawn - first]
            for name, array in zip(names, (pictures, clean)):
                with open(name.with_suffix(".tmp"), "wb") as f:
                    np.save(f, array)
                name.with_suffix(".tmp").replace(name)
        self.pictures, self.clean = (np.load(n, mmap_mode="r") for n in names)

    def targets(self, seeds: Iterable[int], task: str, draw: int) -> np.ndarray:
        """Small colour pictures: what each task should draw."""
        return np.stack([P.colour(np.asarray(self.clean[s]) if task == "remove" else P.shrink(np.asarray(self.pictures[s]), draw)) for s in seeds])


# ---------------------------------------------------------------- vision: attributes

class Attributes(nn.Module):
    """What the vision tower is taught with: per patch finding, depth, size, finding with its side, and column; per picture
    range, caption and number.

    The side is asked of every patch and together with the finding. Asked for within lesions only it is learnt as "which half
    is this patch in", which all patches answer alike, and the language model then never learnt to say where a lesion is.

    The first layer must also keep the look of its patch, for that is all that the drawing task gets.
    """

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.patch = nn.Linear(c.vision_width, len(P.KINDS) + 1 + 10 + len(P.SIZES))
        self.place = nn.Linear(c.vision_width, 2 * len(P.KINDS) + 1 + c.image // c.patch)
        self.whole = nn.Linear(c.vision_width, 2 + 2 + 3)
        self.look = nn.Linear(c.vision_width, 49)


def _attribute_labels(p: P.Phantom, c: Config) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Per patch (finding, depth, size, finding with side, column; -100 where not asked), the patches at the centres, per picture."""
    side = c.image // c.patch
    label = np.full((side, side, 5), -100)
    label[..., (0, 3)] = 0
    label[..., 4] = np.arange(side)
    centres, step = np.full(2, -100), P.metres_per_pixel(p.range_cm)
    rows, columns = (np.mgrid[0:side, 0:side] + 0.5) * c.patch
    for n, x in enumerate(p.lesions):
        col, row = P.pixel(p.range_cm, x.x, x.z)
        at = int(row) // c.patch, min(int(col) // c.patch, side - 1)
        within = np.hypot((columns - col) * step / x.a, (rows - row) * step / x.b) < 1
        within[at] = True
        kind = P.KINDS.index(x.kind)
        label[within, :4] = kind + 1, x.depth_cm, P.SIZES.index(x.size_mm), 1 + 2 * kind + (x.side == "right")
        centres[n] = at[0] * side + at[1]
    return label.reshape(-1, 5), centres, [P.RANGES.index(p.range_cm), int(p.caption is not None), len(p.lesions)]


def vision_loss(model: HealthGpt, heads: Attributes, pictures: np.ndarray, seeds: Iterable[int]) -> tuple[Tensor, dict[str, float]]:
    c = model.c
    labels = [_attribute_labels(P.phantom(int(s)), c) for s in seeds]
    patch, centre, whole = (torch.from_numpy(np.stack([np.asarray(x[i]) for x in labels])) for i in range(3))
    pixels = normalise(pictures)
    hidden = model.vision.hidden(pixels, c.vision_layers - 1)
    last, first = hidden[-1][:, 1:], hidden[1][:, 1:]
    kind, depth, size = heads.patch(last).split((len(P.KINDS) + 1, 10, len(P.SIZES)), -1)
    beside, column = heads.place(last).split((2 * len(P.KINDS) + 1, c.image // c.patch), -1)
    total, report = torch.zeros(()), {}
    found = torch.nn.functional.one_hot(centre.clamp(min=0), c.patches).mul((centre >= 0)[..., None]).sum(1).bool()
    for n, (name, out) in enumerate((("kind", kind), ("depth", depth), ("size", size), ("side", beside), ("column", column))):
        flat, want = out.flatten(0, 1), patch[..., n].flatten()
        weight = torch.tensor([0.15] + [1.0] * (out.shape[-1] - 1)) if name in ("kind", "side") else None  # most patches show none
        total = total + F.cross_entropy(flat, want, weight)
        hit = (out.argmax(-1) == patch[..., n])[found]
        report[name] = float(hit.float().mean())
    for n, (name, out) in enumerate(zip(("range", "caption", "count"), heads.whole(last.mean(1)).split((2, 2, 3), -1))):
        total = total + 0.5 * F.cross_entropy(out, whole[:, n])
        report[name] = float((out.argmax(-1) == whole[:, n]).float().mean())
    look = F.avg_pool2d(pixels[:, :1], c.patch // 7).unfold(2, 7, 7).unfold(3, 7, 7).flatten(2, 3).flatten(1, 1)[:, 0].flatten(2)
    report["look"] = float((error := F.mse_loss(heads.look(first), look)).detach())
    return total + 2 * error, report


# ---------------------------------------------------------------- language: many questions, one picture

@dataclass(frozen=True)
class Branch:
    prompt: list[int]
    answer: list[int]
    weights: np.ndarray | None = None  # of the answer's tokens; all alike without


def packed_loss(model: HealthGpt, prefix: Tensor | None, branches: list[list[Branch]], task: str, adapter: Adapter | None) -> tuple[Tensor, float]:
    """Loss of the answers; the branches of one picture share its prefix, see it and themselves, and not each other."""
    batch, shared = len(branches), 0 if prefix is None else prefix.shape[1]
    length = max(sum(len(b.prompt) + len(b.answer) - 1 for b in row) for row in branches)
    ids, labels = np.zeros((batch, length), np.int64), np.full((batch, length), -100)
    weight, segment = np.zeros((batch, length), np.float32), np.full((batch, shared + length), -1)
    position = np.zeros((batch, shared + length), np.int64)
    segment[:, :shared] = 0
    position[:, :shared] = np.arange(shared)
    for r, row in enumerate(branches):
        at = 0
        for n, b in enumerate(row):
            all_ids = b.prompt + b.answer
            size = len(all_ids) - 1
            ids[r, at:at + size] = all_ids[:-1]
            labels[r, at + len(b.prompt) - 1:at + size] = b.answer
            weight[r, at:at + size] = len(b.answer) ** -0.5
            if b.weights is not None:
                weight[r, at + len(b.prompt) - 1:at + size] *= b.weights
            segment[r, shared + at:shared + at + size] = n + 1
            position[r, shared + at:shared + at + size] = shared + np.arange(size)
            at += size
    seg = torch.from_numpy(segment)
    total = shared + length
    mask = torch.ones(total, total, dtype=torch.bool).tril() & ((seg[:, :, None] == seg[:, None]) | (seg[:, None] == 0))
    x = F.embedding(torch.from_numpy(ids), model.table("embed_tokens", task))
    x = x if prefix is None else torch.cat([prefix, x], 1)
    hidden, _ = model.language(x, torch.from_numpy(position)[:, None], mask[:, None], adapter)
    want = torch.from_numpy(labels)
    asked = want >= 0
    logits = hidden[:, shared:][asked] @ model.table("lm_head", task).T
    w = torch.from_numpy(weight)[asked]
    loss = (F.cross_entropy(logits, want[asked], reduction="none") * w).sum() / w.sum()
    return loss, float((logits.argmax(-1) == want[asked]).float().mean())


def prefix_of(model: HealthGpt, text: Text, pictures: np.ndarray, task: str, projector: Projector, train_vision: bool = False) -> Tensor:
    with torch.set_grad_enabled(train_vision):
        features = model.vision(normalise(pictures), -2 if task == "ask" else 1)
    head = model.table("embed_tokens", task)[torch.tensor(text.head)].expand(len(pictures), -1, -1)
    return torch.cat([head, projector(features)], 1)


def question_branches(text: Text, p: P.Phantom, rng: np.random.Generator, n: int) -> list[Branch]:
    return [Branch(text.question(q.text, True), text.answer(q.sentence)) for q in Q.ask(p, rng, n)]


def base_loss(model: HealthGpt, text: Text, data: Data, seeds: np.ndarray, rng: np.random.Generator, step: int) -> tuple[Tensor, dict[str, float]]:
    if step % 4 == 3:  # questions about a written report: the language model must know the words that the adapter will use
        rows = []
        for s in seeds:
            p = P.phantom(int(s))
            q = Q.ask(p, rng, 3)
            rows.append([Branch(text.head + text.question(f"{Q.report(p)} {x.text}", False), text.answer(x.sentence)) for x in q])
        loss, hit = packed_loss(model, None, rows, "ask", None)
        return loss, {"written": hit}
    rows = []
    for s in seeds:
        q = Q.caption_question(P.phantom(int(s)), rng)
        rows.append([Branch(text.question(q.text, True), text.answer(q.sentence))])
    prefix = prefix_of(model, text, data.pictures[seeds], "ask", model.base_projector, train_vision=True)
    loss, hit = packed_loss(model, prefix, rows, "ask", None)
    return loss, {"captions": hit}


def ask_loss(model: HealthGpt, text: Text, data: Data, seeds: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
    rows = [question_branches(text, P.phantom(int(s)), rng, 6) for s in seeds]
    prefix = prefix_of(model, text, data.pictures[seeds], "ask", model.ask.mm_projector)
    loss, hit = packed_loss(model, prefix, rows, "ask", model.ask)
    return loss, {"tokens": hit}


# ---------------------------------------------------------------- pictures out

def vq_loss(vq: GumbelVq, data: Data, seeds: np.ndarray, rng: np.random.Generator, done: float, draw: int) -> tuple[Tensor, dict[str, float]]:
    tasks = rng.choice(("reconstruct", "remove"), len(seeds))
    x = to_vq(np.concatenate([data.targets([int(s)], str(t), draw) for s, t in zip(seeds, tasks)]))
    temperature = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(1.0, done / 0.8)))
    y, logits = vq(x, temperature)
    pooled = [(F.avg_pool2d(x, k), F.avg_pool2d(y, k)) for k in (2, 4, 8)]
    # Speckle cannot be coded; the coarse terms keep it from drowning what can.
    fit = F.l1_loss(y, x) + sum(F.l1_loss(b, a) for a, b in pooled)
    p = logits.softmax(1)
    mean = p.mean((0, 2, 3))
    spread = (mean * (mean + 1e-9).log()).sum() + math.log(len(mean))  # 0 when all codes are used alike
    # A hard draw is as noisy as its logits are flat, at any temperature; what is shipped takes the best code.
    doubt = -(p * (p + 1e-9).log()).sum(1).mean()
    used = float(len(logits.argmax(1).unique()))
    return fit + 0.05 * spread + 0.03 * min(1.0, 3 * done) * doubt, {
        "fit": float(fit.detach()), "spread": float(spread.detach()), "doubt": float(doubt.detach()), "codes": used}


def target_codes(model: HealthGpt, data: Data, work: Path, n: int) -> np.ndarray:
    """The codes of every target [n, task, grid * grid]; made once, after the VQ is trained."""
    path = work / f"codes-{n}.npy"
    if not path.exists():
        out = np.empty((n, len(Q.DRAW), model.c.grid ** 2), np.int16)
        for i in range(0, n, 64):
            seeds = range(i, min(n, i + 64))
            for k, task in enumerate(Q.DRAW):
                out[i:i + len(seeds), k] = model.vq.encode(to_vq(data.targets(seeds, task, model.c.draw))).flatten(1).numpy()
        np.save(path, out)
    return np.load(path)


def draw_ids(c: Config, text: Text, instruction: str, codes: np.ndarray, copied: np.ndarray) -> Branch:
    """What the instruction changes of the picture's own codes, `copied`, weighs more, for it is a few codes of many."""
    prompt = [*text.question(instruction, True), c.start]
    weights = np.append(np.where(codes == copied, 1, CHANGED), (1, 1)).astype(np.float32)
    answer = [*(int(v) + c.start + 1 for v in codes), c.start + 1 + c.codes, text.end]
    return Branch(prompt, answer, weights)


def generate_loss(model: HealthGpt, text: Text, data: Data, codes: np.ndarray, seeds: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
    tasks = list(Q.DRAW)
    rows = [[draw_ids(model.c, text, Q.instruction(tasks[k], rng), codes[s, k], codes[s, tasks.index("reconstruct")]) for k in rng.permutation(len(tasks))] for s in seeds]
    prefix = prefix_of(model, text, data.pictures[seeds], "generate", model.generate.mm_projector)
    loss, hit = packed_loss(model, prefix, rows, "generate", model.generate)
    return loss, {"tokens": hit}


# ---------------------------------------------------------------- the run

class Run:
    """The model, and one stage's steps with its state on disk."""

    def __init__(self, work: Path, plan: Plan, c: Config, seed: int) -> None:
        self.work, self.plan, self.seed = work, plan, seed
        torch.manual_seed(seed)
        self.model, self.heads = HealthGpt(c), Attributes(c)
        self.model.eval()  # there is no dropout anywhere

    def modules(self, stage: str) -> dict[str, nn.Module]:
        """What a stage trains."""
        m = self.model
        return {"vision": {"vision": m.vision, "heads": self.heads}, "vq": {"vq": m.vq}, "ask": {"ask": m.ask}, "tune": {"ask": m.ask},
                "base": {"language": m.language, "base_projector": m.base_projector, "vision": m.vision},
                "generate": {"generate": m.generate, "fusion": m.fusion}}[stage]

    def _state(self, stage: str) -> dict[str, object]:
        path = self.work / f"{stage}.pt"
        return torch.load(path, weights_only=True) if path.exists() else {"step": 0, "modules": {}, "optimiser": None, "done": False}

    def done(self, stage: str) -> bool:
        return bool(self._state(stage)["done"])

    def load(self, stage: str) -> dict[str, object]:
        """Takes over what the stages before this one and this one have trained."""
        for before in NEEDS.get(stage, ()):
            self.load(before)
        state = self._state(stage)
        for name, module in self.modules(stage).items():
            if name in state["modules"]:  # type: ignore[operator]
                module.load_state_dict(state["modules"][name])  # type: ignore[index]
        return state

    def save(self, stage: str, step: int, optimiser: torch.optim.Optimizer | None) -> None:
        new = self.work / f"{stage}.new"
        torch.save({"step": step, "modules": {k: m.state_dict() for k, m in self.modules(stage).items()},
                    "optimiser": None if optimiser is None else optimiser.state_dict(), "done": optimiser is None}, new)
        new.replace(self.work / f"{stage}.pt")

    def log(self, **what: object) -> None:
        with open(self.work / "log.jsonl", "a", encoding="utf-8") as f:
            f.write(json.dumps(what) + "\n")
        print(" ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in what.items()), flush=True)

    def train(self, name: str, groups: list[dict[str, object]], loss: Callable[[int, np.random.Generator], tuple[Tensor, dict[str, float]]],
              watch: Callable[[], dict[str, float]], state: dict[str, object]) -> None:
        index, step = STAGES.index(name), int(state["step"])  # type: ignore[call-overload]
        steps, rate = self.plan.steps[name], RATE[name]
        for p in [*self.model.parameters(), *self.heads.parameters()]:
            p.requires_grad_(False)
        parameters = [p for g in groups for p in g["params"]]  # type: ignore[attr-defined]
        for p in parameters:
            p.requires_grad_(True)
        scales = [float(g.pop("scale", 1.0)) for g in groups]  # type: ignore[arg-type]
        optimiser = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        if state["optimiser"] is not None:
            optimiser.load_state_dict(state["optimiser"])  # type: ignore[arg-type]
        seen: dict[str, list[float]] = {}
        clock, worked = time.perf_counter(), time.process_time()
        while step < steps:
            warm = max(1, min(200, steps // 10))
            factor = min(1.0, (step + 1) / warm) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
            for g, scale in zip(optimiser.param_groups, scales):
                g["lr"] = rate * factor * scale
            torch.manual_seed(self.seed * 1_000_003 + index * 100_003 + step)
            value, report = loss(step, np.random.default_rng([self.seed, index, step]))
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            step += 1
            for k, v in {"loss": float(value.detach()), **report}.items():
                seen.setdefault(k, []).append(v)
            if step % 50 == 0 or step == steps:
                ms, cpu = ((now - then) * 1e3 / len(seen["loss"]) for now, then in ((time.perf_counter(), clock), (time.process_time(), worked)))
                self.log(stage=name, step=step, ms=round(ms), cpu_ms=round(cpu), **{k: float(np.nanmean(v)) for k, v in seen.items()})
                seen = {}
                clock, worked = time.perf_counter(), time.process_time()
            if step % self.plan.watch == 0 or step == steps:
                paused, rested = time.perf_counter(), time.process_time()
                with torch.no_grad():
                    self.log(stage=name, step=step, watch=True, **watch())
                clock, worked = clock + time.perf_counter() - paused, worked + time.process_time() - rested
            if step % self.plan.every == 0 and step < steps:
                self.save(name, step, optimiser)
        self.save(name, steps, None)


def watch_answers(model: HealthGpt, text: Text, n: int, adapter: bool = True) -> dict[str, float]:
    from evaluate import ask_all, score
    seeds = range(VALIDATION, VALIDATION + n)
    return score(ask_all(model, text, seeds, 4, "train", adapter)) | {f"strange {k}": v for k, v in score(ask_all(model, text, seeds, 4, "strange", adapter)).items()}


def train_stage(stage: str, run: Run, plan: Plan, text: Text, data: Data, few: int) -> None:
    model, c, state = run.model, run.model.c, run.load(stage)
    fresh = not state["step"]
    seeds = range(VALIDATION, VALIDATION + few)

    def pick(rng: np.random.Generator, n: int = plan.pictures) -> np.ndarray:
        return np.sort(rng.choice(n, BATCH[stage], replace=False))

    def parameters(*modules: nn.Module) -> dict[str, object]:
        return {"params": [p for m in modules for p in m.parameters()]}

    if stage == "vision":
        watched = range(VALIDATION, VALIDATION + 4 * few)
        run.train(stage, [parameters(model.vision, run.heads)],
                  lambda step, rng: vision_loss(model, run.heads, data.pictures[picked := pick(rng)], picked),
                  lambda: vision_loss(model, run.heads, np.stack([P.render(P.phantom(s)) for s in watched]), watched)[1], state)
    elif stage == "base":
        run.train(stage, [parameters(model.language, model.base_projector), parameters(model.vision) | {"scale": 0.3}],
                  lambda step, rng: base_loss(model, text, data, pick(rng), rng, step), watch_caption(model, text, few), state)
    elif stage in ("ask", "tune"):
        if fresh and stage == "ask":  # each task starts from the projector of the captions
            model.ask.mm_projector.load_state_dict(model.base_projector.state_dict())
        run.train(stage, [parameters(model.ask)], lambda step, rng: ask_loss(model, text, data, pick(rng), rng),
                  lambda: watch_answers(model, text, few), state)
    elif stage == "vq":
        model.vq.train()  # its encoder has the only layer that behaves differently
        run.train(stage, [parameters(model.vq)],
                  lambda step, rng: vq_loss(model.vq, data, pick(rng, plan.drawn), rng, step / plan.steps["vq"], c.draw), lambda: {}, state)
    elif stage == "generate":
        from evaluate import draw_all
        if fresh:
            model.generate.mm_projector.load_state_dict(model.base_projector.state_dict())
            model.mean_rows()
        codes = target_codes(model, data, run.work, plan.drawn)
        run.train(stage, [parameters(model.generate, model.fusion)],
                  lambda step, rng: generate_loss(model, text, data, codes, pick(rng, plan.drawn), rng),
                  lambda: draw_all(model, text, seeds[:few // 2], held_out=False)[0], state)


def train_all(run: Run, threads: int) -> None:
    """Every stage that is not done, each in a process of its own, as soon as those it needs are."""
    running: dict[str, subprocess.Popen[bytes]] = {}
    while not all(run.done(s) for s in NEEDS):
        for stage, needs in NEEDS.items():
            if len(running) < threads and stage not in running and not run.done(stage) and all(run.done(n) for n in needs):
                running[stage] = subprocess.Popen([sys.executable, *sys.argv, "--stage", stage])
        time.sleep(1)
        for stage, process in list(running.items()):
            if process.poll() is not None:
                del running[stage]
                if process.returncode:
                    for other in running.values():
                        other.terminate()
                    raise SystemExit(f"stage {stage} failed")


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parent
    ap.add_argument("--work", type=Path, default=here / "work", help="state, log and rendered pictures")
    ap.add_argument("--out", type=Path, default=here / "checkpoint")
    ap.add_argument("--threads", type=int, default=2, help="stages at a time")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--smoke", action="store_true", help="a few steps of every stage")
    ap.add_argument("--stage", choices=NEEDS, help="only this stage, in this process")
    ap.add_argument("--tune", type=int, metavar="STEPS", help="go on with the answers of the checkpoint in --out")
    a = ap.parse_args()
    torch.set_num_threads(a.threads if a.tune else 1)  # two stages side by side use two cores better than two threads of one
    plan = SMOKE if a.smoke else FULL
    if a.tune:
        plan = replace(plan, steps=plan.steps | {"tune": a.tune})
    a.work.mkdir(parents=True, exist_ok=True)
    c, start = Config(), time.perf_counter()

    data = Data(a.work, plan, c, a.threads)
    if not (a.out / "phi3/tokenizer_config.json").exists():
        write_tokenizer(a.out / "phi3", Q.corpus(np.random.default_rng(a.seed), 300 if a.smoke else 3000) + [SYSTEM] * 300, c.pieces)
    text = Text(a.out / "phi3")
    run = Run(a.work, plan, c, a.seed)
    if a.tune:
        run.model, _ = load(a.out)
        train_stage("tune", run, plan, text, data, 16 if a.smoke else 100)
        export(run.model, a.out)
        (a.work / "tune.pt").unlink()  # the next one goes on from this checkpoint
        return
    if a.stage:
        train_stage(a.stage, run, plan, text, data, 16 if a.smoke else 100)
        return
    train_all(run, a.threads)
    for stage in NEEDS:
        run.load(stage)
    size = export(run.model, a.out)
    run.log(stage="export", megabytes=size / 1e6, minutes=(time.perf_counter() - start) / 60)
    if size > 40e6:
        raise SystemExit("the checkpoint is larger than 40 MB")


def watch_caption(model: HealthGpt, text: Text, n: int) -> Callable[[], dict[str, float]]:
    """Token recall of the report by the base alone."""
    def measure() -> dict[str, float]:
        from evaluate import recall
        seeds = range(VALIDATION, VALIDATION + n)
        seen = model.see(np.stack([P.render(P.phantom(s)) for s in seeds]), "ask", model.base_projector)
        asked = text.question("Describe the image.", True)
        out = model.answer(text, seen, [asked] * n, "ask", 80, adapter=False)
        exact = [text.decode(o) == Q.report(P.phantom(s)) for o, s in zip(out, seeds)]
        return {"recall": float(np.mean([recall(Q.report(P.phantom(s)), text.decode(o)) for o, s in zip(out, seeds)])), "exact": float(np.mean(exact))}
    return measure


if __name__ == "__main__":
    main()
