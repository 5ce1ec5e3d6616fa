"""Papers' comparisons, rerun at a size that a laptop can afford: several networks, one recipe, several seeds.

study = catalogue.find("effnet-table2")
running.run(study, "cifar10", Path("runs/table2"))       trains what is not done yet
results.read(study, Path("runs/table2"))                 what is done
"""
