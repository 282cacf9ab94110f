"""What runs where: mechanisms as stage graphs, and the simulator that runs them."""
