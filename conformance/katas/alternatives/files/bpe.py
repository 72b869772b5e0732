"""Other right ways to merge pairs."""

from heapq import heappop, heappush

from nanollama.text.bpe.merge import Rank


def merge_pairs__look_at_all(symbols: list[str], rank: Rank) -> list[str]:
    """every pair is ranked in every round: slow, and plain"""
    while True:
        best, at = None, -1
        for place in range(len(symbols) - 1):
            found = rank(symbols[place], symbols[place + 1])
            if found is not None and (best is None or found < best):
                best, at = found, place
        if best is None:
            return symbols
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]


def merge_pairs__one_heap(symbols: list[str], rank: Rank) -> list[str]:
    """one heap of (rank, place, the two symbols); an entry whose symbols have changed since is passed over"""
    after = [*range(1, len(symbols)), -1]
    before = [*range(-1, len(symbols) - 1)]
    heap: list[tuple[float, int, str, str]] = []
    for place in range(len(symbols) - 1):
        if (found := rank(symbols[place], symbols[place + 1])) is not None:
            heappush(heap, (found, place, symbols[place], symbols[place + 1]))
    while heap:
        _, left, first, second = heappop(heap)
        right = after[left]
        if right < 0 or (symbols[left], symbols[right]) != (first, second):
            continue
        symbols[left], symbols[right] = first + second, ""
        after[left] = after[right]
        if after[right] >= 0:
            before[after[right]] = left
        for a, b in ((before[left], left), (left, after[left])):
            if a >= 0 and b >= 0 and (found := rank(symbols[a], symbols[b])) is not None:
                heappush(heap, (found, a, symbols[a], symbols[b]))
    return [symbol for symbol in symbols if symbol]


def merge_pairs__list_of_ranks(symbols: list[str], rank: Rank) -> list[str]:
    """the ranks of all pairs stand in a list, of which only the neighbours of a join are asked for again"""
    worst = float("inf")

    def at(place: int) -> float:
        found = rank(symbols[place], symbols[place + 1]) if 0 <= place < len(symbols) - 1 else None
        return worst if found is None else found

    places = [at(place) for place in range(len(symbols) - 1)]
    while places and min(places) < worst:
        here = places.index(min(places))
        symbols[here] += symbols.pop(here + 1)
        places.pop(here)
        for place in (here - 1, here):
            if 0 <= place < len(places):
                places[place] = at(place)
    return symbols
