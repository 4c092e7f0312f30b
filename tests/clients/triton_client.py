"""`tritonclient` with binary tensors against the built-in model server. Arguments: the gateway's address and the model."""

import sys

import numpy
import tritonclient.http as triton

address, model = sys.argv[1], sys.argv[2]
client = triton.InferenceServerClient(address, connection_timeout=60, network_timeout=60)
assert client.is_server_live() and client.is_server_ready()
assert client.get_server_metadata()["name"] == "kipwake"
assert [entry["name"] for entry in client.get_model_repository_index()] == [model]
assert client.is_model_ready(model)
assert not client.is_model_ready("nobody")
try:
    client.get_model_metadata("nobody")
    raise AssertionError("there is no such model")
except triton.InferenceServerException as error:
    assert "KW-2028" in str(error) and error.status() == "404", error

about = client.get_model_metadata(model)
given = about["inputs"][0]
shape = [1 if size < 0 else size for size in given["shape"]]
picture = numpy.zeros(shape, dtype=triton.triton_to_np_dtype(given["datatype"]))
for binary in (True, False):
    tensor = triton.InferInput(given["name"], shape, given["datatype"])
    tensor.set_data_from_numpy(picture, binary_data=binary)
    wanted = [triton.InferRequestedOutput(output["name"], binary_data=binary) for output in about["outputs"]]
    result = client.infer(model, [tensor], outputs=wanted)
    for output in about["outputs"]:
        assert result.as_numpy(output["name"]).size > 0, output
client.close()
print("ok")
