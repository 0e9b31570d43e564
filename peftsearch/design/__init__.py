"""What is trained: designs, search spaces, budgets, and architectures with exact sizes. No torch."""
