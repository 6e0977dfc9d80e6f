"""What can be known before an estimate: whether the data can tell a policy's value."""
