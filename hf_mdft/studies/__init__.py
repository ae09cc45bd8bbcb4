"""Studies of a recipe: what each part adds, few images, tasks outside the pool, shifts, the gate's record."""
