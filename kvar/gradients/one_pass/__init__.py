"""The ``one-pass`` engine: one forward pass, one backward pass per estimator, inner products layer by layer.

Read ``engine`` first. It asks ``trial`` once per student how each parameter is measured, and takes the trajectories in
``chunks``. Each chunk is a ``source``: a captured forward pass (:mod:`kvar.gradients.capture`), whose output gradients
``backward`` gives record by record (at the head as scaled rows, ``head_rows``); ``joined_uses`` makes them a block of
:mod:`kvar.gradients.products` for each parameter, and the block's inner products are added to the sums of its groups.
``row_by_row`` is the source for parameters that nothing else measures.
"""
