"""What a task on a user's own data is made of."""
