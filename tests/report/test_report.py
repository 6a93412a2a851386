"""The report of a sweep that was written, not trained: rows, verdicts, files, and no torch."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from detlab.commands.compare import (
    ImageErrors,
    best_score,
    config_difference,
    fewer_errors,
    image_errors,
    one_right,
)
from detlab.commands.compare import main as compare
from detlab.commands.report import main
from detlab.report.analysis import analyse, corrected
from detlab.report.contents import cell_table, class_table, main_table
from detlab.report.costs import unfair
from detlab.report.detections import read_judged
from detlab.report.effects import interactions, main_effects
from detlab.report.figures import ticks
from detlab.report.intervals import Contrast
from detlab.report.results import measure
from detlab.report.rows import command_of, make_sweep
from detlab.report.runs import ReportError, find_runs
from tests.report.folders import write_run, write_sweep


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("sweep"))


def test_rows_are_swept_choices_with_their_seeds(folder: Path) -> None:
    sweep = make_sweep(find_runs([folder]))
    assert sweep.factors == {"model/neck": ["none", "fpn"], "model/box_loss": ["l1", "giou"]}
    assert [sweep.label(row) for row in sweep.rows] == [
        "neck none · box_loss l1", "neck none · box_loss giou", "neck fpn · box_loss l1", "neck fpn · box_loss giou",
    ]  # fmt: skip
    assert [len(row.done) for row in sweep.rows] == [3, 3, 3, 2]
    assert command_of(sweep.rows[2]) == "detlab train -m model/neck=fpn model/box_loss=l1 seed=0,1,2"


def test_what_is_real_and_what_is_not(folder: Path) -> None:
    analysis = analyse(make_sweep(find_runs([folder])), resamples=200)
    table = main_table(analysis)
    verdicts = [row[table.heads.index("verdict")].text for row in table.rows]
    assert verdicts == ["baseline", "not distinguishable", "better", "better"]
    assert list(table.marks.values()) == ["best"]
    effects = {(e.factor, e.level): e.contrast.words for e in main_effects(analysis)}
    assert effects == {("model/neck", "fpn"): "better", ("model/box_loss", "giou"): "not distinguishable"}
    (pair,) = interactions(analysis)
    assert pair.contrast.words == "not distinguishable"
    states = [row[2].text for row in cell_table(analysis).rows]
    assert states.count("finished") == 11
    assert states.count("failed") == 1


def test_any_metric_has_intervals_and_a_sweep_may_name_the_one_that_answers(tmp_path: Path) -> None:
    for number, (neck, seed) in enumerate(itertools.product(("none", "fpn"), range(3))):
        value = 0.3 + 0.3 * (neck == "fpn") + 0.01 * seed
        overrides = [f"model/neck={neck}", f"seed={seed}"]
        write_run(tmp_path / str(number), overrides, value=value, answer="test/ap/ellipse")
    runs = find_runs([tmp_path])
    assert make_sweep(runs).metric == "ap/ellipse"
    assert make_sweep(runs, metric="test/map_50").metric == "map_50"
    for metric, difference in (("", 0.3), ("map_50", 0.3), ("map_small", 0.15)):
        analysis = analyse(make_sweep(runs, metric=metric), resamples=50)
        assert analysis.why_no_draws == ""
        (contrast,) = filter(None, analysis.differences())
        assert contrast.value == pytest.approx(difference)
        assert contrast.image_share is not None
        assert contrast.verdict == "better"


def test_one_seed_gives_words_and_no_verdict(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_run(tmp_path / "0", ["model/neck=none", "seed=0"], value=0.3, shift=6.0)
    write_run(tmp_path / "1", ["model/neck=fpn", "seed=0"], value=0.6, shift=1.0)
    assert main([str(tmp_path), "resamples=100"]) == 0
    said = capsys.readouterr().out
    assert "0 better, 0 worse, 0 undecided, 1 with one seed" in said
    assert "one seed" in said
    markdown = (tmp_path / "report" / "report.md").read_text()
    assert "one seed; these two runs differ" in markdown
    assert "a second seed" in markdown


def test_verdicts_by_class_and_size_are_corrected_together(folder: Path) -> None:
    analysis = analyse(make_sweep(find_runs([folder])), resamples=100)
    table = class_table(analysis)
    assert table.heads[:2] == ["boxes of", "boxes"]
    assert [row[0].text for row in table.rows] == ["small", "medium", "large", "rectangle", "ellipse"]
    alone = analysis.differences("ap/ellipse")
    together = analysis.together(["map_small", "ap/rectangle", "ap/ellipse"])["ap/ellipse"]
    assert together[2].p == alone[2].p
    assert together[2].p_adjusted > alone[2].p_adjusted
    boxes = [row[1].sort for row in table.rows]
    assert sum(boxes[:3]) == sum(boxes[3:]) == analysis.boxes["map"]


def test_correction_over_a_table_of_several_metrics() -> None:
    alone = [Contrast(0.1, 0.02, 0.18, "better", p, p, seeds=3) for p in (0.001, 0.02, 0.04)]
    alone += [
        Contrast(0.1, 0.02, 0.18, "one seed", 0.03, 0.03, seeds=1, differ_here=True),
        Contrast(None, None, None, "no runs"),
    ]
    found = corrected(alone)
    assert [c.verdict for c in found] == ["better", "better", "better", "one seed", "no runs"]
    assert [c.p_adjusted for c in found] == pytest.approx([0.003, 0.04, 0.04, 0.03, None])
    found = corrected([*alone, replace(alone[2], p=0.9)])
    assert [c.verdict for c in found] == ["better", "undecided", "undecided", "one seed", "no runs", "undecided"]
    assert found[3].differ_here


def test_other_boxes_on_the_same_images_are_no_comparison(tmp_path: Path) -> None:
    for number in range(2):
        write_run(tmp_path / str(number), [f"data.box_noise={number}", "seed=0"])
    file = tmp_path / "1" / "ground_truth.json"
    document = json.loads(file.read_text())
    document["annotations"][0]["bbox"][0] += 1
    file.write_text(json.dumps(document))
    analysis = analyse(make_sweep(find_runs([tmp_path])), resamples=20)
    assert analysis.why_no_draws == "the runs were tested on different images, boxes or classes"
    assert analysis.draws("map") is None


def test_a_baseline_by_name_and_missing_cells(folder: Path, tmp_path: Path) -> None:
    sweep = make_sweep(find_runs([folder]), baseline="neck=fpn,box_loss=giou")
    assert sweep.label(sweep.base) == "neck fpn · box_loss giou"
    with pytest.raises(
        ReportError, match="baseline=neck=spp has no run with a result; swept are model/neck: none, fpn"
    ):
        make_sweep(find_runs([folder]), baseline="neck=spp")
    for i, (neck, loss) in enumerate((("none", "l1"), ("none", "giou"), ("fpn", "l1"))):
        write_run(tmp_path / str(i), [f"model/neck={neck}", f"model/box_loss={loss}", "seed=0"])
    analysis = analyse(make_sweep(find_runs([tmp_path])), resamples=0)
    assert [row[2].text for row in cell_table(analysis).rows][-1] == "missing"


def test_unequal_budgets_are_said(tmp_path: Path) -> None:
    for i, batch in enumerate((8, 16)):
        write_run(tmp_path / str(i), [f"data.batch_size={batch}", "seed=0"], batch=batch)
    assert unfair(make_sweep(find_runs([tmp_path]))) == [
        "The rows differ in batch (8, 16): a difference between them may come from that."
    ]


def test_seeds_of_a_row_with_other_configs_are_said(tmp_path: Path) -> None:
    """As when the pretrained weights of budget=cpu appear between two commands."""
    for seed, weights in enumerate((None, "a.pth", "a.pth")):
        for neck in ("none", "fpn"):
            folder = write_run(tmp_path / f"{seed}{neck}", [f"model/neck={neck}", f"seed={seed}"])
            config = {
                "seed": seed,
                "paths.run_dir": str(folder),
                "x.folder": f"{folder}/a",
                "model.neck": neck,
                "data.split_seed": seed,
            }
            weighed = {"model.backbone.weights": weights if neck == "fpn" else "a.pth"}
            (folder / "hparams.yaml").write_text(yaml.safe_dump(config | weighed))
    said = (
        "The runs of neck fpn differ in model.backbone.weights (None with seed 0; a.pth with seed 1, 2): they do not "
        "repeat one choice. Delete the folders of either, and run these again."
    )
    assert unfair(make_sweep(find_runs([tmp_path]))) == [said]
    rows = [{"model/neck": "none"}, {"model/neck": "fpn"}]
    assert measure(tmp_path, rows, [0, 1, 2], "map").mixed == ()  # without job.json, it is no sweep's folder
    for folder in tmp_path.iterdir():
        (folder / "job.json").write_text("{}")
    assert measure(tmp_path, rows, [0, 1, 2], "map").mixed == (said,)


def test_many_keys_that_differ_are_few_sentences(tmp_path: Path) -> None:
    for seed in range(2):
        folder = write_run(tmp_path / str(seed), [f"seed={seed}"])
        config = {f"model.key{i}": f"{seed} " + 1000 * "x" for i in range(9)} | ({"model.new": 1} if seed else {})
        (folder / "hparams.yaml").write_text(yaml.safe_dump(config))
    said = unfair(make_sweep(find_runs([tmp_path])))
    assert said[4:] == ["The seeds of a row differ in 5 more keys."]
    assert max(map(len, said)) < 500


def test_seeds_on_other_data_are_said(tmp_path: Path) -> None:
    for seed in range(2):
        folder = write_run(tmp_path / str(seed), [f"seed={seed}"])
        (folder / "hparams.yaml").write_text("model.neck: fpn\n")
        status = json.loads((folder / "status.json").read_text())
        (folder / "status.json").write_text(json.dumps(status | {"data_fingerprint": f"f{seed}"}))
    (text,) = unfair(make_sweep(find_runs([tmp_path])))
    assert text.startswith("The runs differ in the data (fingerprint) (f0 with seed 0; f1 with seed 1)")


@pytest.mark.parametrize("same", [True, False])
def test_weights_are_known_by_their_content_not_their_place(tmp_path: Path, same: bool) -> None:
    for seed in range(2):
        folder = write_run(tmp_path / str(seed), [f"seed={seed}"])
        (folder / "hparams.yaml").write_text(f"model.backbone.weights: /home/{seed}/a.pth\n")
        status = json.loads((folder / "status.json").read_text())
        weights = {"weights_fingerprint": "w0" if same else f"w{seed}"}
        (folder / "status.json").write_text(json.dumps(status | weights))
    said = unfair(make_sweep(find_runs([tmp_path])))
    assert (
        said == [] if same else said[0].startswith("The runs differ in model.backbone.weights (fingerprint) (w0 with")
    )


@pytest.mark.parametrize("path", ["a.pth", None])
def test_weights_of_runs_before_fingerprints_are_known_by_their_place(tmp_path: Path, path: str | None) -> None:
    for seed, weights in enumerate((path, "a.pth")):
        folder = write_run(tmp_path / str(seed), [f"seed={seed}"])
        (folder / "hparams.yaml").write_text(yaml.safe_dump({"model.backbone.weights": weights}))
        if seed:
            status = json.loads((folder / "status.json").read_text())
            (folder / "status.json").write_text(json.dumps(status | {"weights_fingerprint": "w"}))
    said = unfair(make_sweep(find_runs([tmp_path])))
    assert (
        said == [] if path else said[0].startswith("The runs differ in model.backbone.weights (None with seed 0; a.pth")
    )


def test_data_that_a_config_draws_by_the_seed_are_meant(tmp_path: Path) -> None:
    for seed in range(2):
        folder = write_run(tmp_path / str(seed), ["data.split_seed=${seed}", f"seed={seed}"])
        (folder / "hparams.yaml").write_text(f"data.split_seed: {seed}\n")
        status = json.loads((folder / "status.json").read_text())
        (folder / "status.json").write_text(json.dumps(status | {"data_fingerprint": f"f{seed}"}))
    assert unfair(make_sweep(find_runs([tmp_path]))) == []


@pytest.mark.parametrize("key", ["callbacks", "callbacks.ema.decay", "callbacks.checkpoint.mode"])
def test_callbacks_that_train_or_choose_are_rows(tmp_path: Path, key: str) -> None:
    for number, (level, seed) in enumerate(itertools.product(("default", "ema"), (0, 1))):
        quiet = [f"callbacks.pictures.count={number}", "callbacks.checkpoint.every_n_minutes=5", "logger=many"]
        folder = write_run(tmp_path / str(number), [f"{key}={level}", f"seed={seed}", *quiet[: 1 + seed]])
        (folder / "job.json").write_text("{}")
    sweep = make_sweep(find_runs([tmp_path]))
    assert sweep.factors == {key: ["default", "ema"]}
    assert not sweep.repeats
    assert np.isfinite(measure(tmp_path, [{key: "default"}, {key: "ema"}], (0, 1), "map").values).all()


def test_an_average_of_weights_in_one_seed_alone_is_said(tmp_path: Path) -> None:
    for seed in range(2):
        folder = write_run(tmp_path / str(seed), [f"seed={seed}"])
        config = {"paths.run_dir": str(folder), "callbacks.checkpoint.dirpath": f"{folder}/checkpoints"}
        averaged = {"callbacks.ema.decay": 0.9} if seed else {"callbacks.ema": None}
        (folder / "hparams.yaml").write_text(yaml.safe_dump(config | averaged | {"callbacks.pictures.count": seed}))
    said = unfair(make_sweep(find_runs([tmp_path])))
    assert len(said) == 1
    assert said[0].startswith("The runs differ in callbacks.ema (")


def test_mistakes_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(tmp_path / "nowhere")]) == 2
    assert main([str(tmp_path)]) == 2
    write_run(tmp_path / "0", ["seed=0"])
    assert main([str(tmp_path), "metrics=map"]) == 2
    assert main([str(tmp_path), "metric=mapp"]) == 2
    said = capsys.readouterr().err
    for text in ("is not a folder", "holds no run", "no option metrics", "metric=mapp is in no result"):
        assert text in said


def test_all_files_are_written_without_torch(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['lightning'] = None; sys.modules['hydra'] = None\n"
        "from detlab.commands.report import main\n"
        f"sys.exit(main([{str(folder)!r}, 'resamples=50', 'out={tmp_path}', 'title=Necks & losses']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"report  {tmp_path / 'index.html'}" in done.stdout
    page = (tmp_path / "index.html").read_text()
    assert "Necks &amp; losses" in page
    assert "//" not in page.replace("</", "").split("<script>")[0].split("<h1>")[0]  # no address is named
    markdown = (tmp_path / "report.md").read_text()
    assert "| neck | box_loss | runs | mAP |" in markdown
    assert "not distinguishable" in markdown
    assert (tmp_path / "results.csv").read_text().startswith("neck,box_loss,runs,mAP,")
    latex = (tmp_path / "results.tex").read_text()
    assert latex.startswith("\\begin{tabular}{ll")
    assert "box\\_loss" in latex


def test_two_runs_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    a = write_run(tmp_path / "a", ["model/neck=none", "seed=0"], value=0.3, shift=6.0)
    b = write_run(tmp_path / "b", ["model/neck=fpn", "seed=0"], value=0.5, shift=1.0)
    assert compare([str(a), str(b), "resamples=200"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "B is better than A" in said
    assert "right in B, wrong in A" in said
    assert compare([str(a)]) == 2
    assert config_difference({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}) == [("a.c", "2", "3")]
    truth, judged = read_judged(b)
    errors = image_errors(truth, judged["map"], 0.0)
    assert errors.false.sum() >= 2 * len(truth.image_ids) * 0.9  # two false ones an image
    assert one_right(truth, errors, errors) == []


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (-0.03, 0.05, [-0.04, -0.02, 0, 0.02, 0.04, 0.06]), (2, 2, None)],
)
def test_ticks_are_round_and_span_the_data(low: float, high: float, expected: list[float] | None) -> None:
    found = ticks(low, high)
    assert expected is None or found == pytest.approx(expected)
    assert found[0] <= low
    assert found[-1] >= high
    assert len(found) < 12


def test_a_folder_of_one_run_is_a_report_too(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", ["seed=0"])
    assert main([str(run), "resamples=20"]) == 0
    assert "all runs" in (run / "report" / "report.md").read_text()


def test_weak_detectors_are_compared_at_the_score_that_suits_each(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for name, shift in (("a", 6.0), ("b", 1.0)):
        run = write_run(tmp_path / name, [f"model/neck={name}", "seed=0"], shift=shift)
        file = run / "detections.json"
        weak = [{**d, "score": d["score"] * 0.1} for d in json.loads(file.read_text())]  # all far below 0.5
        file.write_text(json.dumps(weak))
    assert compare([str(tmp_path / "a"), str(tmp_path / "b"), "resamples=20"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "0 images right in B" not in said
    count = int(re.search(r"(\d+) images right in B, wrong in A", said)[1])
    assert count >= 1  # none at a score of 0.5
    truth, judged = read_judged(tmp_path / "b")
    score = best_score(truth, judged["map"])

    def f1(least: float) -> float:
        errors = image_errors(truth, judged["map"], least)
        true = int((~truth.crowd).sum()) - int(errors.missed.sum())
        return 2 * true / (2 * true + int(errors.total.sum()))

    assert f1(score) == max(f1(s) for s in judged["map"].score)
    for wrong in ("resamples=few", "images=1.5", "score_threshold=-1"):
        assert compare([str(tmp_path / "a"), str(tmp_path / "b"), wrong]) == 2
        assert f"{wrong} must be" in capsys.readouterr().err


def test_images_with_fewer_errors_are_shown_where_none_is_right() -> None:
    a, b = ImageErrors(np.array([1, 2, 1]), np.zeros(3, int)), ImageErrors(np.array([4, 1, 2]), np.zeros(3, int))
    assert fewer_errors(a, b) == [0, 2]
    assert fewer_errors(b, a) == [1]
