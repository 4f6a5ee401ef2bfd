"""What is in a data set, before anything is trained on it: facts, duplicates by content, and a picture sheet."""
