#!/usr/bin/env python3
"""Measures a checkpoint in PyTorch (f32 arithmetic on the shipped f16 weights), on phantoms and wordings never trained on.

    python evaluate.py checkpoint -n 500 --json result.json       # accuracy, drawing, gates, ablations
    python evaluate.py checkpoint --reference DIR -n 50           # pictures, questions and the ids PyTorch gives
    python evaluate.py --compare DIR --model M.safetensors        # ... which the runtime must give too
"""
from __future__ import annotations

import argparse
import json
import re
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import phantoms as P
import questions as Q
from checkpoint import load
from model import HealthGpt, HLora, Text

BATCH = 32


@dataclass(frozen=True)
class Record:
    seed: int
    topic: str
    question: str
    closed: bool
    answer: str
    said: str
    ids: list[int]

    @property
    def points(self) -> float:
        if not self.closed:
            return recall(self.answer, self.said)
        truth, said = words(self.answer), words(self.said)
        return float(said[:1] == truth if truth in (["yes"], ["no"]) else said == truth)  # as `healthgpt eval` counts


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def recall(truth: str, said: str) -> float:
    """Share of the truth's words that were said."""
    want, have = Counter(words(truth)), Counter(words(said))
    return sum((want & have).values()) / max(1, sum(want.values()))


def pictures(seeds: Sequence[int]) -> np.ndarray:
    return np.stack([P.render(P.phantom(s)) for s in seeds])


def ask_all(model: HealthGpt, text: Text, seeds: Sequence[int], per: int, wording: Q.Wording = "held out", adapter: bool = True) -> list[Record]:
    projected = {s: v for i in range(0, len(seeds), BATCH)
                 for s, v in zip(seeds[i:i + BATCH], model.see(pictures(seeds[i:i + BATCH]), "ask").detach())}
    todo: dict[int, list[tuple[int, Q.Question, list[int]]]] = defaultdict(list)
    for s in seeds:
        for q in Q.ask(P.phantom(s), np.random.default_rng([s, 9]), per, wording):
            ids = text.question(q.text, True)
            todo[len(ids)].append((s, q, ids))  # prompts of one length need no padding
    out = []
    for rows in todo.values():
        for i in range(0, len(rows), BATCH):
            part = rows[i:i + BATCH]
            said = model.answer(text, torch.stack([projected[s] for s, _, _ in part]), [ids for _, _, ids in part], "ask", 90, adapter)
            out += [Record(s, q.topic, q.text, q.closed, q.answer, text.decode(ids), ids) for (s, q, _), ids in zip(part, said)]
    return sorted(out, key=lambda r: (r.seed, r.question))


def score(records: list[Record]) -> dict[str, float]:
    def mean(rows: list[Record]) -> float:
        return float(np.mean([r.points for r in rows])) if rows else float("nan")
    return {"closed": mean([r for r in records if r.closed]), "open": mean([r for r in records if not r.closed]), "all": mean(records)}


def topics(records: list[Record]) -> dict[str, tuple[int, float]]:
    by: dict[str, list[float]] = defaultdict(list)
    for r in records:
        by[r.topic].append(r.points)
    return {k: (len(v), float(np.mean(v))) for k, v in sorted(by.items())}


# ---------------------------------------------------------------- pictures

def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Grey (Rec. 601, float), 7x7 even window over whole windows only, unbiased variance, K 0.01 and 0.03: scikit-image's defaults."""
    x, y = (torch.from_numpy(v.astype(np.float64) @ np.array([0.299, 0.587, 0.114]))[None, None] for v in (a, b))
    mean = lambda t: F.avg_pool2d(t, 7, 1)  # noqa: E731
    mx, my, n = mean(x), mean(y), 49 / 48
    vx, vy, vxy = (n * (mean(p) - q) for p, q in ((x * x, mx * mx), (y * y, my * my), (x * y, mx * my)))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return float((((2 * mx * my + c1) * (2 * vxy + c2)) / ((mx ** 2 + my ** 2 + c1) * (vx + vy + c2))).mean())


def _blur(picture: np.ndarray) -> np.ndarray:
    grey = torch.from_numpy(picture.astype(np.float32).mean(-1))[None, None]
    return F.avg_pool2d(F.pad(grey, (2, 2, 2, 2), mode="replicate"), 5, 1)[0, 0].numpy()


def removed(p: P.Phantom, drawn: np.ndarray, clean: np.ndarray, before: np.ndarray) -> bool:
    """Where the lesions were, the drawing is much nearer to the tissue than to the lesion, and elsewhere it is still the
    same picture (speckle blurred away; an empty or an average picture must not pass)."""
    where = P.lesion_mask(p, drawn.shape[0])
    d, c, b = _blur(drawn), _blur(P.colour(clean)), _blur(P.colour(before))
    gone = np.square(d - c)[where].mean() < 0.35 * max(np.square(b - c)[where].mean(), 1e-6)
    return bool(gone and np.square(d - c)[~where].mean() < 18 ** 2)


