"""What a governor is made of: its policy, its terms in Memory, its topic."""
