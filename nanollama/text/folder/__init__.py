"""The tokenizer files of a checkpoint folder: which kind it holds, and its declarations of special tokens.

Imports text.bpe, text.sentencepiece and text.added_tokens; never text.llamacpp, text.chat or text.convert.
"""
