"""Tests in an order drawn from a seed: ``pytest --shuffle 7``. No test may need another one before it."""

import random
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

T = TypeVar("T")


def shuffled(items: Sequence[T], seed: int, file_of: Callable[[T], Hashable]) -> list[T]:
    """The files in an order of the seed, and the tests of each file too. A file's tests stay together, because their
    fixtures cost much. Every process draws the same order from the same seed."""
    draw = random.Random(seed)
    files: dict[Hashable, list[T]] = {}
    for item in items:
        files.setdefault(file_of(item), []).append(item)
    tests_of_files = list(files.values())
    draw.shuffle(tests_of_files)
    for tests in tests_of_files:
        draw.shuffle(tests)
    return [test for tests in tests_of_files for test in tests]
