"""nanollama: a minimal LLM runtime, proven layer by layer."""

__version__ = "0.1.0"
