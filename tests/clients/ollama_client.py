"""`ollama` against a function that is an Ollama. Arguments: the gateway's address and the function."""

import sys
import urllib.request

import ollama


def seen():
    """The server sends the rest of a stream only when it knows that the first word has come."""
    urllib.request.urlopen(f"http://{sys.argv[1]}/f/{sys.argv[2]}/seen").read()


client = ollama.Client(host=f"http://{sys.argv[1]}/f/{sys.argv[2]}", timeout=60)
messages = [{"role": "user", "content": "hello"}]

words = []
for part in client.chat(model="tiny", messages=messages, stream=True):
    words.append(part.message.content)
    if len(words) == 1:
        seen()
assert "".join(words) == "the model is tiny", words
assert client.chat(model="tiny", messages=messages).message.content == "the model is tiny"
words = []
for part in client.generate(model="tiny", prompt="x", stream=True):
    words.append(part.response)
    if len(words) == 1:
        seen()
assert "".join(words) == "the model is tiny", words
assert client.embed(model="tiny", input=["one", "three"]).embeddings == [[3.0, 1.0], [5.0, 1.0]]
assert [model.model for model in client.list().models] == ["tiny:latest"]
try:
    client.chat(model="broken", messages=messages)
    raise AssertionError("there is no such model")
except ollama.ResponseError as error:
    assert error.status_code == 404 and "no such model" in str(error), error

# By the name of the model alone.
client = ollama.Client(host=f"http://{sys.argv[1]}", timeout=60)
words = []
for part in client.chat(model="tiny", messages=messages, stream=True):
    words.append(part.message.content)
    if len(words) == 1:
        seen()
assert "".join(words) == "the model is tiny", words
assert client.generate(model="tiny:latest", prompt="x").response
assert client.embed(model="tiny", input=["one", "three"]).embeddings == [[3.0, 1.0], [5.0, 1.0]]
assert "tiny" in [model.model for model in client.list().models]
try:
    client.chat(model="absent", messages=messages)
    raise AssertionError("there is no such model")
except ollama.ResponseError as error:
    assert error.status_code == 404 and "absent" in str(error), error
print("ok")
