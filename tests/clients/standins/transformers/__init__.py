"""Stands in for `transformers`: the form of its pipelines without their models. For tests of the app of preset `pipeline`."""

import json
import pathlib


class Scores(list):
    """An array of a library, as pipelines give them."""

    def tolist(self):
        return list(self)


def pipeline(task, model, device):
    config = json.loads((pathlib.Path(model) / "config.json").read_text())

    def classify(value, top_k=1):
        if task == "text-classification":
            if not isinstance(value, str):
                raise TypeError("a text is needed")
            return [{"label": config["labels"][len(value) % 2], "score": 0.75}][:top_k]
        if task == "image-classification":
            width, height = value.size
            red = value.getpixel((0, 0))[0]
            return [{"label": f"{width} x {height}", "score": red / 255}]
        if task == "feature-extraction":
            return Scores([float(len(value)), float(device)])
        raise RuntimeError(f"the model breaks at {value!r}")

    def answer(question, context):
        return {"answer": context.split()[-1], "score": 1.0, "question": question}

    return answer if task == "question-answering" else classify
