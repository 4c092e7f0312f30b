"""Downloads a model with the clients of both hubs: hub_clients.py ENDPOINT REPOSITORY FOLDER."""
import os
import sys

endpoint, repository, folder = sys.argv[1:4]
os.environ["HF_ENDPOINT"] = endpoint
os.environ["MODELSCOPE_ENDPOINT"] = endpoint
os.environ["MODELSCOPE_CACHE"] = os.path.join(folder, "modelscope")

from huggingface_hub import snapshot_download

expected = {"onnx/model.onnx": 69299, "README.md": 9}


def check(path):
    for name, size in expected.items():
        found = os.path.getsize(os.path.join(path, name))
        assert found == size, (path, name, found)


check(snapshot_download(repository, endpoint=endpoint, cache_dir=os.path.join(folder, "hf")))

from modelscope import snapshot_download as modelscope_download

check(modelscope_download(repository, endpoint=endpoint, cache_dir=os.path.join(folder, "ms")))
print("ok")
