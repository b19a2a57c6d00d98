"""The part that works: it claims tasks, runs their handlers, and sees that nothing is lost when something dies."""
