"""One run: the optimizer, the engine that takes its steps, the judgement of the model, the diagnostics."""
