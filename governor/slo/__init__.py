"""Objectives: what the runbooks promise, judged receipt by receipt."""
