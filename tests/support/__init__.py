"""What tests share: fakes of nothing, players of a worker part, real servers that misbehave."""
