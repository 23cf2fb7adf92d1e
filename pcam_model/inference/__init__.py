"""Using a published model: predictor, backends, streaming prediction, shards."""
