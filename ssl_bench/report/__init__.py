"""One HTML page of everything that records say: findings, tables, figures, pictures, and where each number is from."""
