"""The network as data: operators, graphs, and building them. Standard library only."""
