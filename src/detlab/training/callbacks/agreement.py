"""Check that all processes of a run were started with the same config and folder."""

from __future__ import annotations

import lightning as L  # noqa: N812 - Lightning's own convention

from detlab.tensors.ranks import of_all


class DifferentConfigsError(RuntimeError):
    """The processes of a run were started differently."""


class SameConfig(L.Callback):
    """Compares config and run folder of all processes before training.

    Args:
        config_hash: hash of this process's resolved config.
        run_dir: run folder of this process.
    """

    def __init__(self, config_hash: str, run_dir: str) -> None:
        self.config_hash, self.run_dir = config_hash, run_dir
        self._agreed = False

    def setup(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        """Stop all processes if any differs from rank 0.

        Raises:
            DifferentConfigsError: on every rank; the message names the first rank that differs.
        """
        if self._agreed:
            return
        told = of_all((self.config_hash, self.run_dir))
        for rank, (config, folder) in enumerate(told):
            if config != told[0][0]:
                raise DifferentConfigsError(
                    f"Rank {rank} was started with another config than rank 0 ({config}, not {told[0][0]}); start all "
                    f"with the same overrides, environment and files."
                )
            if folder != told[0][1]:
                raise DifferentConfigsError(
                    f"Rank {rank} has the run folder {folder}, rank 0 has {told[0][1]}; give all processes that "
                    f"torchrun or srun starts the same one, hydra.run.dir=FOLDER."
                )
        self._agreed = True
