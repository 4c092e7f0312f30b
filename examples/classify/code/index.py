"""Which digit is on a picture: a page, and the answer to a picture of 8 x 8 grey levels as PNG or as JSON.

The model is what is in the folder of `model_path`: weights.json is a linear model that needs no package, digits.keras one of TensorFlow.
"""

import json
import math
import os
import struct
import time
import zlib

MODEL = None


class Linear:
    def __init__(self, folder):
        with open(os.path.join(folder, "weights.json")) as file:
            read = json.load(file)
        self.levels, self.weights, self.bias = read["levels"], read["weights"], read["bias"]

    def shares(self, pixels):
        scaled = [float(pixel) / self.levels for pixel in pixels]
        scores = [sum(w * x for w, x in zip(weights, scaled)) + bias for weights, bias in zip(self.weights, self.bias)]
        highest = max(scores)
        powers = [math.exp(score - highest) for score in scores]
        return [power / sum(powers) for power in powers]


class Keras:
    def __init__(self, folder):
        import numpy
        import tensorflow

        self.numpy = numpy
        self.model = tensorflow.keras.models.load_model(os.path.join(folder, "digits.keras"))
        self.shares([0] * 64)

    def shares(self, pixels):
        picture = self.numpy.array(pixels, dtype="float32").reshape(1, 8, 8, 1) / 16
        return self.model(picture, training=False).numpy()[0].tolist()


def initialize(context):
    """Loads the model once for each instance, before its first request."""
    global MODEL
    begun = time.monotonic()
    folder = os.environ["model_path"]
    MODEL = (Keras if os.path.exists(os.path.join(folder, "digits.keras")) else Linear)(folder)
    print("%s is loaded after %.1f s" % (type(MODEL).__name__, time.monotonic() - begun), flush=True)


def handler(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    if environ["REQUEST_METHOD"] == "GET":
        with open(os.path.join(os.path.dirname(__file__), "page.html"), "rb") as file:
            return answer(start_response, "200 OK", "text/html; charset=utf-8", file.read())
    try:
        is_png = environ.get("CONTENT_TYPE", "").startswith("image/png")
        pixels = grey_levels(body) if is_png else json.loads(body)["pixels"]
        if len(pixels) != 64:
            raise ValueError("a picture has 64 grey levels")
        result = classify(pixels)
    except (ValueError, KeyError, TypeError, struct.error, zlib.error) as error:
        said = json.dumps({"error": str(error)}).encode()
        return answer(start_response, "400 Bad Request", "application/json", said)
    return answer(start_response, "200 OK", "application/json", json.dumps(result).encode())


def answer(start_response, status, content_type, body):
    start_response(status, [("content-type", content_type), ("content-length", str(len(body)))])
    return [body]


def classify(pixels):
    shares = MODEL.shares(pixels)
    digit = max(range(len(shares)), key=shares.__getitem__)
    return {"digit": digit, "confidence": round(shares[digit], 4)}


def grey_levels(png):
    """The pixels of a PNG of 8-bit grey, from 0 to 16."""
    if png[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("the body is no PNG")
    at, data, width, height = 8, b"", 0, 0
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        kind, content = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", content[:10])
            if (depth, colour) != (8, 0) or width * height > 64:
                raise ValueError("the PNG is not 8 x 8 in 8-bit grey")
        elif kind == b"IDAT":
            data += content
        at += 12 + length
    lines, raw = [[0] * width], zlib.decompress(data)
    for number in range(height):
        line = raw[number * (width + 1) : (number + 1) * (width + 1)]
        lines.append(unfiltered(line[0], line[1:], lines[-1]))
    return [round(level * 16 / 255) for line in lines[1:] for level in line]


def unfiltered(kind, line, above):
    done = []
    for column, value in enumerate(line):
        left = done[column - 1] if column else 0
        corner = above[column - 1] if column else 0
        up = above[column]
        nearest = min((left, up, corner), key=lambda other: abs(left + up - corner - other))
        done.append((value + (0, left, up, (left + up) // 2, nearest)[kind]) & 255)
    return done
