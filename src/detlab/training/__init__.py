"""Training a detector: the LightningModule, what surrounds it, and the stages of a run."""
