"""Text ↔ token ids: tokenizers by kind of file, streaming, chat templates, and the conversion between kinds (convert/).

Imports errors, model.config and checkpoint (not checkpoint.export); never generation, lm or cli.
"""
