"""What `import ssl_bench` offers to notebooks and scripts: results as data frames, the verbs as functions."""
