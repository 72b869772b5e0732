"""A complete adapter: transformers through the protocol, with taps (L3). As an engine: "exec:python -m MODULE_OF_THIS_FILE"."""

import base64
import json
import sys
from typing import Any

import torch
import transformers

now: dict[str, Any] = {"taps": {}}  # the model, and what its layers gave


def pack(value: torch.Tensor) -> dict[str, object]:
    numbers = value.detach().double().numpy().astype("<f8").tobytes()
    return {"shape": list(value.shape), "dtype": "float64", "data": base64.b64encode(numbers).decode()}


def answer(request: dict[str, Any]) -> dict[str, object]:
    verb = request["verb"]
    if verb == "hello":
        return {"name": "example", "version": transformers.__version__, "levels": ["L2", "L3"], "dtype": "float32"}
    if verb == "load":
        now["model"] = transformers.AutoModelForCausalLM.from_pretrained(request["folder"], dtype=torch.float32).eval()
        for i, layer in enumerate(getattr(now["model"].base_model, "layers", None) or now["model"].base_model.h):
            layer.register_forward_hook(lambda _, args, out, i=i: now["taps"].update({f"layers.{i}": pack(out[0])}))
        return {"loaded": True}
    if verb == "run":
        if request["chunks"] or request["positions"] != list(range(len(request["ids"]))):
            return {"unsupported": "one call, at the first positions"}
        logits = now["model"](torch.tensor([request["ids"]])).logits[0]
        return {"logits": pack(logits), "taps": now["taps"]}
    return {"bye": True} if verb == "bye" else {"unsupported": verb}


for line in sys.stdin:
    try:
        print(json.dumps(answer(json.loads(line))), flush=True)
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
