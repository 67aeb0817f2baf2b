"""Actions and runs once they are old: states and times stay, content goes."""
