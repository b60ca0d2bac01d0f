#!/usr/bin/env python3
"""B-mode ultrasound phantoms whose labels are true by construction.

The physics is that of a convex probe in polar space: one complex Gaussian scatterer per cell (speckle) times a map
of echogenicity; attenuation summed along the beam less a fixed gain curve, so that enhancement behind fluid and
shadow behind stone come out by themselves; a separable point spread; log compression; scan conversion.

Everything follows from one integer: `phantom(seed)` draws the labels, `render(phantom)` the picture. The same seed
without its lesions has the same speckle, so that "remove the lesion" has a true answer.

    python phantoms.py --sheet sheet.png        # a contact sheet with its labels on stdout
    python phantoms.py --export DIR -n 20       # held-out pictures as PNG with questions.jsonl
"""
from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import get_args

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIZE = 112  # the picture; equal to the vision tower's input, so that no resampling stands between them
TOP, BOTTOM = 10, 108  # rows of depth 0 and of the full depth, on the axis
NZ, NX = 200, 72  # samples along a beam, beams
PROBE, HALF = 0.04, 0.40  # probe radius [m], half angle [rad]
KINDS = ("cyst", "gallstone", "hypoechoic mass", "hyperechoic mass")
RANGES = (8, 12)  # depth settings [cm]; the scale at the right tells which
SIZES = (10, 15, 20, 25)  # [mm]
HELD_OUT = 1_000_000_000  # seeds from here on are never trained on

CAPTIONS = ("LIVER", "ABDOMEN", "RUQ", "SAGITTAL", "TRANSV", "PT 10482", "ID 77-31", "ROOM 4", "C5-1", "3.5 MHz",
            "MI 0.9", "TIS 0.4", "14:32:07", "09:05:51", "12 MAR 24", "30 JUN 25", "FR 28", "GN 61", "DR 60", "DEMO")


@dataclass(frozen=True)
class Lesion:
    """A finding: its labels, then where exactly it lies [m]."""

    kind: str
    side: str  # of the picture
    depth_cm: int  # of the centre, to the nearest centimetre
    size_mm: int  # longest diameter, to the nearest 5 mm
    x: float
    z: float
    a: float  # lateral half axis
    b: float  # axial half axis


@dataclass(frozen=True)
class Phantom:
    seed: int
    range_cm: int
    lesions: tuple[Lesion, ...]  # left before right
    caption: str | None


def phantom(seed: int) -> Phantom:
    """The labels of a seed.

    Depths and sizes keep away from the middle between two labels (0.2 cm and 1 mm of play around each): a label that
    a reader could round either way would measure luck.
    """
    rng = np.random.default_rng([seed, 1])
    range_cm = int(rng.choice(RANGES))
    count = int(rng.choice(3, p=(0.22, 0.48, 0.30)))
    sides = ("left", "right") if count == 2 else (str(rng.choice(("left", "right"))),) * count
    lesions = []
    for side in sides:
        kind = str(rng.choice(KINDS))
        sizes = SIZES[:2] if kind == "gallstone" else SIZES
        depth = int(rng.integers(2, 7)) if range_cm == 8 else int(rng.integers(3, 10))
        size = int(rng.choice([s for s in sizes if s <= 10 * depth]))
        a = (size + rng.uniform(-1, 1)) * 5e-4
        z = (depth + rng.uniform(-0.2, 0.2)) * 1e-2
        room = (PROBE + z) * np.sin(HALF) - a * (1.7 if kind == "gallstone" else 1.0)
        x = rng.uniform(min(0.011, room), max(0.012, min(room, 0.035)))
        lesions.append(Lesion(kind, side, depth, size, x if side == "right" else -x, z, a, a * rng.uniform(0.75, 1.0)))
    words = rng.choice(CAPTIONS, size=int(rng.integers(1, 3)), replace=False)
    return Phantom(seed, range_cm, tuple(lesions), " ".join(words) if rng.random() < 0.5 else None)


@dataclass(frozen=True)
class _Grid:
    x: np.ndarray  # of the polar cells [m]
    z: np.ndarray
    cell_cm: float
    inside: np.ndarray  # picture pixels within the sector
    i: np.ndarray  # their polar coordinates, whole and fractional
    j: np.ndarray
    u: np.ndarray
    v: np.ndarray


def metres_per_pixel(range_cm: int) -> float:
    return range_cm * 1e-2 / (BOTTOM - TOP)


def pixel(range_cm: int, x: float, z: float) -> tuple[float, float]:
    """Column and row of a point in metres."""
    return SIZE / 2 - 3 + x / metres_per_pixel(range_cm), TOP + z / metres_per_pixel(range_cm)


