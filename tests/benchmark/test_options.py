"""The benchmark's command line: KEY=VALUE by the signature of a target, mistakes in one sentence."""

import pytest

from detlab.benchmark.options import OptionError, parse, settle


def target(*, model: str = "a", repeats: int = 5, share: float = 0.5, fast: bool = False, threads: int | None = None):  # noqa: ANN201
    """What a target module's `run` looks like."""


def test_values_take_the_type_of_their_default() -> None:
    given = parse(["model=3", "repeats=7", "share=1", "fast=true", "threads=2"])
    assert settle(target, given) == {"model": "3", "repeats": 7, "share": 1.0, "fast": True, "threads": 2}
    assert settle(target, {"threads": "null"}) == {"threads": None}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["repeat=7"], "no option repeat here; did you mean repeats?"),
        (["repeats=few"], "repeats=few must be a number"),
        (["fast=perhaps"], "fast=perhaps must be true or false"),
        (["threads"], "threads is not KEY=VALUE"),
        (["threads=1", "threads=2"], "threads is given twice"),
    ],
)
def test_mistakes(arguments: list[str], message: str) -> None:
    with pytest.raises(OptionError) as error:
        settle(target, parse(arguments))
    assert message in str(error.value)
