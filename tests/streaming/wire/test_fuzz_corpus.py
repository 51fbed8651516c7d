"""The corpus of the fuzzer and a fixed draw of its inputs, on every run of the tests."""

import random
from pathlib import Path

import pytest

from tests.fuzz.frames import CORPUS, KEPT_MAX_SIZE, compare_one, corpus, examine, fuzz, generate, main, run_one
from tests.fuzz.seeds import seeds

_FILES = sorted(CORPUS.glob("*.bin"))
_SEED = 6455


def test_corpus_stays_small_and_holds_every_named_input_as_it_is_built() -> None:
    sizes = [path.stat().st_size for path in _FILES]
    assert 60 <= len(sizes) <= 200
    assert max(sizes) <= KEPT_MAX_SIZE
    assert sum(sizes) < 300 * 1024
    named = {path.stem: path.read_bytes() for path in _FILES if not path.stem.startswith("found-")}
    assert named == seeds()


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.stem)
def test_reader_keeps_its_promises_on_an_input_of_the_corpus(path: Path) -> None:
    data = path.read_bytes()
    run_one(data)
    compare_one(data)


@pytest.mark.parametrize("name", sorted(seeds()))
def test_reader_refuses_the_violations_of_the_corpus_and_nothing_else(name: str) -> None:
    outcome = examine(seeds()[name])
    assert (outcome.error is not None) is name.startswith("violation-")
    if name.startswith("valid-") and not outcome.is_closed:
        assert not outcome.tail


def test_reader_keeps_its_promises_on_twenty_thousand_generated_inputs() -> None:
    generator, pool = random.Random(_SEED), corpus()
    for _ in range(20_000):
        data = generate(generator, pool)
        try:
            run_one(data)
        except Exception as error:
            pytest.fail(f"{type(error).__name__}: {error} on {data.hex()}")


def test_reader_agrees_with_websockets_on_three_thousand_generated_inputs() -> None:
    generator, pool = random.Random(_SEED + 1), corpus()
    for _ in range(3_000):
        data = generate(generator, pool)
        try:
            compare_one(data)
        except Exception as error:
            pytest.fail(f"{type(error).__name__}: {error} on {data.hex()}")


def test_fuzzer_draws_the_same_inputs_from_the_same_seed() -> None:
    first, second = (fuzz(400, seed=5, compare_every=10) for _ in range(2))
    assert (first.executions, first.compared) == (400, 40)
    assert first.kept == second.kept


def test_fuzzer_reports_and_keeps_an_input_that_breaks_the_reader(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A reader that takes whatever bits are reserved and whatever opcodes are unknown, as long as it is masked.
    monkeypatch.setattr("streaming.wire.frames.FrameReader._check", lambda *_: None)
    monkeypatch.setattr("tests.fuzz.frames.corpus", list)
    assert main(["--executions", "300", "--compare-every", "1", "--keep", str(tmp_path)]) == 1
    assert list(tmp_path.glob("finding-*.bin"))
    shown = capsys.readouterr()
    assert "300 executions, " in shown.out
    assert "finding: " in shown.err


def test_fuzzer_ends_well_without_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--executions", "300", "--seed", "7", "--keep", str(tmp_path)]) == 0
    assert " 0 findings" in capsys.readouterr().out
