"""The built-in model: captioned scenes with known truth, training, evaluation."""
