"""From a look at some files to a configuration: dialect, groups, types, keys, routes. Pure.

The judge of every guess is `ingestcore.tabular`, so what is inferred is what the csv-parser accepts.
"""
