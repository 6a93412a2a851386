"""Two processes of the real trainer: one monitored value, one best checkpoint, the metrics of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROBE = """
import json
from pathlib import Path
import lightning as L

class Probe(L.Callback):
    def __init__(self, folder):
        self.folder, self.seen = Path(folder), []

    def on_validation_end(self, trainer, module):
        if not trainer.sanity_checking:
            self.seen.append(float(trainer.callback_metrics["val/map"]))

    def on_fit_end(self, trainer, module):
        kept = trainer.checkpoint_callback
        facts = [self.seen, kept.best_model_path, float(kept.best_model_score), len(module.found["val"].rows)]
        (self.folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(facts))
"""


@pytest.mark.slow
def test_the_best_checkpoint_is_the_same_on_every_rank(tmp_path: Path) -> None:
    (tmp_path / "probe.py").write_text(PROBE)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [
            sys.executable, "-m", "detlab.commands.train", "model=retinanet", "debug=fast", "trainer=ddp_cpu",
            "test=false",
            "trainer.max_epochs=2", "data.side=64", "data.size=64", "data.sizes=[14, 30]",
            "data.counts={train: 8, val: 5, test: 4}", "data.limit.val=5", "model.neck.width=32", "model.head.width=32",
            "model.head.depth=1", "model.detect.score_threshold=0",
            f"+callbacks.probe={{_target_: probe.Probe, folder: {tmp_path}}}",
            f"hydra.run.dir={tmp_path / 'run'}",
        ],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert first == second
    values, path, score, rows = first
    assert len(values) == 2
    assert Path(path).is_file()
    assert score == max(values)
    assert rows > 0
