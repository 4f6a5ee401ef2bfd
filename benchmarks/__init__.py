"""Tables, published numbers and performance benchmarks."""
