"""What a run will need before it begins: memory of a training step, predicted without doing one."""
