"""What is done to a running stack: processes killed, stores taken away."""
