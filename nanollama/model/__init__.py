"""From a config.json to the function that it describes: token ids in, logits out.

Imports torch, `errors` and `kernels`; never `quant`, `checkpoint`, `text`, `generation`, or anything above.
"""
