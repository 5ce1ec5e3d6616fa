"""Comparisons from papers, rerun at laptop scale: several networks, one recipe, several seeds.

study = catalogue.find("effnet-table2")
running.run(study, "cifar10", Path("runs/table2"))       trains the missing runs
results.read(study, Path("runs/table2"))                 reads the finished ones
"""
