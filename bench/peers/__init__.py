"""What people use instead of taskd, each written as its own documentation would have it."""
