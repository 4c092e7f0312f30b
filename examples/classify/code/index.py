"""Which digit is on a picture: a page, and the answer to a picture of 8 x 8 grey levels as PNG or as JSON."""

import json
import math
import os
import struct
import zlib

MODEL = None


def initialize(context):
    """Loads the weights once for each instance, before its first request."""
    global MODEL
    with open(os.path.join(os.environ["model_path"], "weights.json")) as file:
        MODEL = json.load(file)


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
    scaled = [float(pixel) / MODEL["levels"] for pixel in pixels]
    rows = zip(MODEL["weights"], MODEL["bias"])
    scores = [sum(w * x for w, x in zip(weights, scaled)) + bias for weights, bias in rows]
    highest = max(scores)
    powers = [math.exp(score - highest) for score in scores]
    digit = scores.index(highest)
    return {"digit": digit, "confidence": round(powers[digit] / sum(powers), 4)}


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
