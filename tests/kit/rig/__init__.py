"""What the suites in front of a balancer share: the compose stack, and editors that come through it."""
