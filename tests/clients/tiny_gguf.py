"""Writes a language model of llama's architecture with random weights as a GGUF file. Argument: the file."""

import random
import struct
import sys

WIDTH, HIDDEN, HEADS, CONTEXT = 32, 64, 2, 512
TEXT, UNSIGNED, SIGNED, FLOAT, ARRAY = 8, 4, 5, 6, 9
ALIGNMENT = 32


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def array(kind, values):
    packed = {TEXT: text, SIGNED: lambda v: struct.pack("<i", v), FLOAT: lambda v: struct.pack("<f", v)}[kind]
    return struct.pack("<IQ", kind, len(values)) + b"".join(packed(value) for value in values)


# Pieces: three marks, all bytes, and letters, so that any text can be written and read.
pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
pieces += [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
pieces += [(letter, -float(place), 1) for place, letter in enumerate("▁etaoinshrdlucmfwypvbgkjqxz")]

fields = [
    ("general.architecture", TEXT, text("llama")),
    ("general.name", TEXT, text("tiny")),
    ("llama.context_length", UNSIGNED, struct.pack("<I", CONTEXT)),
    ("llama.embedding_length", UNSIGNED, struct.pack("<I", WIDTH)),
    ("llama.block_count", UNSIGNED, struct.pack("<I", 1)),
    ("llama.feed_forward_length", UNSIGNED, struct.pack("<I", HIDDEN)),
    ("llama.attention.head_count", UNSIGNED, struct.pack("<I", HEADS)),
    ("llama.attention.head_count_kv", UNSIGNED, struct.pack("<I", HEADS)),
    ("llama.attention.layer_norm_rms_epsilon", FLOAT, struct.pack("<f", 1e-5)),
    ("llama.rope.dimension_count", UNSIGNED, struct.pack("<I", WIDTH // HEADS)),
    ("llama.vocab_size", UNSIGNED, struct.pack("<I", len(pieces))),
    ("tokenizer.ggml.model", TEXT, text("llama")),
    ("tokenizer.ggml.tokens", ARRAY, array(TEXT, [piece for piece, _, _ in pieces])),
    ("tokenizer.ggml.scores", ARRAY, array(FLOAT, [score for _, score, _ in pieces])),
    ("tokenizer.ggml.token_type", ARRAY, array(SIGNED, [kind for _, _, kind in pieces])),
    ("tokenizer.ggml.bos_token_id", UNSIGNED, struct.pack("<I", 1)),
    ("tokenizer.ggml.eos_token_id", UNSIGNED, struct.pack("<I", 2)),
    ("tokenizer.ggml.unknown_token_id", UNSIGNED, struct.pack("<I", 0)),
]
block = {
    "attn_norm": [WIDTH],
    "attn_q": [WIDTH, WIDTH],
    "attn_k": [WIDTH, WIDTH],
    "attn_v": [WIDTH, WIDTH],
    "attn_output": [WIDTH, WIDTH],
    "ffn_norm": [WIDTH],
    "ffn_gate": [WIDTH, HIDDEN],
    "ffn_up": [WIDTH, HIDDEN],
    "ffn_down": [HIDDEN, WIDTH],
}
tensors = {"token_embd": [WIDTH, len(pieces)], "output_norm": [WIDTH], "output": [WIDTH, len(pieces)]}
tensors |= {f"blk.0.{name}": shape for name, shape in block.items()}

dice = random.Random(7)
infos, data = b"", b""
for name, shape in tensors.items():
    count = shape[0] * (shape[1] if len(shape) > 1 else 1)
    values = [1.0] * count if name.endswith("norm") else [dice.gauss(0, 0.3) for _ in range(count)]
    infos += text(f"{name}.weight") + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, len(data))
    data += struct.pack(f"<{count}f", *values)
    data += bytes(-len(data) % ALIGNMENT)

head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields))
head += b"".join(text(name) + struct.pack("<I", kind) + value for name, kind, value in fields) + infos
with open(sys.argv[1], "wb") as file:
    file.write(head + bytes(-len(head) % ALIGNMENT) + data)
