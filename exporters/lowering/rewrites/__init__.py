"""
What replaces each operator, one file per family of operators.

A rewrite takes the arguments of the ATen operator that it is registered for, in the operator's order: what is said of
them in PyTorch holds here. Tensors come as :class:`~exporters.lowering.values.Value`, with the shape that the operator
sees and in float32 unless the operator takes integers; gradients have the shape of what they are the gradient of.
"""
