"""What is in a dataset, before anything is trained on it: facts, duplicates by content, and a picture sheet."""
