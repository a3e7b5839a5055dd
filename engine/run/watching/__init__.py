"""What a supervisor keeps an eye on while its worker trains: whether it is stalled, and how the devices are."""
