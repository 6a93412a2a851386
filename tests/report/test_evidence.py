"""The page of claims: what is kept of a sweep repeats its verdicts."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detlab.config.compose import config_dir
from detlab.report.evidence import differences, evidence_page, read_claims
from detlab.report.kept import MOST_BYTES, read_kept, used_seeds, write_kept
from detlab.report.results import Measured
from detlab.report.rounds import looks
from detlab.report.runs import ReportError

DOCS = Path(__file__).resolve().parents[2] / "docs"
CLAIM: dict[str, Any] = {
    "name": "neck",
    "question": "Which | neck?",
    "paper": "a table",
    "ablation": "neck",
    "sweeps": {"shapes": ["budget=cpu", "data.root={bccd}"]},
    "says": {"shapes": "Only this."},
}
RUN = {"commit": "abc", "device": "cpu", "seconds": 100.0, "packages": {"torch": "2.14"}}


def sweep(seeds: int = 5) -> Measured:
    """Two rows that differ by 0.2, and one that is like the first."""
    draw = np.random.default_rng(0).standard_normal
    values = np.array([[0.3], [0.5], [0.3]]) + 0.01 * draw((3, seeds))
    return Measured(values, values[..., None] + 0.005 * draw((3, 1, 200)), 100)


def facts(measured: Measured, **other: Any) -> dict[str, Any]:
    rows = [{"model/neck": level} for level in ("none", "fpn", "s|pp")[: len(measured.values)]]
    made = {"command": "neck budget=cpu data.root={bccd}", "answer": "test/map_small", "rows": rows}
    made |= {"seeds": list(range(measured.values.shape[1])), "min_seeds": 4, "max_seeds": 8, "runs": [RUN]}
    return made | other


def folder_with(tmp_path: Path, *claims: dict[str, Any]) -> Path:
    (tmp_path / "claims.yaml").write_text(json.dumps(list(claims)))
    return tmp_path


def test_what_is_kept_repeats_the_verdicts(tmp_path: Path) -> None:
    measured = sweep()
    write_kept(tmp_path / "x", measured, facts(measured))
    kept = read_kept(tmp_path / "x")
    assert kept is not None
    assert np.array_equal(kept.measured.values, measured.values)
    assert kept.measured.images == 100
    look = kept.look
    whole = looks(measured.values, measured.draws, 8, images=100, first=4)[-1]
    assert look is not None
    assert look.verdicts == whole.verdicts == ("better", "undecided")
    first, again = whole.found[0], look.found[0]
    assert first is not None
    assert again is not None
    assert again.low == pytest.approx(first.low, abs=1e-6)  # draws are kept in float32
    assert (tmp_path / "x.npz").stat().st_size < 300_000


def test_a_sweep_without_draws_and_one_with_too_few_seeds(tmp_path: Path) -> None:
    measured = Measured(sweep(3).values, None, None, "no detections")
    write_kept(tmp_path / "x", measured, facts(measured))
    kept = read_kept(tmp_path / "x")
    assert kept is not None
    assert kept.measured.draws is None
    assert kept.measured.why_no_draws == "no detections"
    assert kept.look is None
    assert read_kept(tmp_path / "y") is None
    values = np.full((2, 4), np.nan)
    assert used_seeds(Measured(values, None, None)) == 0
    values[1, 2] = 0.5
    assert used_seeds(Measured(values, None, None)) == 3


def test_the_page_answers_and_says_what_is_open(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, CLAIM, CLAIM | {"name": "other", "says": {}})
    measured = sweep()
    write_kept(folder / "neck-shapes", measured, facts(measured))
    page = evidence_page(folder, read_claims(folder))
    assert "Measured: 1 of 2 questions, 1 of 2 sweeps." in page
    answered, pending = (line for line in page.splitlines() if line.startswith("| Which"))
    assert "Which \\| neck?" in answered
    assert f"AP small: neck=none {measured.values[0].mean():.3f}<br>neck=fpn" in answered
    assert "**better**" in answered
    assert "not distinguishable (" in answered
    assert "| 3 x 5 (stopped before 8 seeds), 100 s | Only this. |" in answered
    assert "not run yet" in pending
    assert "1 runs on cpu, torch 2.14, commit abc\n" in page
    assert "data.root=PATH" in page
    told = facts(measured)
    told["runs"] = [
        told["runs"][0] | {"row": row, "device": device} for row, device in ((0, "cpu"), (1, "cuda"), (1, "cpu"))
    ]
    write_kept(folder / "neck-shapes", measured, told)
    mixed = evidence_page(folder, read_claims(folder))
    assert (
        "3 runs (neck=none 1 on cpu; neck=fpn 1 on cpu and 1 on cuda; neck=s\\|pp none), torch 2.14, commit abc"
        in mixed
    )
    assert "{bccd}" not in page


def test_the_median_latency_of_a_row_stands_beside_its_metric(tmp_path: Path) -> None:
    folder, measured = folder_with(tmp_path, CLAIM | {"beside": "latency_ms"}), sweep()
    times = ((0, 10.0), (0, 12.0), (0, 50.0), (1, 20.0), (1, None))
    write_kept(
        folder / "neck-shapes", measured, facts(measured, runs=[RUN | {"row": r, "latency_ms": t} for r, t in times])
    )
    first, second, third = (f"{row.mean():.3f}" for row in measured.values)
    page = evidence_page(folder, read_claims(folder))
    unit = "ms an image with NMS"
    assert f"neck=none {first} (12.0 {unit})<br>neck=fpn {second} (20.0 {unit})<br>neck=s\\|pp {third} |" in page


def test_what_ran_is_told_with_its_changes_and_weights(tmp_path: Path) -> None:
    folder, measured = folder_with(tmp_path, CLAIM), sweep()
    runs = [
        RUN | {"commit": f"{n * 40}{more}", "weights": w}
        for n, more, w in (("a", " with changes", "f00"), ("b", "", None))
    ]
    write_kept(folder / "neck-shapes", measured, facts(measured, runs=runs))
    page = evidence_page(folder, read_claims(folder))
    assert "2 runs on cpu, torch 2.14, commit aaaaaaaaaaaa with changes, bbbbbbbbbbbb, weights f00\n" in page


def test_a_sweep_is_called_stopped_until_it_is_decided_or_has_all_seeds(tmp_path: Path) -> None:
    folder, measured, whole = folder_with(tmp_path, CLAIM), sweep(), sweep(8)
    going_on = "Measured: 1 of 1 questions, 1 of 1 sweeps. 1 were stopped while a row was undecided; the same command"
    assert measured.draws is not None
    decided = Measured(measured.values[:2], measured.draws[:2], 100)
    for found, stopped in ((measured, True), (decided, False), (whole, False)):
        write_kept(folder / "neck-shapes", found, facts(found))
        page = evidence_page(folder, read_claims(folder))
        assert (going_on in page) == stopped
        assert ("(stopped before 8 seeds)" in page) == stopped
        assert "Measured: 1 of 1 questions, 1 of 1 sweeps." in page


def test_choices_that_all_rows_share_stand_in_the_command_only(tmp_path: Path) -> None:
    folder, measured = folder_with(tmp_path, CLAIM), sweep()
    rows = [row | {"trainer.max_epochs": "4"} for row in facts(measured)["rows"]]
    write_kept(folder / "neck-shapes", measured, facts(measured, rows=rows))
    page = evidence_page(folder, read_claims(folder))
    assert "<br>neck=fpn " in page
    assert "max_epochs" not in page


def test_a_command_with_a_dollar_sign_can_be_copied_to_a_shell(tmp_path: Path) -> None:
    word = 'model.backbone.weights="${detlab.pretrained:${data.cache_dir},18}"'
    folder = folder_with(tmp_path, CLAIM | {"sweeps": {"shapes": ["model.anchors.sizes=[16]", word]}})
    (claim,) = read_claims(folder)
    whole = shlex.split(claim.command_line("shapes"))
    assert whole == claim.command("shapes") == ["neck", "model.anchors.sizes=[16]", word, *whole[3:]]
    assert f"neck model.anchors.sizes=[16] '{word}' until=decided" in evidence_page(folder, [claim])


def test_a_sweep_of_too_few_seeds_is_not_called_unrun(tmp_path: Path) -> None:
    folder, measured = folder_with(tmp_path, CLAIM), sweep(3)
    write_kept(folder / "neck-shapes", measured, facts(measured, runs=9 * [RUN]))
    page = evidence_page(folder, read_claims(folder))
    assert "9 runs, too few seeds" in page
    assert "Measured: 0 of 1 questions, 0 of 1 sweeps." in page
    assert "differences.png" not in page


def grid(lift: float) -> tuple[Measured, list[dict[str, str]]]:
    """Two losses with and without noise; `lift` is what the second loss gives under noise alone."""
    draw = np.random.default_rng(1).standard_normal
    values = np.array([[0.5], [0.4], [0.45], [0.35 + lift]]) + 0.002 * draw((4, 4))
    rows = [{"model/box_loss": loss, "data.box_noise": noise} for loss in ("l1", "giou") for noise in ("0", "0.3")]
    return Measured(values, values[..., None] + 0.001 * draw((4, 1, 200)), 100), rows


@pytest.mark.parametrize(("lift", "verdict"), [(0.0, "undecided"), (0.1, "better"), (-0.1, "worse")])
def test_what_two_changes_give_beyond_their_sum(lift: float, verdict: str, tmp_path: Path) -> None:
    folder, (measured, rows) = folder_with(tmp_path, CLAIM), grid(lift)
    write_kept(folder / "neck-shapes", measured, facts(measured, rows=rows))
    kept = read_kept(folder / "neck-shapes")
    assert kept is not None
    ((choices, contrast),) = kept.interactions()
    assert choices == {"model/box_loss": "giou", "data.box_noise": "0.3"}
    mean = measured.values.mean(1)
    assert contrast.value == pytest.approx(mean[3] - mean[1] - mean[2] + mean[0])
    assert contrast.low is not None
    assert contrast.high is not None
    assert contrast.low < lift < contrast.high
    assert contrast.verdict == verdict
    word = {"undecided": "not distinguishable", "better": "**more than the sum**", "worse": "**less than the sum**"}
    told = "*beyond the sum* box_loss=giou box_noise=0.3 "
    span = f"[{contrast.low:+.3f}, {contrast.high:+.3f}]"
    assert f"{told}{contrast.value:+.3f} {span} {word[verdict]}" in evidence_page(folder, read_claims(folder))


def test_rows_that_are_no_grid_have_no_such_line(tmp_path: Path) -> None:
    measured, rows = grid(0.1)
    mixed = [*rows[:3], {"model/box_loss": "giou", "model/neck": "fpn"}]
    for used in (rows[:3], mixed):
        part = Measured(measured.values[: len(used)], None, None)
        write_kept(tmp_path / "x", part, facts(part, rows=used))
        kept = read_kept(tmp_path / "x")
        assert kept is not None
        assert kept.interactions() == []


def test_differences_are_those_of_the_page(tmp_path: Path) -> None:
    folder, measured = folder_with(tmp_path, CLAIM | {"name": "open"}, CLAIM), sweep()
    write_kept(folder / "neck-shapes", measured, facts(measured))
    ((title, rows),) = differences(folder, read_claims(folder)).items()
    assert title == "Which | neck? (shapes; AP small beside neck=none)"
    assert [(row[0], row[-1]) for row in rows] == [("neck=fpn", "better"), ("neck=s|pp", "undecided")]
    (_, value, low, high, _), _ = rows
    assert f"{value:+.3f} [{low:+.3f}, {high:+.3f}] **better**" in evidence_page(folder, read_claims(folder))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "must be a list of claims with name, question"),
        ("[1]", "claim 1 must have name, question, paper, ablation, sweeps, and may have says"),
        (json.dumps([CLAIM | {"more": 1}]), "claim 1 must have"),
        (json.dumps([CLAIM | {"sweeps": {"shapes": "budget=cpu"}}]), "claim 1 needs sweeps: {DATA: "),
        (json.dumps([CLAIM | {"says": {"coco": "x"}}]), "claim 1 needs sweeps: {DATA: "),
        (json.dumps([CLAIM | {"beside": "speed"}]), "claim 1 has beside: speed; use latency_ms"),
        (json.dumps([CLAIM | {"beside": ["latency_ms"]}]), "claim 1 has beside: .*; use latency_ms"),
        (json.dumps([CLAIM | {"name": "../x"}]), r"is called ../x, on shapes; use a to z"),
        (json.dumps([CLAIM, CLAIM]), "two claims called neck"),
    ],
)
def test_mistakes_in_the_list_are_sentences(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "claims.yaml").write_text(content)
    with pytest.raises(ReportError, match=message):
        read_claims(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"rows": []},
        {"seeds": [0]},
        {"min_seeds": 1},
        {"max_seeds": "many"},
        {"answer": None},
        {"command": 3},
        {"runs": 3},
        {"runs": [1]},
        {"rows": ["none", "fpn", "spp"]},
        {"rows": None},
        {"rows": [{}, {}, {}]},
        {"rows": [{"a": "1"}, {"a": "1"}, {"a": "2"}]},
        {"rows": [{"a": "1"}, {"a": [2]}, {"a": "3"}]},
        {"runs": [RUN | {"row": "x"}]},
        {"runs": [RUN | {"row": 3}]},
        {"images": "many"},
        {"max_seeds": 4},
    ],
)
def test_files_that_do_not_fit_are_refused(change: dict[str, Any], tmp_path: Path) -> None:
    measured = sweep()
    write_kept(tmp_path / "x", measured, facts(measured))
    whole = json.loads((tmp_path / "x.json").read_text())
    (tmp_path / "x.json").write_text(json.dumps(whole | change))
    with pytest.raises(ReportError, match=r"x.npz and .*x.json cannot be read together"):
        read_kept(tmp_path / "x")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    measured = sweep()
    write_kept(tmp_path / "x", measured, facts(measured))
    for content in (b"", b"PK\x03\x04 nothing"):
        (tmp_path / "x.npz").write_bytes(content)
        with pytest.raises(ReportError, match="cannot be read together"):
            read_kept(tmp_path / "x")
    with (tmp_path / "x.npz").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(ReportError, match="is larger than 64 MB"):
        read_kept(tmp_path / "x")


def test_the_documented_page_follows_from_the_kept_files() -> None:
    claims = read_claims(DOCS / "evidence")
    assert evidence_page(DOCS / "evidence", claims) == (DOCS / "evidence.md").read_text()


def test_the_documented_claims_name_ablations() -> None:
    for claim in read_claims(DOCS / "evidence"):
        assert (config_dir() / "ablation" / f"{claim.ablation}.yaml").is_file()
