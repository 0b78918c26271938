"""Small detectors trained from scratch on pictures of handwritten digits, on the CPU, with aLRP Loss and with others.

``python -m examples.digits`` trains one, ``python -m examples.digits.exhibit`` compares losses; both from the repository's root.
"""
