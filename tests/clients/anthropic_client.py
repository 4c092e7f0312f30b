"""`anthropic` against the function `chat`, which is found by its model. Arguments: the gateway's address and the model."""

import sys
import urllib.request

import anthropic

model = sys.argv[2]
client = anthropic.Anthropic(base_url=f"http://{sys.argv[1]}", api_key="kw_none", max_retries=0, timeout=60)
messages = [{"role": "user", "content": "x" * 100_000}]

with client.messages.stream(model=model, max_tokens=16, messages=messages) as stream:
    words = []
    for word in stream.text_stream:
        words.append(word)
        if len(words) == 1:
            # The server sends the rest only when it knows that the first word has come.
            urllib.request.urlopen(f"http://{sys.argv[1]}/f/chat/seen").read()
    final = stream.get_final_message()
assert "".join(words) == f"the model is {model}", words
assert len(words) == 4, words
assert final.stop_reason == "end_turn" and final.usage.output_tokens == 4, final

whole = client.messages.create(model=model, max_tokens=16, messages=messages)
assert whole.content[0].text == f"the model is {model}", whole

try:
    client.messages.create(model="nobody", max_tokens=16, messages=messages)
    raise AssertionError("there is no such model")
except anthropic.NotFoundError as error:
    assert "nobody" in str(error), error
print("ok")
