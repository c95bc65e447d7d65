"""What a method acts on and what it may spend: adapters, ranks, budgets, random streams."""
