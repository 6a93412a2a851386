"""Train a detector: the LightningModule, its callbacks and loggers, and the stages of a run."""
