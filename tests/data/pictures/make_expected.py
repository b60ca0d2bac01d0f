#!/usr/bin/env python3
"""Make expected.json: what Pillow gives for the pictures here, padded to a square and resized.

usage: make_expected.py DIR > DIR/expected.json        (needs Pillow)

Each entry has the sha256 of the size x size x 3 bytes and, to show where a difference lies, some rows as hex.
"""
import glob, hashlib, json, os, sys
import PIL
from PIL import Image

MEAN = (122, 116, 104)  # int(255 * image_mean) of CLIP

def resized(path, size):
    im = Image.open(path).convert("RGB")
    w, h = im.size
    side = max(w, h)
    square = Image.new("RGB", (side, side), MEAN)
    square.paste(im, ((side - w) // 2, (side - h) // 2))
    return square.resize((size, size), resample=Image.BICUBIC).tobytes()

entries = []
for path in sorted(glob.glob(sys.argv[1] + "/*.png")):
    # Shrinking to the real vision tower's side; for a small picture also enlarging, and the side of the tiny one.
    for size in (336, 112, 450) if os.path.getsize(path) < 10000 else (336,):
        rgb = resized(path, size)
        row = 3 * size
        entries.append({
            "file": os.path.basename(path), "size": size, "sha256": hashlib.sha256(rgb).hexdigest(),
            "rows": {str(y): rgb[y * row:(y + 1) * row].hex() for y in (size // 3, size // 2) if size == 336},
        })
json.dump({"made_with": "Pillow " + PIL.__version__, "padding": MEAN, "entries": entries}, sys.stdout, indent=1)
print()
