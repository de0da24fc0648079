"""Networks written down as ONNX graphs, for runtimes other than JAX.

`trace.py` traces a function of a batch of windows and `translate.py` walks what was traced, with a
rule for each operation: `elementwise.py`, `axes.py` (axes moved, joined, cut) and `products.py`
(convolutions, matrix products, pooling, interpolation). `graph.py` holds the nodes and `values.py`
what flows between them. Arrays are channels last in the program and may be stored in another order
in the graph: there convolutions want channels first, and only values whose order matters are
transposed. What depends on constants alone is computed here, so that normalisation by running
statistics is a factor and a summand, and these become part of the convolution before them.
"""
