"""Seeds made of several numbers."""

from __future__ import annotations


PRIME_1, PRIME_2, PRIME_5 = 11400714785074694791, 14029467366897019727, 2870177450012600261
WORD = 2**64 - 1


def mixed_seed(*numbers: int) -> int:
    """A seed in [0, 2**63) made of whole numbers, the same on every Python and machine.

    It is the mixing of xxHash64 (Collet, https://github.com/Cyan4973/xxHash, `XXH64_round` and its primes), one round
    for each number, without the final avalanche: the form in which CPython hashes a tuple of small whole numbers
    since 3.8 (`Objects/tupleobject.c`). It is written out because Python promises no such hash, and the order of
    images, and with it every result, must not change with its version.

    Args:
        numbers: Whole numbers, not negative.
    """
    mixed = PRIME_5
    for number in numbers:
        mixed = (mixed + number * PRIME_2) & WORD
        mixed = (mixed << 31 | mixed >> 33) & WORD
        mixed = mixed * PRIME_1 & WORD
    mixed = (mixed + (len(numbers) ^ PRIME_5 ^ 3527539)) & WORD
    return (1546275796 if mixed == WORD else mixed) % 2**63
