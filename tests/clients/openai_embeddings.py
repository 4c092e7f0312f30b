"""`openai` for embeddings of the built-in model server. Arguments: the gateway's address and the model."""

import sys

import openai

model = sys.argv[2]
client = openai.OpenAI(base_url=f"http://{sys.argv[1]}/v1", api_key="kw_none", max_retries=0, timeout=60)


def embed(texts, **more):
    answer = client.embeddings.create(model=model, input=texts, **more)
    assert answer.model == model and answer.usage.prompt_tokens > 0, answer
    return [item.embedding for item in answer.data]


def similarity(one, other):
    return sum(a * b for a, b in zip(one, other))


# The client asks for base64 by itself, and for numbers where it is told to.
cat, kitten, law = embed(["A cat sleeps on the sofa.", "The kitten naps on the couch.", "The law was passed in 1998."])
assert len(cat) == 384 and abs(similarity(cat, cat) - 1) < 1e-4
assert similarity(cat, kitten) > 0.5 > similarity(cat, law), (similarity(cat, kitten), similarity(cat, law))
(alone,) = embed("A cat sleeps on the sofa.", encoding_format="float")
assert similarity(cat, alone) > 0.999
try:
    embed("x", dimensions=100)
    raise AssertionError("the model has no shorter embeddings")
except openai.BadRequestError as error:
    assert error.code == "KW-6023" and "100" in str(error), error
try:
    embed([])
    raise AssertionError("there is nothing to embed")
except openai.BadRequestError as error:
    assert error.code == "KW-6006", error
print("ok")
