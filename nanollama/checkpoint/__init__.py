"""Bytes → named tensors: plain files (files.py), safetensors (safetensors.py), and the model hub (hub.py)."""