def true_drawing(seed: int, task: str, size: int) -> np.ndarray:
    """What a perfect model would draw, uint8 [size, size, 3]."""
    p = P.phantom(seed)
    return P.colour(P.shrink(P.render(p, lesions=task != "remove"), size))


def draw_all(model: HealthGpt, text: Text, seeds: Sequence[int], held_out: bool = True) -> tuple[dict[str, float], dict[tuple[int, str], tuple[str, list[int], np.ndarray]]]:
    c, results = model.c, {}
    got: dict[str, list[float]] = defaultdict(list)
    for task in Q.DRAW:
        todo: dict[int, list[tuple[int, str, list[int]]]] = defaultdict(list)
        for s in seeds:
            wording = Q.instruction(task, np.random.default_rng([s, 11]), held_out)
            ids = [*text.question(wording, True), c.start]
            todo[len(ids)].append((s, wording, ids))
        for rows in todo.values():
            for i in range(0, len(rows), BATCH):
                part = rows[i:i + BATCH]
                seen = model.see(pictures([s for s, _, _ in part]), "generate").detach()
                codes = torch.tensor(model.answer(text, seen, [ids for _, _, ids in part], "generate", 1100)) - c.start - 1
                drawn = model.vq.picture(codes.view(-1, c.grid, c.grid))
                for (s, wording, _), code, picture in zip(part, codes, drawn):
                    p = P.phantom(s)
                    before, clean = (P.shrink(P.render(p, lesions=k), c.draw) for k in (True, False))
                    results[s, task] = wording, code.tolist(), picture
                    if task == "reconstruct":
                        got["ssim"].append(ssim(picture, P.colour(before)))
                    elif task == "remove" and p.lesions:
                        got["removed"].append(float(removed(p, picture, clean, before)))
    return {k: float(np.mean(v)) for k, v in got.items()}, results


# ---------------------------------------------------------------- router

def plugs(model: HealthGpt, task: str) -> dict[str, HLora]:
    return {k.replace("|", "."): m for k, m in getattr(model, task).plugs.items()}  # type: ignore[misc]


def gates(model: HealthGpt, task: str, work: Callable[[], object]) -> dict[str, dict[str, object]]:
    """Per linear: entropy over its maximum, mean gate and share of tokens led by each expert."""
    all_plugs = plugs(model, task)
    for m in all_plugs.values():
        m.seen = []
    work()
    out = {}
    for k, m in all_plugs.items():
        g = torch.cat(m.seen or [])
        m.seen = None
        entropy = -(g * g.clamp(min=1e-12).log()).sum(-1).mean() / np.log(m.experts)
        lead = torch.bincount(g.argmax(-1), minlength=m.experts) / len(g)
        out[k] = {"entropy": round(float(entropy), 4), "mean": [round(v, 4) for v in g.mean(0).tolist()], "leads": [round(v, 4) for v in lead.tolist()]}
    return out


def with_uniform_gates(model: HealthGpt, task: str, work: Callable[[], dict[str, float]]) -> dict[str, float]:
    for m in plugs(model, task).values():
        m.uniform = True
    try:
        return work()
    finally:
        for m in plugs(model, task).values():
            m.uniform = False


def evaluate(model: HealthGpt, text: Text, n: int, per: int) -> dict[str, object]:
    seeds, few = range(P.HELD_OUT, P.HELD_OUT + n), range(P.HELD_OUT, P.HELD_OUT + min(n, 100))
    records = ask_all(model, text, seeds, per)
    drawn, _ = draw_all(model, text, few)
    return {
        "pictures": n, "questions": len(records), "held-out wordings": score(records), "topics": topics(records),
        "training wordings": score(ask_all(model, text, few, per, "train")), "strange wordings": score(ask_all(model, text, few, per, "strange")),
        "a judge's wordings": score(judged := ask_all(model, text, seeds, per, "judge")), "topics of the judge": topics(judged),
        "on the pictures of the ablations": score([r for r in records if r.seed in few]),
        "adapter off": score(ask_all(model, text, few, per, adapter=False)),
        "uniform gates": with_uniform_gates(model, "ask", lambda: score(ask_all(model, text, few, per))),
        "drawing": drawn, "drawing, uniform gates": with_uniform_gates(model, "generate", lambda: draw_all(model, text, few[:32])[0]),
        "gates ask": gates(model, "ask", lambda: ask_all(model, text, few[:16], per)),
        "gates generate": gates(model, "generate", lambda: draw_all(model, text, few[:8])),
        "wrong": [asdict(r) for rs in (records, judged) for r in [r for r in rs if r.points < 1][:40]]}


