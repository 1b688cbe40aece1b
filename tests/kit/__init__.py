"""What the Python suites share: a stage with Redis and nodes, editors and publishers that know the contract only."""
