"""Chat templates, the encoding of chats to ids, and conversations longer than the context.

Imports checkpoint.files and the interface in text.tokenizer; no particular kind of tokenizer, never text.convert.
"""
