"""One forward pass that records every use of the wanted parameters.

Read ``plan`` first (how each parameter is measured), then ``record`` (what is kept of a use), then ``capture`` (the
context that exchanges the modules' methods). A use is recorded by one of four: a layer with a rule (``wrappers``), a
layer of experts (``experts``), an operation on tensors (``trace``, with :mod:`kvar.gradients.operations`), or a module
that is run again for each trajectory (``rerun``). ``axis`` follows which tensors run over the trajectories.
"""
