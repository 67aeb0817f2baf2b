"""How many actions at once a governor may have: what it needs, what that costs, what it helped."""
