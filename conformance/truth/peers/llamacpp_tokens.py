"""llama.cpp's tokens of texts: `PYTHON conformance/truth/peers/llamacpp_tokens.py FILE.gguf < texts > answers`.

Needs only llama-cpp-python, so it imports nothing of this project. Every line of input is a text in JSON. The first line of
output describes the vocabulary: the ids that end an answer, and each token's bytes (hex), without and with special tokens
spelled. Then follows a line per text: the ids without and with special tokens parsed, then those with BOS and EOS added.
"""

import ctypes
import json
import sys

import llama_cpp as api

SILENCE = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda level, message, data: None)


def open_vocabulary(path: str) -> ctypes.c_void_p:
    """The vocabulary of a GGUF file."""
    api.llama_log_set(SILENCE, None)
    params = api.llama_model_default_params()
    params.vocab_only = True
    model = api.llama_model_load_from_file(path.encode(), params)
    if not model:
        raise SystemExit(f"llama.cpp can't open {path}")
    return api.llama_model_get_vocab(model)


def tokenize(vocabulary: ctypes.c_void_p, text: bytes, add_special: bool, parse_special: bool) -> list[int]:
    """llama_tokenize's ids."""
    room = 4 * len(text) + 8
    ids = (ctypes.c_int * room)()
    count = api.llama_tokenize(vocabulary, text, len(text), ids, room, add_special, parse_special)
    if count < 0:
        raise SystemExit(f"llama_tokenize wants room for {-count} ids of {len(text)} bytes")
    return list(ids[:count])


def piece(vocabulary: ctypes.c_void_p, id: int, special: bool) -> str:
    """A token's bytes, in hex."""
    buffer = ctypes.create_string_buffer(4096)
    count = api.llama_token_to_piece(vocabulary, id, buffer, len(buffer), 0, special)
    return buffer.raw[:count].hex()


def main() -> None:
    """Answer every line of standard input."""
    vocabulary = open_vocabulary(sys.argv[1])
    ids = range(api.llama_vocab_n_tokens(vocabulary))
    about = {
        "ends": [id for id in ids if api.llama_vocab_is_eog(vocabulary, id)],
        "pieces": [[piece(vocabulary, id, special) for special in (False, True)] for id in ids],
    }
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        text = json.loads(line).encode("utf-8")
        modes = (False, False), (False, True), (True, True)
        print(json.dumps([tokenize(vocabulary, text, *mode) for mode in modes]), flush=True)


if __name__ == "__main__":
    main()
