"""Context encoders, end to end: pretrain by inpainting, transfer, probe, tabulate."""
