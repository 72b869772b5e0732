"""Other right ways to collect the ids that end a request."""

from nanollama.errors import NanollamaError
from nanollama.generation.request import GenerationDefaults, Request
from nanollama.text.tokenizer import TokenizerLike


def end_ids__sets_joined(request: Request, defaults: GenerationDefaults, tokenizer: TokenizerLike | None) -> frozenset[int]:
    """three sets, joined at the end"""
    if request.stop and tokenizer is None:
        raise NanollamaError(f"stop strings {list(request.stop)} need a tokenizer")
    spelled = set() if tokenizer is None else {tokenizer.token_to_id(stop) for stop in request.stop} & tokenizer.special_ids
    own = () if request.ignore_eos else defaults.eos_token_ids
    return frozenset(own).union(request.stop_ids, (i for i in spelled if i is not None))


def end_ids__by_special_token(
    request: Request, defaults: GenerationDefaults, tokenizer: TokenizerLike | None
) -> frozenset[int]:
    """not each string is looked up, but each special token's spelling"""
    found = list(request.stop_ids)
    if not request.ignore_eos:
        found += defaults.eos_token_ids
    if request.stop:
        if tokenizer is None:
            raise NanollamaError(f"stop string {request.stop[0]!r} needs a tokenizer")
        found += [i for i in tokenizer.special_ids if tokenizer.id_to_token(i) in request.stop]
    return frozenset(found)
