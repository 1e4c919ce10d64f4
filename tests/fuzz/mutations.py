"""Changes samples at random: bits, blocks, lengths, numbers, and pieces of one sample in another."""

from random import Random

EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF)
LARGEST = 1_000_000  # bytes of a mutant


def mutated(random: Random, samples: list[bytes], words: tuple[bytes, ...] = ()) -> bytes:
    """A sample with one to eight changes.

    Args:
        random: the source of every choice.
        samples: valid input, or former failures.
        words: what means something in this format, and is inserted as it is.
    """
    content = bytearray(random.choice(samples))
    for _ in range(random.choice((1, 1, 1, 2, 3, 5, 8))):
        _change(random, content, samples, words)
    return bytes(content[:LARGEST])


def _change(random: Random, content: bytearray, samples: list[bytes], words: tuple[bytes, ...]) -> None:
    place = random.randrange(len(content) + 1)
    end = min(len(content), place + random.choice((1, 2, 4, 16, 256)))
    match random.randrange(8):
        case 0 if place < len(content):
            content[place] ^= 1 << random.randrange(8)
        case 1:
            width = random.choice((1, 2, 4, 8))
            number = random.choice(EDGES) % (1 << (8 * width))
            content[place : place + width] = number.to_bytes(width, random.choice(("big", "little")))
        case 2:
            del content[place:end]
        case 3:
            content[place:place] = content[place:end] * random.choice((1, 2, 50))
        case 4:
            other = random.choice(samples)
            start = random.randrange(len(other) + 1)
            content[place:end] = other[start : start + random.choice((4, 64, 1024))]
        case 5:
            del content[place:]
        case 6 if words:
            content[place:end] = random.choice(words)
        case _:
            content[place:end] = random.randbytes(end - place)
