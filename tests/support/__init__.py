"""What tests share: fakes of nothing, players of a worker's part, real servers that misbehave."""
