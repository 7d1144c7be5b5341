"""How a number comes about: every step from the pixels to a value of an end point, and what each kernel call costs."""
