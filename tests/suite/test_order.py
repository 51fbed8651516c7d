"""The order of a run follows from its seed alone (support: order)."""

from tests.support.order import shuffled

TESTS = [(file, number) for file in range(20) for number in range(5)]


def in_order(seed: int) -> list[tuple[int, int]]:
    return shuffled(TESTS, seed, lambda test: test[0])


def test_every_test_runs_once_and_those_of_a_file_run_together() -> None:
    found = in_order(7)
    assert sorted(found) == TESTS
    assert [len({file for file, _ in found[start : start + 5]}) for start in range(0, 100, 5)] == [1] * 20


def test_same_seed_gives_the_same_order_and_another_seed_another() -> None:
    assert in_order(7) == in_order(7)
    assert len({tuple(in_order(seed)) for seed in range(20)}) == 20
