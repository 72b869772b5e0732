"""Other right ways to count slots in buckets."""

from nanollama.model.kv_cache import BUCKET


def bucketed__remainder(tokens: int, size: int) -> int:
    """the missing part of the last bucket is added"""
    slots = tokens + -tokens % BUCKET
    return slots if slots < size else size


def bucketed__last_token(tokens: int, size: int) -> int:
    """the bucket of the newest token, and all before it"""
    return min(((tokens - 1) // BUCKET + 1) * BUCKET, size)


def bucketed__counting(tokens: int, size: int) -> int:
    """buckets are added until there is room"""
    slots = BUCKET
    while slots < tokens:
        slots += BUCKET
    return sorted((slots, size))[0]
