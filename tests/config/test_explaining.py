"""Reasons of several lines become one sentence, and what caused an error is kept and found."""

from __future__ import annotations

import pytest
from hydra.errors import HydraException, InstantiationException
from omegaconf.errors import InterpolationResolutionError, ValidationError

from detlab.config.compose import compose_config
from detlab.config.explaining import LONGEST, explain, of_part, one_line
from detlab.config.parts import build_part
from detlab.errors import ConfigError, DataError


def test_all_lines_of_a_reason_are_kept() -> None:
    error = InstantiationException("Error in call to target 'a.B':\nTypeError('wrong')\nfull_key: model.neck")
    assert of_part(error) == "Error in call to target 'a.B': TypeError('wrong')"
    assert explain(HydraException("Cannot read it\n\n  line 3 has a tab\n")) == "Cannot read it; line 3 has a tab"


def test_where_omegaconf_stood_is_left_out() -> None:
    text = "Value 'abc' could not be converted to Integer\n    full_key: seed\n    object_type=dict"
    assert one_line(ValidationError(text)) == "Value 'abc' could not be converted to Integer"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("+paths.run_dir=x", "+paths.run_dir adds an option that is there already; use paths.run_dir=VALUE."),
        (
            "~paths.run_dir",
            "paths.run_dir was taken away, and detlab train needs it; use paths.run_dir=VALUE, or leave",
        ),
        ("++paths.run_dir=x", "paths.run_dir cannot be resolved: HydraConfig was not set"),
    ],
)
def test_a_key_that_only_a_running_command_can_resolve_is_told_by_what_was_typed(word: str, said: str) -> None:
    error = InterpolationResolutionError("HydraConfig was not set")
    error.full_key = "paths.run_dir"
    assert explain(error, "train", [word]).startswith(said)


def test_an_endless_reason_is_cut_and_an_empty_one_has_its_class() -> None:
    assert len(one_line(ValueError("\n".join(map(str, range(9999)))))) == LONGEST + 3
    assert one_line(KeyError()) == "KeyError"


def test_a_chain_that_comes_back_to_itself_ends() -> None:
    first, second = HydraException("first\nline"), HydraException("second")
    first.__cause__, second.__cause__ = second, first
    assert explain(first) == "first; line"


def test_a_part_s_own_error_is_no_cause_of_itself() -> None:
    node = {"_target_": "detlab.data.formats.shapes.Shapes", "counts": {}, "box_noise": 2}
    with pytest.raises(DataError) as caught:
        build_part(node)
    seen: list[BaseException] = []
    cause: BaseException | None = caught.value
    while cause is not None:
        assert cause not in seen
        seen.append(cause)
        cause = cause.__cause__


def test_a_value_error_of_a_part_is_one_line() -> None:
    error = InstantiationException("Error in call to target 'a.B'")
    error.__cause__ = ValueError("the sizes do not fit\nsizes: 3, 4")
    assert of_part(error) == "the sizes do not fit; sizes: 3, 4"


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("experment=small_data", "experiment"),
        ("ablatoin=neck", "ablation"),
        ("budgt=cpu", "budget"),
        ("debg=fast", "debug"),
        ("feature_user=fpn", "feature_use"),
    ],
)
def test_what_is_near_may_be_a_group_that_nothing_is_chosen_of(word: str, near: str) -> None:
    for command in ("train", "check"):
        with pytest.raises(ConfigError, match=f"There is no option {word.partition('=')[0]}; did you mean {near}\\?"):
            compose_config(command, [word])
