"""What a network costs: Mult-Adds, parameters, bytes, activations."""
