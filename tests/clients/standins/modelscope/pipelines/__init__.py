"""The form of ModelScope's pipelines without their models."""


def pipeline(task, model, device):
    def call(given, **parameters):
        if task == "text-ranking":
            return {"scores": [len(one) for one in given["sentences_to_compare"]], "device": device}
        return {"text": given[::-1] if isinstance(given, str) else given, "parameters": parameters, "task": task}

    return call
