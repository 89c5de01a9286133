"""Which sample is next, as pure functions of integers.

A position counts samples in the endless global order: `epoch * n + i`. `plan` maps positions to sample_ids by
the keyed bijection of `permutation`; `mixture` says which of several sources a position takes from; `steps`
which positions a step takes, `partition` which of them a rank delivers. `sample_order` combines these, and
`cursor` is what a checkpoint stores. No pixels, no files, no torch, no memory that grows with n.
"""
