"""Trains the digits model and writes everything beside this file that is made from it.

    python3 -m venv /tmp/digits && /tmp/digits/bin/pip install -r requirements.txt
    /tmp/digits/bin/python train.py

Written: model/model.onnx, held-back.jsonl, samples/*.png, and the figures in CARD.md between its two marks.
The split and the training are seeded; with the pinned versions the same files come out on the same kind of machine.
"""

import base64
import io
import json
import re
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw
from scipy import ndimage
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

HERE = Path(__file__).parent
SEED = 20261122
LEVELS = 16.0  # the data set counts 0 to 16 pixels in each block of 4x4
COPIES = 8  # disturbed copies of each training picture
DRAWN = 150  # drawn pictures of each form in FORMS
# Common forms that the writers of the data set hardly used: lines through points of a unit square.
FORMS = [
    (1, [[(0.5, 0.0), (0.5, 1.0)]]),
    (1, [[(0.2, 0.25), (0.5, 0.0), (0.5, 1.0)]]),
    (4, [[(0.55, 0.0), (0.0, 0.65), (1.0, 0.65)], [(0.7, 0.35), (0.7, 1.0)]]),
    (7, [[(0.0, 0.0), (1.0, 0.0), (0.4, 1.0)]]),
    (7, [[(0.0, 0.2), (0.0, 0.0), (1.0, 0.0), (0.6, 0.5), (0.45, 1.0)]]),
]


def disturbed(pictures, random):
    """Slightly slanted, turned, scaled and moved copies: people do not draw like the 43 writers of the data set."""
    copies = []
    for picture in pictures:
        turn = random.normal(0, 0.10)
        slant = random.normal(0, 0.12)
        scale = random.normal(1, [0.04, 0.08])
        matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        matrix = matrix @ np.array([[1, 0], [slant, 1]]) @ np.diag(scale)
        centre = np.array([3.5, 3.5])
        move = random.normal(0, 0.25, 2)
        offset = centre - matrix @ (centre + move)
        copy = ndimage.affine_transform(picture, matrix, offset, order=1)
        copies.append(np.clip(copy * random.normal(1, 0.06), 0, LEVELS))
    return np.array(copies)


def drawn(strokes, random):
    """A form as the data set would have it: lines of the usual width in a box of 20 x 32, counted in blocks of 4 x 4."""
    scale = 8
    image = Image.new("L", (32 * scale, 32 * scale), 0)
    pen = ImageDraw.Draw(image)
    width = int(random.uniform(4.5, 7.5) * scale)
    wide = random.uniform(14, 19) * scale - width
    for stroke in strokes:
        points = [
            (
                16 * scale + (x - 0.5 + random.normal(0, 0.06)) * wide,
                width / 2 + np.clip(y + random.normal(0, 0.04), 0, 1) * (32 * scale - width),
            )
            for x, y in stroke
        ]
        pen.line(points, fill=1, width=width, joint="curve")
        for x, y in points:
            pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=1)
    side = 4 * scale
    return np.asarray(image).reshape(8, side, 8, side).mean(axis=(1, 3)) * LEVELS


def export(classifier):
    """The classifier as three Gemm nodes. Softmax is left to the server (`activation` in model.json)."""
    nodes, weights, current = [], [], "pixels"
    layers = len(classifier.coefs_)
    for index, (coefficients, intercepts) in enumerate(zip(classifier.coefs_, classifier.intercepts_)):
        if index == 0:
            coefficients = coefficients / LEVELS  # trained on 0 to 1, served with 0 to 16
        weights.append(numpy_helper.from_array(coefficients.astype(np.float32), f"weight{index}"))
        weights.append(numpy_helper.from_array(intercepts.astype(np.float32), f"bias{index}"))
        last = index == layers - 1
        output = "logits" if last else f"sum{index}"
        nodes.append(helper.make_node("Gemm", [current, f"weight{index}", f"bias{index}"], [output]))
        if not last:
            nodes.append(helper.make_node("Relu", [output], [f"layer{index}"]))
            current = f"layer{index}"
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    model.producer_name = "kipwake examples/digits/train.py"
    onnx.checker.check_model(model)
    return model


def png(picture, size=None):
    """Light ink on black, as the data set has it. `size` makes a larger picture, dark ink on white, as people draw."""
    grey = np.round(picture * 255 / LEVELS).astype(np.uint8)
    image = Image.fromarray(grey, mode="L")
    if size:
        image = image.resize((size, size), Image.Resampling.BICUBIC)
        wide = Image.new("L", (size * 3 // 2, size * 3 // 2), 0)
        wide.paste(image, (size // 4, size // 4))
        image = Image.fromarray(255 - np.asarray(wide), mode="L")
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def main():
    digits = load_digits()
    train, held, train_truth, held_truth = train_test_split(
        digits.images, digits.target, test_size=0.2, random_state=SEED, stratify=digits.target
    )
    random = np.random.default_rng(SEED)
    forms = np.array([drawn(strokes, random) for _, strokes in FORMS for _ in range(DRAWN)])
    forms_truth = np.repeat([digit for digit, _ in FORMS], DRAWN)
    pictures = np.concatenate([train] + [disturbed(train, random) for _ in range(COPIES)] + [forms])
    truth = np.concatenate([train_truth] * (COPIES + 1) + [forms_truth])
    classifier = MLPClassifier((128, 64), alpha=1e-3, batch_size=128, max_iter=40, random_state=SEED)
    warnings.filterwarnings("ignore", message="Stochastic Optimizer: Maximum iterations")  # 40 are enough
    classifier.fit(pictures.reshape(-1, 64) / LEVELS, truth)

    model = export(classifier)
    (HERE / "model").mkdir(exist_ok=True)
    (HERE / "model/model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    session = onnxruntime.InferenceSession(HERE / "model/model.onnx", providers=["CPUExecutionProvider"])

    def correct(pictures, truth):
        rows = pictures.reshape(-1, 64).astype(np.float32)
        return int((session.run(None, {"pixels": rows})[0].argmax(axis=1) == truth).sum())

    with open(HERE / "held-back.jsonl", "w", encoding="utf-8") as lines:
        for index, (picture, digit) in enumerate(zip(held, held_truth), start=1):
            line = {
                "name": f"held-back-{index:04}",
                "truth": str(digit),
                "content_type": "image/png",
                "body": base64.b64encode(png(picture)).decode(),
            }
            lines.write(json.dumps(line, separators=(",", ":")) + "\n")
    (HERE / "samples").mkdir(exist_ok=True)
    for digit in (2, 4, 7):
        sample = held[np.flatnonzero(held_truth == digit)[0]]
        (HERE / f"samples/{digit}.png").write_bytes(png(sample, size=160))

    figures = (
        f"| pictures | number | correct | accuracy |\n|---|---|---|---|\n"
        f"| training | {len(train)} | {correct(train, train_truth)} | {correct(train, train_truth) / len(train):.4f} |\n"
        f"| held back | {len(held)} | {correct(held, held_truth)} | {correct(held, held_truth) / len(held):.4f} |\n"
    )
    card = (HERE / "CARD.md").read_text(encoding="utf-8")
    marks = r"(<!-- figures -->\n).*?(<!-- end -->)"
    (HERE / "CARD.md").write_text(re.sub(marks, rf"\1{figures}\2", card, flags=re.S), encoding="utf-8")
    print(figures)


if __name__ == "__main__":
    main()
