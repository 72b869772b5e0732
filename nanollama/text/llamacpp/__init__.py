"""The tokenizer and chat template of a GGUF file, by llama.cpp's rules.

Imports text.bpe, text.sentencepiece, text.chat.template and text.tokenizer; never text.convert.
"""
