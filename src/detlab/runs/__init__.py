"""Files of a run and how they are read: checkpoints, run folders, dumped batches."""