@lru_cache
def _grid(range_cm: int) -> _Grid:
    outer = PROBE + range_cm * 1e-2
    r = np.linspace(PROBE, outer, NZ, dtype=np.float32)[:, None]
    t = np.linspace(-HALF, HALF, NX, dtype=np.float32)[None]
    step = metres_per_pixel(range_cm)
    px = (np.arange(SIZE)[None] - (SIZE / 2 - 3)) * step
    pz = (np.arange(SIZE)[:, None] - TOP) * step + PROBE
    rr, tt = np.hypot(px, pz), np.arctan2(px, pz)
    i, j = (rr - PROBE) / (outer - PROBE) * (NZ - 1), (tt + HALF) / (2 * HALF) * (NX - 1)
    inside = (i >= 0) & (i < NZ - 1) & (j >= 0) & (j < NX - 1)
    i, j = i[inside], j[inside]
    whole_i, whole_j = i.astype(np.int64), j.astype(np.int64)
    return _Grid(r * np.sin(t), r * np.cos(t) - PROBE, range_cm / NZ, inside, whole_i, whole_j,
                 (i - whole_i).astype(np.float32), (j - whole_j).astype(np.float32))


@lru_cache
def _spread(z: float, x: float, energy: bool) -> np.ndarray:
    """A separable Gaussian in the frequency domain, of sum or energy one."""
    def line(n: int, s: float) -> np.ndarray:
        k = np.exp(-0.5 * ((np.arange(n) - n // 2) / s) ** 2)
        return np.fft.fft(np.roll(k / (np.linalg.norm(k) if energy else k.sum()), -(n // 2)))
    return (line(NZ, z)[:, None] * line(NX, x)[None]).astype(np.complex64)


def _filter(field: np.ndarray, spread: np.ndarray) -> np.ndarray:
    return np.fft.ifft2(np.fft.fft2(field.astype(np.complex64)) * spread)


def _lump(g: _Grid, x: float, z: float, a: float, b: float, rng: np.random.Generator) -> np.ndarray:
    """An ellipse with a wavy edge: below 1 inside."""
    angle = np.arctan2(g.z - z, g.x - x)
    wave = sum(rng.normal() * 0.05 / k * np.cos(k * angle + rng.uniform(0, 6.28)) for k in (2, 3, 4))
    return np.hypot((g.x - x) / a, (g.z - z) / b) * (1 + wave)


def _soft(distance: np.ndarray, steep: float) -> np.ndarray:
    return 1 / (1 + np.exp(np.clip((distance - 1) * steep, -40, 40)))


def _place(g: _Grid, lesion: Lesion, rng: np.random.Generator, echo: np.ndarray, loss: np.ndarray,
           wall: np.ndarray) -> None:
    """Changes echogenicity, attenuation [dB/cm/MHz] and specular walls where the lesion lies."""
    x, z, a, b = lesion.x, lesion.z, lesion.a, lesion.b
    if lesion.kind in ("cyst", "gallstone"):
        cx, cz, ca, cb = x, z, a, b
        if lesion.kind == "gallstone":  # the stone lies on the floor of its bladder; labels are the stone's
            cz, ca, cb = z - 0.6 * b, 1.7 * a, 1.6 * b
        d = _lump(g, cx, cz, ca, cb, rng)
        fluid = _soft(d, 20)
        square = np.abs(g.z - cz) / np.hypot(g.x - cx, g.z - cz + 1e-6)  # a beam that meets the wall squarely
        echo *= 1 - 0.97 * fluid
        loss -= 0.45 * fluid
        wall += 0.3 * np.exp(-0.5 * ((d - 1) / 0.06) ** 2) * square ** 4
    if lesion.kind == "gallstone":
        stone = _soft(_lump(g, x, z, a, 0.8 * b, rng), 20)
        echo *= 1 - stone
        echo += 7 * stone
        loss += 9 * stone * (g.z > z - 0.3 * b)
    elif lesion.kind == "hypoechoic mass":
        inside = _soft(_lump(g, x, z, a, b, rng), 20)
        echo *= 1 - 0.82 * inside
        loss += 0.15 * inside
    elif lesion.kind == "hyperechoic mass":
        echo *= 1 + 3.8 * _soft(_lump(g, x, z, a, b, rng), 20)


def render(p: Phantom, lesions: bool = True) -> np.ndarray:
    """The grey picture, uint8 [SIZE, SIZE]."""
    g, rng = _grid(p.range_cm), np.random.default_rng([p.seed, 2])
    shape = (NZ, NX)
    texture = _filter(rng.standard_normal(shape, np.float32), _spread(9.0, 4.0, False)).real
    echo = 10 ** (texture / texture.std() * 0.09)
    loss, wall = np.full(shape, 0.5, np.float32), np.zeros(shape, np.float32)
    for depth, strength in ((0.004, 2.5), (0.008, 1.5)):  # skin and fascia
        band = np.exp(-0.5 * ((g.z - depth - 0.0006 * np.sin(40 * g.x + rng.uniform(0, 6))) / 0.0006) ** 2)
        echo += strength * band
    noise = rng.standard_normal((3, *shape), np.float32)
    gain_db, floor = rng.uniform(-3, 3), rng.uniform(0.012, 0.03)
    for n, lesion in enumerate(p.lesions if lesions else ()):
        _place(g, lesion, np.random.default_rng([p.seed, 3 + n]), echo, loss, wall)
    mhz = 3.5
    lost = np.cumsum(2 * loss * mhz * g.cell_cm, 0)
    given = 2 * 0.5 * mhz * g.cell_cm * np.arange(NZ, dtype=np.float32)[:, None]
    gain = 10 ** ((given - lost) / 20)
    field = ((noise[0] + 1j * noise[1]) * np.sqrt(0.5) * echo + 5 * wall) * gain
    envelope = np.abs(_filter(field, _spread(1.4, 0.8, True))) + floor * np.abs(noise[2])
    db = 20 * np.log10(envelope + 1e-6) - 8 * g.z / g.z.max() + gain_db
    polar = np.clip(0.46 + db / 60, 0, 1).astype(np.float32)
    i, j, u, v = g.i, g.j, g.u, g.v
    out = np.zeros((SIZE, SIZE), np.float32)
    out[g.inside] = ((polar[i, j] * (1 - v) + polar[i, j + 1] * v) * (1 - u)
                     + (polar[i + 1, j] * (1 - v) + polar[i + 1, j + 1] * v) * u)
    return _overlay(p, (out * 255).astype(np.uint8))


@lru_cache
def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(9)


def _overlay(p: Phantom, picture: np.ndarray) -> np.ndarray:
    """The depth scale (a tick a centimetre, a long one every fifth) and the caption."""
    step = (BOTTOM - TOP) / p.range_cm
    for cm in range(p.range_cm + 1):
        picture[round(TOP + cm * step), SIZE - (7 if cm % 5 == 0 else 4):] = 230
    if p.caption is None:
        return picture
    image = Image.fromarray(picture)
    at = (1, 0) if p.seed % 2 else (1, SIZE - 11)
    ImageDraw.Draw(image).text(at, p.caption, fill=235, font=_font())
    return np.array(image)


def lesion_mask(p: Phantom, size: int) -> np.ndarray:
    """Where the lesions lie, bool [size, size]."""
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    rows, columns = (rows + 0.5) * SIZE / size, (columns + 0.5) * SIZE / size
    mask, step = np.zeros((size, size), bool), metres_per_pixel(p.range_cm)
    for lesion in p.lesions:
        c, r = pixel(p.range_cm, lesion.x, lesion.z)
        mask |= np.hypot((columns - c) / (lesion.a / step), (rows - r) / (lesion.b / step)) < 1
    return mask


def shrink(picture: np.ndarray, size: int) -> np.ndarray:
    return np.array(Image.fromarray(picture).resize((size, size), Image.Resampling.BOX))


def colour(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=-1)


def main() -> None:
    from questions import Wording, ask

    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--sheet", type=Path)
    ap.add_argument("--export", type=Path)
    ap.add_argument("-n", type=int, default=20)
    ap.add_argument("--first", type=int, default=HELD_OUT, help="first seed")
    ap.add_argument("--wording", choices=get_args(Wording), default="held out", help="of the exported questions")
    a = ap.parse_args()
    if a.sheet:
        cells = []
        for seed in range(a.first, a.first + 24):
            p = phantom(seed)
            g = render(p)
            big = np.hstack([colour(g), colour(render(p, lesions=False))])
            cells.append(big)
            print(seed, p.range_cm, p.caption, [(x.kind, x.side, x.depth_cm, x.size_mm) for x in p.lesions])
        Image.fromarray(np.vstack([np.hstack(cells[i:i + 3]) for i in range(0, 24, 3)])).save(a.sheet)
    if a.export:
        a.export.mkdir(parents=True, exist_ok=True)
        with open(a.export / "questions.jsonl", "w", encoding="utf-8") as f:
            for seed in range(a.first, a.first + a.n):
                p, name = phantom(seed), f"{seed}.png"
                Image.fromarray(colour(render(p))).save(a.export / name)
                for q in ask(p, np.random.default_rng([seed, 9]), 6, a.wording):
                    f.write(json.dumps({"image": name, "question": q.text, "answer": q.answer,
                                        "type": "closed" if q.closed else "open", "topic": q.topic}) + "\n")


if __name__ == "__main__":
    main()
