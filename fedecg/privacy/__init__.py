"""Room 7: what protects patients beyond their data staying where they are.

In:  sums, gradients, messages of a site. Out: the same with noise, masks or cells merged, and a record of it.
Nothing here knows Flower; the client and the federation's documents call it.
"""
