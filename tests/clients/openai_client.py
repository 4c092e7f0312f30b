"""`openai` against functions that are found by their models. Argument: the gateway's address."""

import sys

import openai

client = openai.OpenAI(base_url=f"http://{sys.argv[1]}/v1", api_key="kw_none", max_retries=0, timeout=60)
assert sorted(model.id for model in client.models.list()) == ["chat", "other"]
assert client.models.retrieve("chat").id == "chat"

messages = [{"role": "user", "content": "x" * 200_000}]
stream = client.chat.completions.create(model="chat", messages=messages, stream=True)
assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "the model is chat"
whole = client.chat.completions.create(model="other", messages=messages)
assert whole.choices[0].message.content == "the model is other"
assert whole._request_id is None or whole._request_id

for model, kind, code in (("nobody", openai.NotFoundError, "model_not_found"),):
    try:
        client.chat.completions.create(model=model, messages=messages)
        raise AssertionError("there is no such model")
    except kind as error:
        assert error.code == code, error
print("ok")
