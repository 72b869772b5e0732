"""SentencePiece: the model, its normaliser, the unigram lattice, and tokenizer.model read and written.

Imports errors and text.bpe.merge; nothing else of text.
"""
