"""The one exception this package raises on purpose. Everything else that escapes is a bug of ours."""


class NanollamaError(ValueError):
    """Bad input: the message says what was wrong (with the value), what was expected and what to do next."""
