"""What a GPU would have to do for the losses, counted on the emulated device: ``python -m bench --device emulated``.

Counts are exact and the same on every run and machine. Times are modelled from them, not measured.
"""
