"""What is kept of an action and a run once it is old: states and times, no content."""