# ---------------------------------------------------------------- runtime

def write_reference(model: HealthGpt, text: Text, n: int, per: int, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    seeds = range(P.HELD_OUT, P.HELD_OUT + n)
    for s, grey in zip(seeds, pictures(seeds)):
        Image.fromarray(P.colour(grey)).save(out / f"{s}.png")
    with open(out / "questions.jsonl", "w", encoding="utf-8") as f:
        for r in ask_all(model, text, seeds, per):
            f.write(json.dumps({"image": f"{r.seed}.png", "question": r.question, "answer": r.answer, "type": "closed" if r.closed else "open",
                                "topic": r.topic, "pytorch": r.said, "ids": r.ids}) + "\n")
    with open(out / "drawings.jsonl", "w", encoding="utf-8") as f:
        for (s, task), (wording, codes, picture) in draw_all(model, text, seeds[:max(1, n // 5)])[1].items():
            name = f"{s}-{task}.png"
            truth = f"{s}-{task}-truth.png"
            Image.fromarray(picture).save(out / name)
            Image.fromarray(true_drawing(s, task, model.c.draw)).save(out / truth)
            f.write(json.dumps({"image": f"{s}.png", "instruction": wording, "task": task, "codes": codes, "drawn": name, "truth": truth}) + "\n")


def compare(folder: Path, runtime: Path, file: Path, limit: int) -> bool:
    """Runs the runtime on a reference folder: same ids, same codes."""
    def rows(name: str) -> list[dict[str, object]]:
        return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()][:limit]

    same = total = 0
    for r in rows("questions.jsonl"):
        said = subprocess.run([runtime, "ask", "-m", file, "-i", folder / str(r["image"]), "--json", str(r["question"])], capture_output=True, text=True, check=True)
        answer = json.loads(said.stdout)
        ok = answer["tokens"] == r["ids"] and answer["answer"] == r["pytorch"]
        same, total = same + ok, total + 1
        if not ok:
            print("differs:", r["image"], r["question"], "|", r["pytorch"], "|", said.stdout.strip())
    print(f"answers: {same} of {total} equal")
    alike = drawn = 0
    levels, likeness = Counter[int](), []
    for r in rows("drawings.jsonl"):
        codes, png = folder / "runtime.json", folder / "runtime.png"
        png.unlink(missing_ok=True)
        codes.unlink(missing_ok=True)
        subprocess.run([runtime, "generate", "-m", file, "-i", folder / str(r["image"]), "-o", png, "--codes-out", codes, str(r["instruction"])], capture_output=True, check=True)
        ok = json.loads(codes.read_text()) == r["codes"]
        alike, drawn = alike + ok, drawn + 1
        if ok:
            a, b, truth = (np.array(Image.open(x).convert("RGB")) for x in (png, folder / str(r["drawn"]), folder / str(r["truth"])))
            levels.update(np.abs(a.astype(int) - b).ravel().tolist())
            if r["task"] == "reconstruct":
                likeness.append((ssim(b, truth), ssim(a, truth)))
        else:
            print("other codes:", r["image"], r["instruction"])
    print(f"drawings: {alike} of {drawn} with equal codes; levels of difference {dict(sorted(levels.items()))}")
    if likeness:
        print(f"reconstruction SSIM: PyTorch {np.mean([p for p, _ in likeness]):.5f}, runtime {np.mean([r for _, r in likeness]):.5f}")
    return same == total and alike == drawn


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("checkpoint", type=Path, nargs="?", default=Path(__file__).resolve().parent / "checkpoint")
    ap.add_argument("-n", type=int, default=500, help="held-out pictures")
    ap.add_argument("--per", type=int, default=6, help="questions a picture")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--json", type=Path)
    ap.add_argument("--reference", type=Path, help="write pictures, questions and PyTorch's ids here instead")
    ap.add_argument("--compare", type=Path, help="hold the runtime against such a folder instead")
    ap.add_argument("--runtime", type=Path, default=Path(__file__).resolve().parents[1] / "target/release/healthgpt")
    ap.add_argument("--model", type=Path)
    ap.add_argument("--limit", type=int, default=1 << 30)
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    if a.compare:
        raise SystemExit(0 if compare(a.compare, a.runtime, a.model, a.limit) else 1)
    model, text = load(a.checkpoint)
    if a.reference:
        write_reference(model, text, a.n, a.per, a.reference)
        return
    result = evaluate(model, text, a.n, a.per)
    for k, v in result.items():
        if k not in ("wrong", "gates ask", "gates generate"):
            print(k, json.dumps(v))
    for task in ("ask", "generate"):
        g = result[f"gates {task}"]
        print(f"gates {task}: mean entropy {np.mean([v['entropy'] for v in g.values()]):.3f} of its maximum")  # type: ignore[attr-defined]
    if a.json:
        a.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
