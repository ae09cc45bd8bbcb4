"""Studies of a recipe: what each part adds, what few images give, tasks outside the pool, the gate's record."""
