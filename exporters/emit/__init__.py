"""From a lowered graph to the bytes of a program: partition, XNNPACK's graph, ExecuTorch's file."""
